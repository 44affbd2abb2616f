/*
 * ledger.h
 *	  What the parts of evento-ledger share: sessions, operations, the record.
 *
 * main.c		arguments, signals
 * session.c	a connection that is made again, statements that can be given up
 * write.c		clients that append, and the record of what they did
 * operation.c	one operation of each kind that is not a batch
 * batch.c		append_batch: many operations in one call
 * read.c		readers that follow the log
 * consume.c	a reader that is a durable consumer
 * dump.c		the final content of the log, as a file
 * history.c	reads all these files
 * check.c		holds the record against the content
 *
 * The record is made of lines:
 *
 *	B op invoked kind row item ...	an operation begins; item: stream:expected:events:fate,
 *									stream -1 none, expected * any, fate k kept or
 *									g gone (rolled back to a savepoint); row 1: with
 *									it goes a row of public.ledger_rows
 *	U op time why					nobody knows how this attempt has ended
 *	A op invoked					it is tried again
 *	E op returned ok first last version ...		positions (0: not asked), and for
 *									each item kept the version of its last event
 *	E op returned conflict item found
 *	E op returned failed why		surely not committed
 *
 * Times are nanoseconds of CLOCK_MONOTONIC.  An operation without E has an
 * unknown outcome.  Ids of events are made of the operation (16 hex digits)
 * and the number of the event in it (16 more), counted over all its items.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <libpq-fe.h>

#define STREAM_PREFIX	"ledger-"
#define EVENT_TYPE		"Ledger"
#define EXPECT_ANY		INT64_MIN
#define MAX_ITEMS		4
#define MAX_EVENTS		8		/* of one item */
#define MAX_BATCH		24
#define NO_STREAM		(-1)

/* ---- main.c ---- */

/* SIGTERM or SIGINT has come, or the time is up. */
extern atomic_bool stopping;

/* When it came; what runs is given up some seconds later. */
extern bool given_up(void);

extern int64_t now_ns(void);
extern void sleep_ms(double ms);
extern void die(const char *format,...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- session.c ---- */

typedef struct Session
{
	const char *conninfo;
	PGconn	   *conn;			/* NULL: not connected */
	bool		sync_cut_short; /* a wait for a synchronous standby was */
} Session;

/* How a statement ended. */
typedef enum Ending
{
	ENDED_WELL,
	ENDED_ERROR,				/* the server said so, and the session goes on */
	ENDED_LOST					/* the connection is gone */
} Ending;

typedef struct Answer
{
	Ending		ending;
	PGresult   *result;			/* the last with rows or an error; NULL where there is none */
	char		state[6];		/* SQLSTATE, "" where there is none */
} Answer;

/* Connects, trying again until it works; false where that was given up. */
extern bool session_open(Session *session);
extern void session_close(Session *session);

/* Runs one statement with texts as parameters. */
extern Answer session_run(Session *session, const char *sql, int nparams, const char *const *params);

/* The same with one parameter in binary. */
extern Answer session_run_bytes(Session *session, const char *sql, const unsigned char *bytes, int length);
extern void answer_free(Answer *answer);

/* One value of an answer as a number, 0 where it is NULL or not there. */
extern int64_t answer_number(const Answer *answer, int row, int column);

/* ---- write.c ---- */

/* Appends to one stream within an operation. */
typedef struct Item
{
	int			stream;			/* or NO_STREAM */
	int64_t		expected;		/* or EXPECT_ANY */
	int			events;
	bool		gone;			/* behind a savepoint that is rolled back */
	int64_t		version;		/* of its last event, once known */
} Item;

typedef enum Kind
{
	KIND_ANY = 'a',				/* append, expected NULL */
	KIND_EXPECTED = 'e',		/* append with an expected version */
	KIND_EVENTS = 'n',			/* append_events */
	KIND_SEVERAL = 't',			/* a transaction over streams and a user's table */
	KIND_SAVEPOINT = 's',		/* the same with a savepoint rolled back */
	KIND_LATE = 'l',			/* the same with a pause before COMMIT */
	KIND_STREAMLESS = 'x',		/* a transaction with events without stream */
	KIND_ROLLBACK = 'r',		/* a transaction that rolls back */
	KIND_BATCH = 'b'			/* an item of append_batch */
} Kind;

typedef enum Outcome
{
	OUTCOME_OK,
	OUTCOME_CONFLICT,
	OUTCOME_FAILED,
	OUTCOME_UNKNOWN
} Outcome;

typedef struct Operation
{
	uint64_t	id;
	Kind		kind;
	bool		row;			/* a row of the user's table goes with it */
	int			nitems;
	Item		items[MAX_ITEMS];

	/* What came of it. */
	Outcome		outcome;
	bool		doubtful;		/* an attempt before had an unknown outcome */
	bool		recorded;		/* its end is */
	int64_t		returned;		/* 0: take the time of writing */
	int64_t		first;			/* positions, 0 where not asked */
	int64_t		last;
	int			conflict_item;
	int64_t		found;
	char		why[64];
} Operation;

typedef struct Client
{
	Session		session;
	pthread_t	thread;
	int			number;
	uint64_t	random;
	uint64_t	next_id;
} Client;

/* Settings of the writer. */
typedef struct Settings
{
	const char *conninfo;
	const char *file;
	const char *mode;			/* of a reader */
	const char *name;			/* of a consumer */
	int			clients;
	int			streams;
	bool		batch;
	bool		positions;		/* ask for the positions of every append */
	double		seconds;		/* 0: until stopped */
	double		max_pause;		/* ms */
	double		think;			/* ms between operations */
	int			padding;		/* bytes more in the data of an event */
} Settings;
extern Settings settings;

extern int	write_main(void);
extern uint64_t client_random(Client *client, uint64_t below);

/* The version that a client believes a stream to be at, as others have told. */
extern int64_t believed(int stream);
extern void believe(int stream, int64_t version);

/* ---- operation.c ---- */

/* Makes up an operation; tries it once. */
extern void operation_make(Client *client, Operation *op);
extern void operation_try(Client *client, Operation *op);

/* Sets the outcome of what ended with an error or without an end. */
extern void operation_failed(Operation *op, const Answer *answer, bool committing);

/* "Expected …, found …": the version found, -1 where it says none. */
extern int64_t found_version(const char *detail);

/* Id and data of an event. */
extern void event_id(char id[37], uint64_t op, int event);
extern int	event_data(char *data, size_t size, const Client *client, uint64_t op, int event);

/* ---- batch.c ---- */

/* Makes up the operations of a batch, gives how many; tries those not yet recorded. */
extern int	batch_make(Client *client, Operation *ops);
extern void batch_try(Client *client, Operation *ops, int n, int64_t *since);

/* ---- read.c, consume.c, dump.c, check.c ---- */

/* Records rows of position, id, version, stream; those without position are none. */
extern void record_page(FILE *file, const PGresult *result);

/* Follows the log as the consumer settings.name, until it is stopped. */
extern void consume(FILE *file);

extern int	read_main(void);
extern int	dump_main(void);
/* What a check is told besides. */
typedef struct Terms
{
	bool		complete;		/* readers have come to the end */
	bool		by_time;		/* lossy_after says what may be lost, not the log's jumps */
	int64_t		lossy_after;	/* what was acknowledged later may be missing, each operation as a whole */
	int64_t		absent_after;	/* what was invoked later must be missing */
} Terms;
extern int	check_main(int nfiles, char **files, const Terms *terms);

#endif							/* LEDGER_H */
