/*
 * guard.c
 *    When to ask for the rules and tokens, and what follows from the answer.
 */
#include "guard.h"

#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "http.h"
#include "log.h"
#include "pg_array.h"
#include "rows.h"
#include "server.h"

#define MODULE		"guard"
#define RETRY_MS	1000
#define ASK_MS		5000		/* for the statement to be sent */
#define SLEEP_MAX_MS	((uint64_t) 3600000)

struct evp_guard
{
	evp_proxy_t *proxy;
	evp_access_book_t *book;	/* NULL: not known yet */
	uv_timer_t	timer;			/* asks again after a failure; or a token expires */
	bool		asking;
	bool		ask_again;		/* something has changed since it was asked */
	bool		failed;			/* the last answer was none */
	bool		older;			/* the book is empty for want of the function that gives it */
	bool		stopped;
};

/* Columns of evento._access(). */
enum
{
	C_RULE,
	C_ADDRESS,
	C_BUNDLE,
	C_METHOD,
	C_HASH,
	C_EXPIRES_IN,
	C_MAY_REGISTER,
	C_MAY_SEND,
	C_HTTP,
	C_COLUMNS
};

static const char access_sql[] =
	"SELECT rule_number, address, bundle, method, hash, expires_in, may_register, may_send, http FROM evento._access()";

static void ask(evp_guard_t *guard);

/* Who is connected is looked at again. */
static void
look_again(const evp_guard_t *guard)
{
	evp_server_access_changed(guard->proxy->server);
	evp_http_access_changed(guard->proxy->http);
}

/* ---- time ---- */

static void on_timer(uv_timer_t *timer);

static void
set_timer(evp_guard_t *guard)
{
	uint64_t	now = evp_now(guard->proxy);
	uint64_t	next = guard->book == NULL ? UINT64_MAX : evp_access_next_expiry(guard->book, now);
	uint64_t	sleep = next == UINT64_MAX ? SLEEP_MAX_MS : next - now;

	if (guard->failed && sleep > RETRY_MS)
		sleep = RETRY_MS;
	uv_timer_start(&guard->timer, on_timer, sleep < SLEEP_MAX_MS ? sleep : SLEEP_MAX_MS, 0);
}

static void
on_timer(uv_timer_t *timer)
{
	evp_guard_t *guard = timer->data;

	/* Whose token has expired is found by looking at all again. */
	if (guard->book != NULL)
		look_again(guard);
	if (guard->failed)
		ask(guard);
	set_timer(guard);
}

/* ---- loading ---- */

/* Reads the names of a token; false where they make no sense. */
static bool
read_names(evp_access_names_t *names, const PGresult *rows, int row, int column)
{
	evp_pg_array_t array;
	evp_slice_t name;

	if (PQgetisnull(rows, row, column))
		return true;
	if (!evp_pg_array_read(&array, PQgetvalue(rows, row, column), (size_t) PQgetlength(rows, row, column)) ||
		array.n > EVP_ACCESS_MAX_NAMES)
		return false;
	names->p = calloc(array.n + 1, sizeof *names->p);
	if (names->p == NULL)
		return false;
	while (array.n > 0)
	{
		if (!evp_pg_array_next(&array, &name))
			return false;
		names->p[names->n] = strndup((const char *) name.p, name.n);
		if (names->p[names->n] == NULL)
			return false;
		names->n++;
	}
	return true;
}

static void
free_names(evp_access_names_t *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->p[i]);
	free(names->p);
}

static bool
read_token(evp_access_book_t *book, const PGresult *rows, int row, uint64_t now)
{
	evp_access_token_t token = {.bundle = PQgetvalue(rows, row, C_BUNDLE),.expires = UINT64_MAX};
	int64_t		expires_in;
	bool		ok;

	if (PQgetlength(rows, row, C_HASH) != EVP_ACCESS_HASH || !evp_access_http_parse(PQgetvalue(rows, row, C_HTTP), &token.http))
		return false;
	memcpy(token.hash, PQgetvalue(rows, row, C_HASH), EVP_ACCESS_HASH);
	if (evp_row_int64(rows, row, C_EXPIRES_IN, &expires_in))
		token.expires = now + (expires_in > 0 ? (uint64_t) expires_in : 0);
	ok = read_names(&token.may_register, rows, row, C_MAY_REGISTER) && read_names(&token.may_send, rows, row, C_MAY_SEND) &&
		evp_access_add_token(book, &token);
	free_names(&token.may_register);
	free_names(&token.may_send);
	return ok;
}

