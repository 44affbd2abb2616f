/*
 * reads.h
 *    Where reads of the log go: with the setting read-from=standby to a standby
 *    that is near enough to the primary and has what the reader has seen, else
 *    to the primary.
 */
#ifndef EVP_READS_H
#define EVP_READS_H

#include "buf.h"
#include "db.h"
#include "proxy.h"

evp_reads_t *evp_reads_new(evp_proxy_t *proxy);
void evp_reads_stop(evp_reads_t *reads);
void evp_reads_free(evp_reads_t *reads);

/*
 * Runs a statement that only reads, as evp_db_run does, where reads go.  A
 * standby has what was committed standby-lag ago, and before the time since
 * (evp_now; 0: no matter), and all events up to position (0: no matter), for
 * which it is waited standby-wait at most.  What no standby does, or fails at
 * one, the primary does; so an error is the primary's word.
 */
void evp_reads_run(evp_reads_t *reads, const evp_db_statement_t *statement, int64_t position, uint64_t since, evp_db_cb cb, void *arg);

/* Reads that wait for a standby to reach their position. */
size_t evp_reads_waiting(const evp_reads_t *reads);

/* Connections to standbys that are near enough now. */
unsigned evp_reads_near(const evp_reads_t *reads);

/* How long ago at most the oldest picture was the primary's that a standby shows which is connected, in ms; -1: there is
 * none, or of no standby it is known. */
int64_t evp_reads_lag(const evp_reads_t *reads);

/* Appends what is read from as a JSON object. */
void evp_reads_put(const evp_reads_t *reads, evp_buf_t *b);

#endif /* EVP_READS_H */
