/*
 * feed.h
 *    Consumers' side of the log: EventFetchRequest with long poll, and the last
 *    sequence number.  One read of the log, at each advance of the watermark
 *    (NOTIFY evento), serves every consumer that waits at the head.
 */
#ifndef EVP_FEED_H
#define EVP_FEED_H

#include <stdint.h>

#include "proxy.h"
#include "requests.h"

evp_feed_t *evp_feed_new(evp_proxy_t *proxy);
void evp_feed_stop(evp_feed_t *feed);
void evp_feed_free(evp_feed_t *feed);

void evp_feed_fetch(evp_feed_t *feed, evp_request_t *request);
void evp_feed_last(evp_feed_t *feed, evp_request_t *request);
/* A position that every event appended from now on lies behind, as far as it is known here; -1 before the database was
 * first reached. */
int64_t evp_feed_watermark(const evp_feed_t *feed);
/* The history (db.h) that it is of. */
uint64_t evp_feed_history(const evp_feed_t *feed);
/* The newest events, for others that read the log; NULL before the database was first reached.  They are kept in memory
 * while this is called every few seconds. */
const struct evp_tail *evp_feed_tail(evp_feed_t *feed);
/* Called, never from within, when there may be more of them.  One subscriber. */
typedef void (*evp_feed_grown_cb)(void *arg);
void evp_feed_watch(evp_feed_t *feed, evp_feed_grown_cb cb, void *arg);
/* Disabled or closed: what is held for it is answered empty. */
void evp_feed_session_changed(evp_feed_t *feed, evp_session_t *session);


/* Tells the reports of the held fetches that have moved since it was asked last where they are. */
void evp_feed_heads(evp_feed_t *feed, evp_reports_t *reports);

#endif /* EVP_FEED_H */
