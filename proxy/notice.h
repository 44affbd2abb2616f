/*
 * notice.h
 *    Admin notifications: what a bundle tells of itself while it works, an
 *    EventoMessage whose body is one of a few classes.
 *
 *    Half of all frames are such.  Parsing reads the names and numbers that are
 *    summed; lists are kept as the bytes they are and walked when asked for.
 */
#ifndef EVP_NOTICE_H
#define EVP_NOTICE_H

#include "buf.h"

typedef enum evp_notice_kind
{
	EVP_NOTICE_SERVICE_TIME,	/* PerformanceServiceTimeMessage: one call of a handler */
	EVP_NOTICE_INVOCATIONS,		/* PerformanceInvocationsMessage: what one call of a handler invoked */
	EVP_NOTICE_CONSUMERS,		/* BundleConsumerRegistrationMessage */
	EVP_NOTICE_STATISTICS,		/* ConsumerStatsMessage */
	EVP_NOTICE_OTHER
} evp_notice_kind_t;

/* A notification.  The slices lie in the payload, or in joined strings that the notice holds. */
typedef struct evp_notice
{
	evp_notice_kind_t kind;

	/* service time, invocations */
	evp_slice_t component;
	evp_slice_t action;			/* name of the payload that was handled, or Class::method of an invoker */
	int64_t		start_ms;		/* service time */
	int64_t		end_ms;
	evp_slice_t invocations;	/* CBOR: a map of names to counts, null where there is none */

	/* registration of consumers; CBOR, maps of a component to its consumers */
	evp_slice_t projectors;
	evp_slice_t sagas;
	evp_slice_t observers;

	/* statistics; CBOR, lists */
	evp_slice_t executors;
	evp_slice_t consumers;

	evp_arena_t arena;
} evp_notice_t;

/* Gives 0; or -1 with *reason a static text, and then there is nothing to free. */
int			evp_notice_parse(evp_notice_t *n, evp_slice_t payload, const char **reason);
void		evp_notice_free(evp_notice_t *n);

/*
 * Walks what a notice lists.  Each gives 0, or -1 with *reason where the list is
 * not what it should be; what stands before the fault was called back.  Slices
 * are valid during the callback.
 */

typedef void (*evp_notice_invocation_cb) (void *arg, evp_slice_t name, int64_t count);
int			evp_notice_invocations(const evp_notice_t *n, evp_notice_invocation_cb cb, void *arg, const char **reason);

/* type: Projector, Saga or Observer. */
typedef void (*evp_notice_consumer_cb) (void *arg, const char *type, evp_slice_t component, evp_slice_t consumer);
int			evp_notice_consumers(const evp_notice_t *n, evp_notice_consumer_cb cb, void *arg, const char **reason);

typedef struct evp_executor_stats
{
	evp_slice_t name;
	int64_t		capacity;
	int64_t		in_flight;
	int64_t		admitted;
	int64_t		rejected;
	int64_t		completed;
	int64_t		failed;
} evp_executor_stats_t;

typedef struct evp_consumer_stats
{
	evp_slice_t consumer;
	evp_slice_t component;
	int64_t		in_flight;
	int64_t		submit_timeouts;
	int64_t		transient_failures;
} evp_consumer_stats_t;

typedef void (*evp_notice_executor_cb) (void *arg, const evp_executor_stats_t *stats);
typedef void (*evp_notice_stats_cb) (void *arg, const evp_consumer_stats_t *stats);
int			evp_notice_executors(const evp_notice_t *n, evp_notice_executor_cb cb, void *arg, const char **reason);
int			evp_notice_stats(const evp_notice_t *n, evp_notice_stats_cb cb, void *arg, const char **reason);

#endif							/* EVP_NOTICE_H */
