/*
 * config.h
 *    The settings of evento-proxy: one table, read from flags, the environment,
 *    an ini file and defaults, in that order of precedence.
 *
 *    A setting that a module needs is a line in EVP_SETTINGS, and then a field
 *    of evp_config_t of that name.  Its flag and its key in the ini file are
 *    the field's name with "-" for "_", its variable is EVENTO_PROXY_ and the
 *    field's name in capitals.
 */
#ifndef EVP_CONFIG_H
#define EVP_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * X(kind, field, default, least, most, help)
 *
 * TEXT     char *, never NULL; least and most are its length in bytes
 * NUMBER   uint64_t
 * MS       uint64_t milliseconds; written as a number with ms (default), s or min
 * BYTES    uint64_t; written as a number with kB, MB or GB (powers of 1024)
 * LEVEL    uint64_t, an evp_log_level_t; written as its name
 * FORMAT   uint64_t, an evp_log_format_t; written as its name
 *
 * The default is written as a user would write it.
 */
#define EVP_SETTINGS(X) \
	X(TEXT, name, "", 0, 128, "name of this proxy in the cluster's views; the host's name when empty") \
	X(TEXT, database, "", 0, 8192, "libpq connection string; libpq's PG* environment when empty") \
	X(NUMBER, append_connections, "2", 1, 64, "connections to the database that append") \
	X(NUMBER, read_connections, "2", 1, 64, "connections to the database that read") \
	X(TEXT, read_from, "primary", 1, 10, "where events are read: primary, or standby: from standbys among the hosts of database that are near enough, else the primary") \
	X(MS, standby_lag, "2s", 100, 3600000, "a standby whose picture of the log may be older than this is not read from") \
	X(MS, standby_wait, "200ms", 0, 60000, "how long a read waits for a standby to have what its reader has seen, before the primary serves it") \
	X(NUMBER, db_queue, "20000", 16, 10000000, "statements that may wait for a connection to the database, of each kind") \
	X(BYTES, db_queue_bytes, "256MB", 1048576, 1099511627776, "parameters of the statements that wait, of each kind") \
	X(NUMBER, append_queue, "100000", 16, 10000000, "appends that may wait for a connection to the database") \
	X(BYTES, append_queue_bytes, "512MB", 16777216, 1099511627776, "data of the appends that wait or are not yet confirmed") \
	X(NUMBER, lock_queue, "100000", 16, 10000000, "commands that may hold or wait for locks") \
	X(MS, database_wait, "10s", 1, 600000, "how long a request may wait for a database that is away") \
	X(TEXT, bundle_address, "0.0.0.0", 1, 255, "address that bundles connect to") \
	X(NUMBER, bundle_port, "3030", 1, 65535, "port that bundles connect to") \
	X(TEXT, advertised, "", 0, 255, "host:port under which bundles reach this proxy; the bundle address, or the host's name, when empty") \
	X(TEXT, internal_address, "127.0.0.1", 1, 255, "address that other proxies connect to") \
	X(NUMBER, internal_port, "3031", 1, 65535, "port that other proxies connect to") \
	X(TEXT, internal_advertised, "", 0, 255, "host:port under which other proxies reach this one; the internal address, or the host's name, when empty") \
	X(TEXT, http_address, "127.0.0.1", 1, 255, "address of health, metrics and the API over HTTP") \
	X(NUMBER, http_port, "3032", 1, 65535, "port of health, metrics and the API over HTTP") \
	X(NUMBER, workers, "1", 1, 64, "processes on the bundle port, each a proxy of its own; internal and HTTP port of the next one are higher by one") \
	X(TEXT, http_api, "closed", 1, 10, "open: everybody who reaches the HTTP address may read and append; closed: only with a token, or where that is a loopback address") \
	X(NUMBER, http_connections, "256", 4, 100000, "connections over HTTP at once") \
	X(NUMBER, http_waiting, "128", 1, 100000, "requests over HTTP that wait for events, and streams of events, at once") \
	X(MS, http_wait, "30s", 0, 3600000, "longest time a request over HTTP waits for events") \
	X(MS, http_timeout, "30s", 1000, 600000, "a connection over HTTP that does not move is closed after this, and an append given up") \
	X(MS, http_keep_alive, "15s", 10, 600000, "a stream of events without any gets a sign of life after this") \
	X(BYTES, http_body, "16MB", 1024, 536870912, "longest body of a request over HTTP") \
	X(BYTES, http_answer, "8MB", 1024, 268435456, "data of the events in one answer over HTTP, besides at least one event") \
	X(BYTES, http_bytes, "256MB", 1048576, 1099511627776, "bodies and answers over HTTP in memory, all together") \
	X(NUMBER, http_readers, "2", 1, 64, "reads of the log for HTTP at once") \
	X(TEXT, bundle_tls, "off", 1, 16, "TLS on the bundle port: off or on") \
	X(TEXT, internal_tls, "auto", 1, 16, "TLS between proxies: off, on, or auto: on where tls-cert is set; all proxies alike") \
	X(TEXT, http_tls, "off", 1, 16, "TLS on the HTTP port: off or on") \
	X(TEXT, tls_cert, "", 0, 4096, "file with the certificate of this proxy and those that lead to its CA, PEM") \
	X(TEXT, tls_key, "", 0, 4096, "file with the certificate's private key, PEM without a passphrase") \
	X(TEXT, tls_ca, "", 0, 4096, "file with the CAs that certificates of bundles and of other proxies must come from, PEM") \
	X(TEXT, tls_client_cert, "none", 1, 16, "certificates of bundles: none, optional or required") \
	X(TEXT, tls_min_version, "1.2", 1, 16, "oldest version of TLS that is spoken: 1.2 or 1.3") \
	X(LEVEL, log_level, "info", 0, 0, "least level that is logged: error, warning, info or debug") \
	X(FORMAT, log_format, "text", 0, 0, "how a line of the log is written: text or json") \
	X(NUMBER, max_connections, "20000", 1, 1000000, "bundles' connections; more are refused") \
	X(NUMBER, listen_backlog, "1024", 1, 65535, "connections that may wait to be accepted") \
	X(MS, hello_timeout, "10s", 1, 600000, "a connection without a hello is closed after this") \
	X(MS, frame_timeout, "60s", 1, 600000, "a frame that is not complete is an error after this, unless 64 kB a second of it come") \
	X(MS, chunk_timeout, "60s", 1, 600000, "a message in chunks that is not complete is an error after this") \
	X(MS, ping_interval, "15s", 1, 600000, "a ping is sent after this without a write") \
	X(MS, idle_timeout, "45s", 1, 600000, "a connection is closed after this without a read") \
	X(BYTES, max_message, "256MB", 1048576, 1073741824, "longest message that is taken in chunks") \
	X(NUMBER, max_chunk_streams, "1024", 1, 65536, "messages in chunks that a connection may have unfinished") \
	X(BYTES, input_bytes, "2GB", 33554432, 1099511627776, "unfinished frames and messages of all connections together") \
	X(BYTES, output_bytes, "512MB", 16777216, 1099511627776, "what may wait to be sent to one connection before it is closed") \
	X(BYTES, output_total, "2GB", 16777216, 1099511627776, "what may wait to be sent to all connections together") \
	X(NUMBER, max_names, "10000", 1, 1000000, "payload names that one instance may register") \
	X(BYTES, max_discovery, "64MB", 1024, 268435456, "an instance's discovery, as text; a longer one is left out of the catalogue") \
	X(NUMBER, max_requests, "10000", 1, 1000000, "open requests of one connection; more are refused") \
	X(NUMBER, max_requests_total, "100000", 1, 10000000, "open requests of all connections together") \
	X(BYTES, request_bytes, "2GB", 16777216, 1099511627776, "payloads of all open requests together") \
	X(MS, max_timeout, "10min", 1000, 86400000, "longest time a request may take, whatever it asks for") \
	X(MS, answer_keep, "5min", 1, 3600000, "a repeated request gets the answer it had for so long") \
	X(MS, answer_away, "2min", 1, 3600000, "an answer for a caller that went away is kept so long") \
	X(MS, answer_again, "5s", 0, 600000, "answers sent so shortly before a connection broke are sent again on the next") \
	X(BYTES, answer_bytes, "24MB", 1048576, 1099511627776, "answers that are kept, the oldest go first") \
	X(MS, discovery_settle, "100ms", 0, 60000, "an instance gets requests this long after its discovery, or at its first message behind it") \
	X(MS, discovery_wait, "1s", 0, 60000, "an instance that sends no discovery gets requests this long after it enabled") \
	X(MS, cut_time, "5s", 1, 600000, "an instance whose connection was lost is waited for so long") \
	X(MS, avoid_time, "30s", 0, 600000, "an instance that has not answered in time gets one call after 1 s, then after twice as long each time up to this, until it answers; others are asked first") \
	X(MS, drain_time, "10s", 0, 3600000, "when told to stop, the proxy finishes what it has been asked, for so long at most") \
	X(MS, drain_delay, "0ms", 0, 600000, "when told to stop, the proxy serves HTTP for so long at least, until balancers have seen that it goes") \
	X(NUMBER, max_calls, "100000", 1, 10000000, "open calls to handlers") \
	X(NUMBER, command_tries, "10", 1, 1000, "how often a command is tried on an aggregate that changes under it") \
	X(BYTES, story_cache, "64MB", 1048576, 1099511627776, "stories of aggregates kept for their next commands") \
	X(MS, fetch_hold, "20s", 0, 600000, "an empty fetch of an enabled instance is held so long") \
	X(BYTES, fetch_bytes, "8MB", 1024, 268435456, "data of one fetch's events, besides at least one event") \
	X(BYTES, feed_bytes, "16MB", 1048576, 1073741824, "newest events kept in memory for consumers at the head") \
	X(NUMBER, feed_readers, "4", 1, 64, "consumers behind that read the log at once") \
	X(MS, telemetry_interval, "5s", 50, 600000, "what bundles tell of handlers, consumers and executors is written so often") \
	X(NUMBER, telemetry_entries, "20000", 16, 1000000, "handlers and invocations that are summed, and consumers and executors that wait to be written")

