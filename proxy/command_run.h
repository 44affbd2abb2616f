/*
 * command_run.h
 *    What the parts of command.h share: one command on its way.
 *
 * command.c            starts, queues, delays and ends commands
 * command_aggregate.c  domain commands: story, handler, append, conflict
 * command_service.c    service commands: handler, append
 */
#ifndef EVP_COMMAND_RUN_H
#define EVP_COMMAND_RUN_H

#include "command.h"
#include "graph.h"
#include "locks.h"
#include "pack.h"
#include "router.h"
#include "store.h"

typedef struct evp_command evp_command_t;
typedef struct evp_command_queue evp_command_queue_t;	/* the commands on one aggregate; command.c's */
typedef void (*evp_command_step) (evp_command_t *command);

/* What a command waits for; it always waits for exactly one thing, and whoever lets it go on says what is next. */
typedef enum evp_command_wait
{
	EVP_WAIT_TURN,				/* its step, in the next turn */
	EVP_WAIT_QUEUE,				/* the command before it on the same aggregate */
	EVP_WAIT_DELAY,				/* some milliseconds */
	EVP_WAIT_LOCK,
	EVP_WAIT_CALL,
	EVP_WAIT_STORE				/* a load or an append, which cannot be taken back */
} evp_command_wait_t;

struct evp_command
{
	evp_command_t *prev;		/* of all commands */
	evp_command_t *next;
	evp_command_t *before;		/* in its queue, or among those to be run or delayed */
	evp_command_t *after;
	evp_proxy_t *proxy;
	evp_commands_t *commands;
	evp_request_t *request;		/* with a reference */
	const evp_graph_request_t *graph;	/* the request's */
	evp_command_queue_t *queue; /* of its aggregate, NULL for service commands */
	evp_command_wait_t wait;
	evp_command_step step;		/* what comes after the wait */
	uint64_t	resume_at;		/* with EVP_WAIT_DELAY */
	bool		abandoned;		/* ended while the store was at work: freed by its callback */

	evp_lock_t *lock;			/* ticket, held or waited for */
	int64_t		fence;
	evp_call_t *call;

	uint8_t		id[16];			/* of the event that it brings about */
	unsigned	tries;
	bool		repeated;		/* its event was found in the log when it was to be appended */
	int64_t		head;			/* of the story the handler was given */
	int64_t		since;			/* watermark known before the first try; -1: none yet */
	bool		has_response;
	evp_graph_response_t response;
};

/* Goes on with a step in the next turn, or after some time. */
void evp_command_next(evp_command_t *command, evp_command_step step);
void evp_command_delay(evp_command_t *command, uint64_t ms, evp_command_step step);

/* Takes the lock that its lockId names, then goes on with a step; ends the command where there is none to be had. */
void evp_command_lock(evp_command_t *command, evp_command_step step);

/* False where a lock is held that others may take over soon: the command is then begun again, or ended. */
bool evp_command_may_start(evp_command_t *command, evp_command_step again);

/* Until when database and locks are waited for: somewhat before the caller gives up. */
uint64_t evp_command_store_deadline(const evp_command_t *command);

/* Begins a call to the handler; without memory for it the command is ended. */
void evp_command_call(evp_command_t *command, evp_call_kind_t kind, evp_slice_t payload, evp_call_cb cb);

/* Every callback of the store begins with this; true where the command is over (and freed now). */
bool evp_command_store_done(evp_command_t *command);

/* Answers that end the command; it is freed afterwards. */
void evp_command_fail(evp_command_t *command, const char *exception_class, const char *message);
void evp_command_answer(evp_command_t *command, evp_slice_t payload);	/* the CBOR of an EventoResponse */
void evp_command_answer_body(evp_command_t *command, evp_slice_t body);	/* of the EventoResponse */
void evp_command_answer_event(evp_command_t *command, const evp_event_t *event);
void evp_command_answer_exception(evp_command_t *command, evp_slice_t message);	/* ExceptionWrapper of a RuntimeException */

/* Reads what a call brought into command->response.  Ends the command where that is no answer of use; true where it did. */
bool evp_command_call_failed(evp_command_t *command, evp_call_status_t status, const evp_message_t *message);

/* Ends the command where the store could not do what it was asked. */
void evp_command_store_failed(evp_command_t *command, evp_store_status_t status, const char *message);

/*
 * Puts what the handler brought into an event, and the snapshot (domain
 * commands) into the item, and appends it; cb is called with the outcome.  Ends
 * the command where it cannot be stored.
 */
void evp_command_append(evp_command_t *command, evp_pack_item_t *item, bool service, evp_append_cb cb);

void evp_command_aggregate(evp_command_t *command);
void evp_command_service(evp_command_t *command);

#endif /* EVP_COMMAND_RUN_H */
