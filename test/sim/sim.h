/*
 * sim.h
 *    What the files of the bundle simulator know of each other.
 *
 * The simulator plays the bundles of an order application over the real
 * protocol, for load and for machines without Java: handlers of commands and
 * queries, callers in closed loops, consumers that follow the log.  It checks
 * every answer and every event, and prints what it counted and timed.
 *
 * bundle.c    one connection: hello, registration, enable, frames, reconnecting
 * graph.c     the object graphs of the order application
 * handler.c   bundle "sim-command" (aggregate, service) and "sim-query"
 * caller.c    closed loops of commands or queries, and their checks
 * consumer.c  a consumer: fetches, checks the order, keeps a projection
 * tell.c      what bundles tell of their handlers and consumers, with --telemetry
 * stats.c     histograms of latencies
 * sim.c       options, the run, the summary
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "../../proxy/buf.h"
#include "../../proxy/message.h"
#include "../../proxy/tls_io.h"
#include "../../proxy/uuid.h"
#include "../../proxy/wire.h"

#define SIM_MAX_PROXIES 16
#define SIM_MAX_TOKENS	8
#define SIM_REVISIONS	64		/* acknowledgements remembered per order, for delays */

/* ---- stats.c: a histogram of microseconds, about 3 % wide a bucket ---- */

#define SIM_BUCKETS 1024
typedef struct sim_histogram
{
	uint64_t	count;
	uint64_t	max;
	uint32_t	buckets[SIM_BUCKETS];
} sim_histogram_t;

void sim_histogram_add(sim_histogram_t *h, uint64_t us);
void sim_histogram_merge(sim_histogram_t *into, const sim_histogram_t *from);
/* The value below which the given share (0 to 1) lies, in milliseconds; 0 when empty. */
double sim_histogram_ms(const sim_histogram_t *h, double share);

/* ---- sim.c ---- */

typedef enum sim_kind
{
	SIM_AGGREGATE,				/* OrderPlace, then OrderChange: domain commands */
	SIM_SERVICE,				/* OrderNotify: service commands without a stream */
	SIM_QUERY					/* OrderGet */
} sim_kind_t;

/* One order, the aggregate of the simulation. */
typedef struct sim_order
{
	int64_t		revision;		/* of the last answer */
	int64_t		total;			/* of amounts answered */
	bool		unsure;			/* a command timed out: it may have been carried out */
	uint64_t	acked[SIM_REVISIONS];	/* uv_hrtime when revision % SIM_REVISIONS was answered */
	uint64_t	sent[SIM_REVISIONS];	/* and when its command was sent */
	int64_t		seen_revision;	/* by the first consumer */
	int64_t		seen_total;
} sim_order_t;

typedef struct sim_address
{
	char		host[256];
	char		port[8];
} sim_address_t;

typedef struct sim
{
	uv_loop_t  *loop;
	/* options */
	sim_address_t proxies[SIM_MAX_PROXIES];	/* where callers and consumers connect */
	unsigned	n_proxies;
	sim_address_t handler_proxies[SIM_MAX_PROXIES];
	unsigned	n_handler_proxies;
	unsigned	handlers;		/* connections of sim-command and of sim-query each; 0: played elsewhere */
	unsigned	callers;		/* closed loops */
	unsigned	connections;	/* that the callers share */
	unsigned	consumers;
	unsigned	orders;			/* aggregates */
	unsigned	payload;		/* bytes of padding in a command */
	unsigned	snapshot_every; /* events; 0: never */
	unsigned	seconds;		/* of load; 0: until count */
	uint64_t	count;			/* commands; 0: until seconds */
	unsigned	timeout_ms;		/* of a request */
	sim_kind_t	kind;
	bool		allow_failures;
	bool		mixed_locks;
	bool		telemetry;
	uint64_t	rate;			/* requests a second of all callers; 0: as many as they can */
	SSL_CTX    *tls;			/* NULL: connections are clear */
	const char *tokens[SIM_MAX_TOKENS];	/* "bundle=token" */
	unsigned	n_tokens;
	char		run[64];		/* part of every order's name */
	FILE	   *record;			/* what became of each command for an order; NULL: none is kept */

	/* the run */
	sim_order_t *order;
	bool		stopping;		/* callers send nothing new */
	uint64_t	begun;			/* commands begun */
	uint64_t	answered;
	uint64_t	failed;			/* failures and timeouts of requests */
	uint64_t	wrong;			/* checks that did not hold */
	uint64_t	handled;		/* requests the handlers served */
	uint64_t	answered_at[SIM_MAX_PROXIES];
	sim_histogram_t latency;
	sim_histogram_t command_to_event;	/* command sent -> event seen by the first consumer */
	sim_histogram_t answer_to_event;	/* command answered -> the same */
	uint64_t	events_seen;	/* of this run, by the first consumer */
	unsigned	ready;			/* bundles that have been welcomed, and consumers that know where they begin */
	unsigned	expected_ready;
	void		(*on_ready) (struct sim *);
} sim_t;

