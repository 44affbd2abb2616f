/*
 * reports.h
 *    How the consumers of bundles that are connected here stand, and their
 *    executors: what bundles say of them, and where their fetches are.  Gathered
 *    for a few seconds, the newest of each, and brought to the database.
 */
#ifndef EVP_REPORTS_H
#define EVP_REPORTS_H

#include "notice.h"
#include "proxy.h"

evp_reports_t *evp_reports_new(evp_proxy_t *proxy);
void		evp_reports_stop(evp_reports_t *reports);
void		evp_reports_free(evp_reports_t *reports);

/* A bundle has named its consumers, or told how they and its executors do; other notices are passed over. */
void		evp_reports_notice(evp_reports_t *reports, const evp_session_t *session, const evp_notice_t *notice);

/* A consumer has asked for events behind a position.  head: it waits for new ones, having seen all that are for it. */
void		evp_reports_fetch(evp_reports_t *reports, const evp_session_t *session, evp_slice_t component, evp_slice_t context,
							  int64_t position, bool head);

/* Sends what there is now: at an orderly end, before the proxy leaves. */
void		evp_reports_flush(evp_reports_t *reports);

#endif							/* EVP_REPORTS_H */
