/*
 * command_run.h
 *    What the parts of command.h share: one command on its way.
 *
 * command.c            starts, delays and ends commands
 * command_queue.c      those on one aggregate
 * command_turns.c      aggregates on which they go in turn at all proxies
 * command_aggregate.c  domain commands: story, handler, append, conflict
 * command_service.c    service commands: handler, append
 */
#ifndef EVP_COMMAND_RUN_H
#define EVP_COMMAND_RUN_H

#include <uv.h>

#include "command.h"
#include "fair.h"
#include "graph.h"
#include "locks.h"
#include "pack.h"
#include "payload.h"
#include "router.h"
#include "store.h"
#include "stories.h"
#include "turn.h"

typedef struct evp_command evp_command_t;
typedef struct evp_command_queue evp_command_queue_t;	/* the commands on one aggregate; command_queue.c's */
typedef struct evp_command_mark evp_command_mark_t; /* an aggregate whose commands go in turn; command_turns.c's */
typedef void (*evp_command_step) (evp_command_t *command);

/* What a command waits for; it always waits for exactly one thing, and whoever lets it go on says what is next. */
typedef enum evp_command_wait
{
	EVP_WAIT_TURN,				/* its step, in the next turn */
	EVP_WAIT_QUEUE,				/* its turn on its aggregate */
	EVP_WAIT_CHAIN,				/* the appends that were sent before its own, on its aggregate */
	EVP_WAIT_DELAY,				/* some milliseconds */
	EVP_WAIT_LOCK,
	EVP_WAIT_CALL,
	EVP_WAIT_STORE				/* a load or an append, which cannot be taken back */
} evp_command_wait_t;

/* Where in its queue a command is. */
typedef enum evp_command_place
{
	EVP_PLACE_WAITING,
	EVP_PLACE_RUNNING,			/* it has the aggregate: story, handler, or all of it under a ticket */
	EVP_PLACE_CHAIN,			/* the handler has answered */
	EVP_PLACE_SENT				/* its append is on the way */
} evp_command_place_t;

/* A power of two.  Where two streams meet, one is loaded from the primary that could be from a standby. */
#define EVP_APPENDED 4096

struct evp_commands
{
	evp_proxy_t *proxy;
	evp_command_t *all;
	evp_command_queue_t *queues;
	evp_command_mark_t *marks;
	evp_stories_t *stories;
	uint64_t	story_changes;	/* besides appends, and gaps in what is heard of those */
	uint64_t	story_changed_at;	/* the last of them */
	uint64_t	appended_at[EVP_APPENDED];	/* the last append of this proxy to a stream, by the hash of its name */
	evp_command_t *ready;		/* EVP_WAIT_TURN */
	evp_command_t *delayed;		/* EVP_WAIT_DELAY */
	size_t		queued;			/* EVP_WAIT_QUEUE */
	evp_turn_t	turn;
	uv_timer_t	tick;			/* while some are delayed */
	uv_timer_t	sweep;			/* while some are queued */
	uv_timer_t	look;			/* while there are marks */
	bool		stopped;
};

struct evp_command
{
	evp_command_t *prev;		/* of all commands */
	evp_command_t *next;
	evp_command_t *before;		/* in its queue but for those that wait there, or among those to be run or delayed */
	evp_command_t *after;
	evp_fair_item_t turn;		/* among those that wait in its queue */
	evp_proxy_t *proxy;
	evp_commands_t *commands;
	evp_request_t *request;		/* with a reference */
	const evp_graph_request_t *graph;	/* the request's */
	evp_command_queue_t *queue; /* of its aggregate, NULL for service commands */
	evp_command_place_t place;	/* in the queue */
	evp_command_wait_t wait;
	evp_command_step step;		/* what comes after the wait */
	uint64_t	resume_at;		/* with EVP_WAIT_DELAY */
	bool		abandoned;		/* ended while the store was at work: freed by its callback */

	evp_lock_t *lock;			/* ticket, held or waited for */
	bool		in_turn;		/* that is its turn on the aggregate, no lock of a user's */
	int64_t		fence;
	evp_call_t *call;

	uint8_t		id[16];			/* of the event that it brings about */
	unsigned	tries;
	unsigned	reruns;			/* on a loaded story that others have changed meanwhile, without an event */
	bool		repeated;		/* its event was found in the log when it was to be appended */
	int64_t		head;			/* of the story the handler was given */
	bool		kept;			/* that was a kept one, and nobody has looked for the command's id */
	bool		visible;		/* it was loaded, and has events or a snapshot */
	bool		fresh;			/* it has to be one that is newly loaded */
	bool		chained;		/* sent behind another whose event it was run on */
	bool		joint;			/* sent together with other callers' */
	uint64_t	epoch;			/* of the queue, when the story was taken, or its load begun */
	uint64_t	changes;		/* of stories, when the load was begun */
	int64_t		since;			/* watermark known before the first try; -1: none yet */
	bool		has_response;
	evp_graph_response_t response;