/* A check that did not hold: counted, and the first few are printed. */
void sim_wrong(sim_t *sim, const char *format,...) __attribute__((format(printf, 2, 3)));
/* A request that failed: counted, and the first few are printed. */
void sim_failed(sim_t *sim, const char *format,...) __attribute__((format(printf, 2, 3)));
/* Order number of "<run>-<n>", or -1 for a name that is not of this run. */
int64_t sim_order_number(const sim_t *sim, evp_slice_t name);

/* ---- bundle.c ---- */

typedef struct sim_bundle sim_bundle_t;
typedef struct sim_bundle_ops
{
	void		(*on_welcome) (sim_bundle_t *b);	/* after registration, discovery and enable were sent */
	void		(*on_request) (sim_bundle_t *b, const evp_message_t *m);
	void		(*on_response) (sim_bundle_t *b, const evp_message_t *m);
	void		(*on_down) (sim_bundle_t *b);	/* the connection was lost; it is dialled again */
} sim_bundle_ops_t;

struct sim_bundle
{
	sim_t	   *sim;
	const sim_bundle_ops_t *ops;
	void	   *arg;			/* the player's */
	const char *bundle;
	char		instance[EVP_UUID_TEXT_LEN + 1];
	const char *const *names;	/* registered, NULL at the end */
	const char *component;		/* "Aggregate" …; what discovery says of the names */
	const sim_address_t *addresses;
	unsigned	n_addresses;
	unsigned	address;		/* the one in use */
	unsigned	dials;			/* counted, for a name that has several addresses */
	bool		up;				/* welcomed */
	bool		was_up;
	bool		closing;

	uv_tcp_t	tcp;
	evp_tls_io_t *tls;			/* NULL: clear */
	evp_buf_t	sealing;		/* what is being written by it */
	uv_buf_t	sealing_buf;
	bool		busy;			/* it is writing */
	uv_timer_t	timer;			/* dial again */
	uv_getaddrinfo_t resolve;
	uv_connect_t connect;
	unsigned	pins;			/* open handles of the connection */
	bool		flushing;
	evp_wire_t	wire;
	evp_buf_t	out;			/* frames not yet handed to the kernel */
	sim_bundle_t *next_dirty;
	bool		dirty;
};

/* A bundle that dials addresses[first] at once, and the next one whenever a connection fails; of a name that has several
 * addresses the next one of these, too.  names, addresses and
 * component must outlive it.  Freed by sim_bundle_close, when its handles are closed. */
sim_bundle_t *sim_bundle_new(sim_t *sim, const char *bundle, const char *component, const char *const *names,
							 const sim_address_t *addresses, unsigned n_addresses, unsigned first,
							 const sim_bundle_ops_t *ops, void *arg);
void sim_bundle_close(sim_bundle_t *b);
/* Queues a message; it goes out at the end of the loop's turn.  False while not connected. */
bool sim_bundle_send(sim_bundle_t *b, const evp_message_t *m);
/* Queues a notification, also before the bundle is up. */
void sim_bundle_notify(sim_bundle_t *b, const char *type, const evp_buf_t *payload);
/* Writes out what was queued in this turn; a prepare and a check handle call it. */
void sim_bundles_flush(void);
int64_t sim_now_ms(void);		/* since 1970 */

/* ---- graph.c ---- */

