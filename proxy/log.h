/*
 * log.h
 *    One line to standard error for each thing that happened:
 *        2026-01-31T12:00:00.000Z warning session 10.1.2.3:40112: text
 *    or, as JSON,
 *        {"time":"2026-01-31T12:00:00.000Z","level":"warning","module":"session","peer":"10.1.2.3:40112","message":"text"}
 */
#ifndef EVP_LOG_H
#define EVP_LOG_H

#include <stdbool.h>

typedef enum evp_log_level
{
	EVP_LOG_ERROR,			/* something failed that an operator should look at */
	EVP_LOG_WARNING,		/* something was refused or lost, and the proxy goes on */
	EVP_LOG_INFO,			/* connections, bundles, proxies come and go */
	EVP_LOG_DEBUG
} evp_log_level_t;

typedef enum evp_log_format
{
	EVP_LOG_TEXT,
	EVP_LOG_JSON
} evp_log_format_t;

void evp_log_set_format(evp_log_format_t format);
/* A format by its name; false where there is none. */
bool evp_log_format_parse(const char *name, evp_log_format_t *format);

/* Lines of a level above this one are dropped. */
void evp_log_set_level(evp_log_level_t level);
bool evp_log_enabled(evp_log_level_t level);

/* A level by its name; false where there is none. */
bool evp_log_level_parse(const char *name, evp_log_level_t *level);
const char *evp_log_level_name(evp_log_level_t level);

/*
 * Writes one line.  peer: whom it is about (an address, a bundle/instance), or
 * NULL.  Control characters in the text, which may come from a peer, are
 * written as \xNN, in JSON as \u00NN, where bytes that are no UTF-8 become ?; the
 * text is cut off at 2,000 bytes.
 */
void evp_log(evp_log_level_t level, const char *module, const char *peer, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif /* EVP_LOG_H */