/* A book of the rows, NULL where they make no sense or memory runs out. */
static evp_access_book_t *
read_book(const PGresult *rows, uint64_t now)
{
	static const Oid types[C_COLUMNS] = {EVP_OID_INT4, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_BYTEA, EVP_OID_INT8,
	EVP_OID_TEXT_ARRAY, EVP_OID_TEXT_ARRAY, EVP_OID_TEXT};
	evp_access_book_t *book = evp_rows_are(rows, types, C_COLUMNS) ? evp_access_book_new() : NULL;

	if (book == NULL)
		return NULL;
	for (int row = 0; row < PQntuples(rows); row++)
	{
		const char *address = PQgetisnull(rows, row, C_ADDRESS) ? NULL : PQgetvalue(rows, row, C_ADDRESS);
		bool		ok;

		if (PQgetisnull(rows, row, C_RULE))
			ok = read_token(book, rows, row, now);
		else
			ok = evp_access_add_rule(book, address, PQgetvalue(rows, row, C_BUNDLE), PQgetvalue(rows, row, C_METHOD));
		if (!ok)
		{
			evp_access_book_free(book);
			return NULL;
		}
	}
	evp_access_seal(book);
	return book;
}

static void
take(evp_guard_t *guard, evp_access_book_t *book)
{
	evp_access_book_t *old = guard->book;

	guard->book = book;
	guard->failed = false;
	evp_log(old == NULL ? EVP_LOG_INFO : EVP_LOG_DEBUG, MODULE, NULL, "access: %zu rules, %zu tokens", evp_access_rule_count(book),
			evp_access_token_count(book));
	look_again(guard);
	evp_access_book_free(old);
}

static void
on_answer(void *arg, const evp_db_result_t *result)
{
	evp_guard_t *guard = arg;
	evp_access_book_t *book = NULL;
	bool		complain = !guard->failed;

	guard->asking = false;
	if (guard->stopped)
		return;
	guard->failed = true;
	if (result->status == EVP_DB_OK)
	{
		book = read_book(result->rows, evp_now(guard->proxy));
		guard->older = guard->older && book == NULL;
		if (book == NULL)
			evp_log(EVP_LOG_ERROR, MODULE, NULL, "the database's access rules make no sense, or do not fit in memory");
	}
	else if (result->status == EVP_DB_ERROR && strcmp(result->sqlstate, "42883") == 0 && (guard->book == NULL || guard->older))
	{
		/* A database whose extension was not updated yet has no rules; the first one that it is given later is notified. */
		book = evp_access_book_new();
		guard->older = true;
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "the extension in the database is older than access rules: everybody is let in");
	}
	else if (result->status == EVP_DB_ERROR && complain)
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "the access rules cannot be read: %s", result->message);
	if (book != NULL)
		take(guard, book);
	set_timer(guard);
	if (guard->ask_again)
		ask(guard);
}

/* Asks for the rules; where an answer is on its way, for another one behind it. */
static void
ask(evp_guard_t *guard)
{
	evp_db_statement_t statement = {.sql = access_sql,.result_format = 1,.deadline = evp_now(guard->proxy) + ASK_MS};

	guard->ask_again = guard->asking;
	if (guard->asking || guard->stopped || !evp_db_is_up(guard->proxy->db))
		return;
	guard->asking = true;
	evp_db_run(guard->proxy->db, EVP_DB_CONTROL, &statement, on_answer, guard);
}

static void
on_notify(void *arg, const char *payload)
{
	(void) payload;
	ask(arg);
}

static void
on_db_state(void *arg, bool up)
{
	if (up)
		ask(arg);
}

/* ---- asking ---- */

bool
evp_guard_ready(const evp_guard_t *guard)
{
	return guard->book != NULL;
}

const char *
evp_guard_check(const evp_guard_t *guard, const evp_access_peer_t *peer, const evp_access_token_t **token)
{
	return evp_access_check(guard->book, peer, evp_now(guard->proxy), token);
}

evp_access_http_t
evp_guard_http(const evp_guard_t *guard, evp_slice_t token)
{
	uint8_t		hash[EVP_ACCESS_HASH];
	const evp_access_token_t *found = NULL;

	if (guard->book != NULL && evp_access_hash(token, hash))
		found = evp_access_find(guard->book, hash, evp_now(guard->proxy));
	return found == NULL ? EVP_ACCESS_HTTP_NONE : found->http;
}

/* ---- life ---- */

evp_guard_t *
evp_guard_new(evp_proxy_t *proxy)
{
	evp_guard_t *guard = calloc(1, sizeof *guard);

	if (guard == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	guard->proxy = proxy;
	uv_timer_init(proxy->loop, &guard->timer);
	guard->timer.data = guard;
	evp_db_subscribe(proxy->db, on_db_state, guard);
	evp_db_listen(proxy->db, "evento_access", on_notify, guard);
	return guard;
}

void
evp_guard_stop(evp_guard_t *guard)
{
	if (guard->stopped)
		return;
	guard->stopped = true;
	uv_close((uv_handle_t *) &guard->timer, NULL);
}

void
evp_guard_free(evp_guard_t *guard)
{
	evp_access_book_free(guard->book);
	free(guard);
}