typedef struct sim_command
{
	const char *name;			/* OrderPlace, OrderChange, OrderNotify, OrderGet */
	char		order[128];
	const char *lock;			/* lockId, NULL: none */
	int64_t		amount;
	unsigned	pad;			/* bytes */
	bool		service;
	bool		query;
} sim_command_t;

/* What a handler needs of a request. */
typedef struct sim_task
{
	evp_slice_t correlation;	/* of the EventoRequest */
	evp_slice_t name;			/* of the command or query */
	evp_slice_t command;		/* its JSON */
	evp_slice_t snapshot;		/* JSON of the state, null: none */
	evp_slice_t last_event;		/* JSON of the story's last event, null: none */
	unsigned	events;			/* in the story */
	int64_t		timestamp, timeout;
	bool		story_dense;	/* revisions in the story follow one another */
	evp_arena_t arena;
} sim_task_t;

/* What a caller needs of a response. */
typedef struct sim_answer
{
	evp_slice_t body_class;		/* last part of the body's class name */
	evp_slice_t event;			/* JSON of the event */
	evp_slice_t throwable;		/* of an ExceptionWrapper */
	evp_slice_t text;			/* its message */
	evp_slice_t view_order;		/* of a Single */
	int64_t		view_amount;
	evp_arena_t arena;
} sim_answer_t;

typedef struct sim_event
{
	int64_t		sequence;
	evp_slice_t aggregate;
	evp_slice_t name;
	evp_slice_t object;			/* JSON */
} sim_event_t;

void sim_put_request(evp_buf_t *b, const sim_bundle_t *from, const sim_command_t *command, unsigned timeout_ms);
void sim_put_fetch(evp_buf_t *b, const sim_bundle_t *from, int64_t after, unsigned limit);
void sim_put_last(evp_buf_t *b, const sim_bundle_t *from);
void sim_put_registration(evp_buf_t *b, const sim_bundle_t *bundle);
void sim_put_discovery(evp_buf_t *b, const sim_bundle_t *bundle);
/* Answers: an event with a state where snapshot; a service event; an order's view; an exception. */
void sim_put_event_answer(evp_buf_t *b, const sim_task_t *task, const char *event, const char *json, const char *state);
void sim_put_service_answer(evp_buf_t *b, const sim_task_t *task, const char *event, const char *json);
void sim_put_view_answer(evp_buf_t *b, const sim_task_t *task, evp_slice_t order, int64_t amount);
void sim_put_exception_answer(evp_buf_t *b, const sim_task_t *task, const char *throwable, const char *text);

bool sim_read_task(sim_task_t *task, evp_slice_t payload);
bool sim_read_answer(sim_answer_t *answer, evp_slice_t payload);
typedef void (*sim_event_cb) (void *arg, const sim_event_t *event);
/* Calls back for every event of an EventFetchResponse; gives their number, or -1. */
int sim_read_events(evp_slice_t payload, sim_event_cb cb, void *arg);
bool sim_read_last(evp_slice_t payload, int64_t *number);

/* A number, or a text, of our own JSON by its key.  -1, or null, where it is not there. */
int64_t sim_json_number(evp_slice_t json, const char *key);
evp_slice_t sim_json_text(evp_slice_t json, const char *key);

/* ---- tell.c: as the library does it ---- */

/* One call of a handler, which took so long: its service time, and that it invoked nothing. */
void sim_tell_call(sim_bundle_t *b, const char *component, evp_slice_t action, int64_t ms);
/* The one consumer that a bundle has. */
void sim_tell_consumer(sim_bundle_t *b, const char *component, const char *context);
/* Answers a request to that consumer; false where it is none. */
bool sim_answer_ask(sim_bundle_t *b, const evp_message_t *m, int64_t position);

/* ---- handler.c, caller.c, consumer.c: each starts its bundles and closes them ---- */

bool sim_handlers_start(sim_t *sim);
void sim_handlers_stop(void);
bool sim_callers_start(sim_t *sim);	/* connects; sim_callers_go begins the load */
void sim_callers_go(void);
bool sim_callers_done(void);	/* nothing in flight */
void sim_callers_stop(void);
bool sim_consumers_start(sim_t *sim);
void sim_consumers_stop(void);

#endif							/* SIM_H */
