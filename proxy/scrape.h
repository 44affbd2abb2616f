/*
 * scrape.h
 *    What is to be measured when somebody asks: how full the queues of the
 *    modules are, and what the process takes.
 */
#ifndef EVP_SCRAPE_H
#define EVP_SCRAPE_H

#include <stdbool.h>

#include "buf.h"
#include "proxy.h"

/* Appends all metrics in the text format of Prometheus.  False when the buffer has failed. */
bool		evp_scrape(const evp_proxy_t *proxy, evp_buf_t *b);

#endif							/* EVP_SCRAPE_H */