	/* what is appended; the slices lie in the response and in the two below */
	evp_event_t event;
	bool		has_snapshot;
	evp_snapshot_t snapshot;
	evp_arena_t arena;
	evp_buf_t	metadata;
};

/* Goes on with a step in the next turn, or after some time. */
void evp_command_next(evp_command_t *command, evp_command_step step);
void evp_command_delay(evp_command_t *command, uint64_t ms, evp_command_step step);

/* Takes the lock that its lockId names, then goes on with a step; ends the command where there is none to be had. */
void evp_command_lock(evp_command_t *command, evp_command_step step);

/* The same for its turn on its aggregate, which commands take that are in each other's way at several proxies. */
void evp_command_take_turn(evp_command_t *command, evp_command_step step);

/* Tells all proxies that commands on its aggregate are to go in turn for now. */
void evp_command_call_for_turns(evp_command_t *command);

/* False where a lock is held that others may take over soon: the command is then begun again, or ended. */
bool evp_command_may_start(evp_command_t *command, evp_command_step again);

/* Until when database and locks are waited for: somewhat before the caller gives up. */
uint64_t evp_command_store_deadline(const evp_command_t *command);

/* Forgets what a handler has brought. */
void evp_command_drop_response(evp_command_t *command);

/* Begins a call to the handler; without memory for it the command is ended. */
void evp_command_call(evp_command_t *command, evp_call_kind_t kind, evp_slice_t payload, evp_call_cb cb);

/* Every callback of the store begins with this; true where the command is over (and freed now). */
bool evp_command_store_done(evp_command_t *command);

/* A load came so late that the caller has been told already: no handler is to be asked.  Ends the command; true where it did. */
bool evp_command_is_late(evp_command_t *command);

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

/* Makes an event, and a snapshot (domain commands), of what the handler brought.  Ends the command where it cannot be stored; false then. */
bool evp_command_prepare(evp_command_t *command, bool service);

/* Appends what was prepared, with what the item says besides; cb is called with the outcome. */
void evp_command_append(evp_command_t *command, evp_pack_item_t *item, evp_append_cb cb);

void evp_command_aggregate(evp_command_t *command);
void evp_command_service(evp_command_t *command);

/* ---- command_queue.c; each may begin other commands' steps in the next turn, and none from within ---- */

/* Runs a command as soon as its aggregate is free for it. */
void evp_command_enter_queue(evp_command_t *command, evp_slice_t name, evp_command_step step);
void evp_command_leave_queue(evp_command_t *command);

/* Lets the others of its aggregate go on, and runs a step when it is the first of them. */
void evp_command_requeue(evp_command_t *command, evp_command_step step);

/* Its handler has answered: its append, evp_command_send, is called in its time, and the next command has the turn. */
void evp_command_chain(evp_command_t *command);

/* The append of one that was sent has brought nothing new: what was run on its event is run again. */
void evp_command_chain_broken(evp_command_t *command);

/* Others have changed an aggregate's story without an event: it is kept no longer, and what was run on it and is not sent is run again. */
void evp_command_story_changed(evp_commands_t *commands, evp_slice_t name);

/* Are there appends on its aggregate that have not been answered, or not been sent? */
bool evp_command_is_ahead(const evp_command_t *command);

/* Changes when a chain on its aggregate breaks, or others have changed the story. */
uint64_t evp_command_epoch(const evp_command_t *command);

/* Was the aggregate changed by others lately?  ran_alone: one more command has gone its way without a kept story. */
bool evp_command_queue_shared(const evp_command_t *command);
void evp_command_ran_alone(evp_command_t *command);

/* ---- command_turns.c ---- */

void evp_command_turns_init(evp_commands_t *commands);
void evp_command_turns_stop(evp_commands_t *commands);

/* Do commands on its aggregate go in turn, at all proxies?  Sets that, for a while. */
bool evp_command_is_in_turn(const evp_command_t *command);
void evp_command_go_in_turn(evp_commands_t *commands, evp_slice_t name);

/* ---- command_aggregate.c, for the queue ---- */

/* The story that a command can be run on at once, or NULL where it needs one newly loaded. */
const evp_kept_story_t *evp_command_kept_story(const evp_command_t *command);

/* Appends the event of a command of the chain. */
void evp_command_send(evp_command_t *command);

#endif /* EVP_COMMAND_RUN_H */