/*
 * X(field): those that are looked at each time that they count, so that a change
 * is in force from then on; never TEXT, to which others hold pointers.  Limits of
 * one connection hold for connections that are made later.
 */
#define EVP_RELOADED(X) \
	X(db_queue) X(db_queue_bytes) X(append_queue) X(append_queue_bytes) X(lock_queue) X(database_wait) X(log_level) \
	X(log_format) X(max_connections) X(hello_timeout) X(frame_timeout) X(chunk_timeout) X(ping_interval) X(idle_timeout) \
	X(max_message) X(max_chunk_streams) X(input_bytes) X(output_bytes) X(output_total) X(max_names) X(max_discovery) X(max_requests) \
	X(max_requests_total) X(request_bytes) X(max_timeout) X(answer_keep) X(answer_away) X(answer_again) X(answer_bytes) \
	X(discovery_settle) X(discovery_wait) X(drain_time) X(drain_delay) X(max_calls) X(command_tries) X(fetch_hold) X(fetch_bytes) \
	X(feed_readers) X(standby_lag) X(standby_wait)

typedef struct evp_config
{
#define EVP_FIELD_TEXT(field) char *field;
#define EVP_FIELD_NUMBER(field) uint64_t field;
#define EVP_FIELD_MS(field) uint64_t field;
#define EVP_FIELD_BYTES(field) uint64_t field;
#define EVP_FIELD_LEVEL(field) uint64_t field;
#define EVP_FIELD_FORMAT(field) uint64_t field;
#define EVP_FIELD(kind, field, dflt, least, most, help) EVP_FIELD_##kind(field)
	EVP_SETTINGS(EVP_FIELD)
#undef EVP_FIELD
} evp_config_t;

typedef enum evp_config_outcome
{
	EVP_CONFIG_OK,
	EVP_CONFIG_EXIT,		/* --help or --version was asked for and printed */
	EVP_CONFIG_ERROR		/* error says what is wrong, naming the flag, the variable, or the file and line */
} evp_config_outcome_t;

/*
 * Fills the settings from argv and the environment.  On anything but EVP_CONFIG_OK the settings are
 * empty and need no evp_config_free.  error gets one line of text without a
 * newline, cut off at size.
 */
evp_config_outcome_t evp_config_read(evp_config_t *config, int argc, char **argv, char *error, size_t size);

/* Changes what has to differ between workers (workers.h): the name, the internal port and the HTTP port.  number: from
 * 0.  False, with error filled, without memory. */
bool evp_config_for_worker(evp_config_t *config, int number, char *error, size_t size);

/*
 * Reads everything anew and takes over what has changed and is in EVP_RELOADED.
 * tell is called for each setting that has changed, with its flag (without "--");
 * taken: false where it stays as it was until the next start.  False, with error
 * filled and nothing changed, where something is wrong.  worker: the number that the
 * settings were changed for, -1: none.
 */
typedef void (*evp_config_tell) (const char *flag, bool taken);
bool evp_config_reload(evp_config_t *config, int argc, char **argv, int worker, evp_config_tell tell,
					   char *error, size_t size);

/* Frees the texts of the settings. */
void evp_config_free(evp_config_t *config);

/* Splits "host:port" or "[host]:port"; host gets at most size bytes with the terminator.  False where it is no such
 * pair. */
bool evp_config_host_port(const char *text, char *host, size_t size, uint16_t *port);

#endif /* EVP_CONFIG_H */
