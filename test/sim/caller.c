/*
 * caller.c
 *    Closed loops: each sends a command or query, waits for the answer, checks
 *    it, and sends the next.  Loops share connections.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

#define MAX_CONNECTIONS 4096
#define SWEEP_MS 50
#define LEARNING_MS 3000		/* in which "no handler" is no failure yet */

typedef struct caller
{
	sim_t	   *sim;
	sim_bundle_t *bundle;
	unsigned	number;
	int64_t		order;			/* that its commands are for */
	bool		waiting;
	uint8_t		correlation[16];
	uint64_t	sent;			/* uv_hrtime */
	uint64_t	turn;
	int64_t		amount;
	bool		later;			/* its turn was put off */
	bool		placing;		/* the command is OrderPlace */
} caller_t;

static const char *const no_names[] = {NULL};
static sim_bundle_t **connections;
static unsigned n_connections;
static caller_t *callers;
static unsigned n_callers;
static uv_timer_t sweep;
static uv_timer_t pace;			/* with a rate */
static unsigned paced;			/* the caller whose turn is next then */
static bool sweeping;
static uint64_t went;			/* uv_hrtime when the load began */

static void next_turn(caller_t *c);

/* The caller's number travels in the last bytes of the correlation id. */
static caller_t *
caller_of(const uint8_t correlation[16])
{
	uint32_t	n = (uint32_t) correlation[12] << 24 | (uint32_t) correlation[13] << 16 |
		(uint32_t) correlation[14] << 8 | correlation[15];

	if (n >= n_callers || !callers[n].waiting || memcmp(callers[n].correlation, correlation, 16) != 0)
		return NULL;
	return &callers[n];
}

/* The caller's turn comes again with the next sweep. */
static void
again(caller_t *c)
{
	c->later = true;
}

/* Whether the command's event is stored is not known. */
static void
record_failure(const caller_t *c)
{
	if (c->sim->record != NULL)
		fprintf(c->sim->record, "failed %lld %lld %lld\n", (long long) sim_now_ms(), (long long) c->order, (long long) c->amount);
}

static void
give_up(caller_t *c, const char *why)
{
	c->waiting = false;
	c->sim->order[c->order].unsure = true;
	record_failure(c);
	sim_failed(c->sim, "a request %s", why);
	next_turn(c);
}

static void
check_order_answer(caller_t *c, const sim_answer_t *a)
{
	sim_t	   *sim = c->sim;
	sim_order_t *o = &sim->order[c->order];
	int64_t		revision = sim_json_number(a->event, "revision");
	bool		alone = sim->orders % sim->callers == 0;	/* no other loop has this order */
	uint64_t	now = uv_hrtime();

	if (!evp_slice_is_null(a->throwable))
	{
		record_failure(c);
		/* A command that timed out, or another loop, may have placed the order. */
		if (c->placing && (o->unsure || !alone))
			o->revision = o->revision ? o->revision : 1;
		else
			sim_failed(sim, "a command was refused: %.*s %.*s", (int) a->throwable.n, a->throwable.p, (int) a->text.n, a->text.p);
		return;
	}
	if (sim_json_number(a->event, "amount") != c->amount ||
		sim_order_number(sim, sim_json_text(a->event, "orderId")) != c->order)
		sim_wrong(sim, "an answer is not that of its command");
	if (sim->record != NULL)
		fprintf(sim->record, "answered %lld %lld %lld %lld\n", (long long) sim_now_ms(), (long long) c->order, (long long) revision,
				(long long) c->amount);
	if (alone && (o->unsure ? revision <= o->revision : revision != o->revision + 1))
		sim_wrong(sim, "order %lld went from revision %lld to %lld", (long long) c->order, (long long) o->revision,
				  (long long) revision);
	if (revision > o->revision)
		o->revision = revision;
	if (revision > 0)
	{
		o->acked[revision % SIM_REVISIONS] = now;
		o->sent[revision % SIM_REVISIONS] = c->sent;	/* known for sure now */
	}
	o->total += c->amount;
	if (alone)
		o->unsure = false;
}

static void
on_response(sim_bundle_t *b, const evp_message_t *m)
{
	sim_t	   *sim = b->sim;
	caller_t   *c = caller_of(m->correlation);
	sim_answer_t a;
	uint64_t	us;

	if (c == NULL)
		return;					/* given up before */
	us = (uv_hrtime() - c->sent) / 1000;
	if (m->has_failure && uv_hrtime() - went < (uint64_t) LEARNING_MS * 1000000 &&
		memmem(m->failure_message.p, m->failure_message.n, "no handler", 10) != NULL)
	{
		/* The proxies are still learning of the handlers, which came together with us. */
		c->waiting = false;
		sim->begun--;
		c->turn--;
		again(c);
		return;
	}
	if (m->has_failure)
	{
		record_failure(c);
		sim_failed(sim, "a request failed: %.*s", (int) m->failure_message.n, m->failure_message.p);
		sim->order[c->order].unsure = true;
		c->waiting = false;
		next_turn(c);
		return;
	}
	if (!sim_read_answer(&a, m->payload))
		sim_wrong(sim, "a caller cannot read its answer");
	else if (sim->kind == SIM_QUERY)
	{
		if (sim_order_number(sim, a.view_order) != c->order || a.view_amount != c->amount)
			sim_wrong(sim, "a view is not that of its query");
	}
	else if (sim->kind == SIM_SERVICE)
	{
		if (sim_json_number(a.event, "amount") != c->amount)
			sim_wrong(sim, "a service event is not that of its command");
	}
	else
		check_order_answer(c, &a);
	evp_arena_free(&a.arena);
	sim->answered++;
	for (unsigned i = 0; i < sim->n_proxies; i++)
		if (b->address == i)
			sim->answered_at[i]++;
	sim_histogram_add(&sim->latency, us);
	c->waiting = false;
	next_turn(c);
}

/* May one more request be sent, with the rate that is asked for? */
static bool
in_time(const sim_t *sim)
{
	return sim->rate == 0 || sim->begun < 1 + (uint64_t) ((double) (uv_hrtime() - went) / 1e9 * (double) sim->rate);
}

static void
next_turn(caller_t *c)
{
	sim_t	   *sim = c->sim;
	evp_message_t m = {.type = EVP_REQ,.has_correlation = true,.timestamp_ms = sim_now_ms()};
	sim_command_t command = {.pad = sim->payload,.service = sim->kind == SIM_SERVICE,.query = sim->kind == SIM_QUERY};
	evp_buf_t	out;

	if (sim->stopping || c->waiting || !c->bundle->up || (sim->count && sim->begun >= sim->count) || !in_time(sim))
		return;
	sim->begun++;
	c->order = (int64_t) ((c->number + c->turn * sim->callers) % sim->orders);
	c->turn++;
	c->amount = (int64_t) (1 + (c->turn * 7 + c->number) % 100);
	command.amount = c->amount;
	c->placing = sim->kind == SIM_AGGREGATE && sim->order[c->order].revision == 0;
	command.name = sim->kind == SIM_QUERY ? "OrderGet" : sim->kind == SIM_SERVICE ? "OrderNotify" :
		c->placing ? "OrderPlace" : "OrderChange";
	snprintf(command.order, sizeof(command.order), "%s-%lld", sim->run, (long long) c->order);
	/* Mixed: of the order, none, and one that all orders share. */
	if (sim->kind == SIM_AGGREGATE && !(sim->mixed_locks && c->turn % 3 == 1))
		command.lock = sim->mixed_locks && c->turn % 24 == 2 ? "shared" : command.order;
	evp_uuid_v4(c->correlation);
	c->correlation[12] = (uint8_t) (c->number >> 24);
	c->correlation[13] = (uint8_t) (c->number >> 16);
	c->correlation[14] = (uint8_t) (c->number >> 8);
	c->correlation[15] = (uint8_t) c->number;
	evp_buf_init(&out, EVP_WIRE_MAX_MESSAGE);
	sim_put_request(&out, c->bundle, &command, sim->timeout_ms);
	memcpy(m.correlation, c->correlation, sizeof(m.correlation));
	m.source_bundle_id = evp_slice_str(c->bundle->bundle);
	m.source_instance_id = evp_slice_str(c->bundle->instance);
	m.source_bundle_version = evp_slice_str("1");
	m.payload_type = evp_slice_str(command.name);
	m.timeout_ms = sim->timeout_ms;
	m.payload = evp_slice_of(out.data, out.len);
	c->sent = uv_hrtime();
	c->waiting = true;
	/* The event may be seen before the answer. */
	sim->order[c->order].sent[(sim->order[c->order].revision + 1) % SIM_REVISIONS] = c->sent;
	sim_bundle_send(c->bundle, &m);
	evp_buf_free(&out);
}

static bool going;

static void
on_welcome(sim_bundle_t *b)
{
	/* What was in flight when the connection was lost is answered on this one. */
	for (unsigned i = 0; going && i < n_callers; i++)
		if (callers[i].bundle == b)
			next_turn(&callers[i]);
}

static void
on_request(sim_bundle_t *b, const evp_message_t *m)
{
	(void) m;
	sim_wrong(b->sim, "a caller got a request");
}

static void
on_down(sim_bundle_t *b)
{
	(void) b;
}

/* Requests whose answer is overdue are given up; those put off are sent. */
static void
on_sweep(uv_timer_t *t)
{
	uint64_t	now = uv_hrtime();

	(void) t;
	for (unsigned i = 0; i < n_callers; i++)
		if (callers[i].later)
		{
			callers[i].later = false;
			next_turn(&callers[i]);
		}
		else if (callers[i].waiting && now - callers[i].sent > (uint64_t) callers[i].sim->timeout_ms * 1000000)
			give_up(&callers[i], "was not answered in time");
}

/* With a rate the callers send in turns, as they are due. */
static void
on_pace(uv_timer_t *t)
{
	const sim_t *sim = t->data;

	for (unsigned i = 0; i < n_callers && in_time(sim); i++)
		next_turn(&callers[paced++ % n_callers]);
}

static const sim_bundle_ops_t caller_ops = {on_welcome, on_request, on_response, on_down};

bool
sim_callers_start(sim_t *sim)
{
	n_connections = sim->connections > MAX_CONNECTIONS ? MAX_CONNECTIONS : sim->connections;
	n_callers = sim->callers;
	connections = calloc(n_connections + 1, sizeof(*connections));
	callers = calloc(n_callers + 1, sizeof(*callers));
	if (connections == NULL || callers == NULL)
		return false;
	for (unsigned i = 0; i < n_connections; i++)
		if ((connections[i] = sim_bundle_new(sim, "sim-caller", "Invoker", no_names, sim->proxies, sim->n_proxies, i,
											 &caller_ops, NULL)) == NULL)
			return false;
	for (unsigned i = 0; i < n_callers; i++)
		callers[i] = (caller_t) {.sim = sim,.bundle = connections[i % n_connections],.number = i};
	uv_timer_init(sim->loop, &sweep);
	uv_timer_start(&sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	uv_timer_init(sim->loop, &pace);
	pace.data = sim;
	sweeping = true;
	return true;
}

void
sim_callers_go(void)
{
	going = true;
	went = uv_hrtime();
	for (unsigned i = 0; i < n_callers; i++)
		next_turn(&callers[i]);
	if (n_callers > 0 && callers[0].sim->rate > 0)
		uv_timer_start(&pace, on_pace, 1, 1);
}

bool
sim_callers_done(void)
{
	for (unsigned i = 0; i < n_callers; i++)
		if (callers[i].waiting)
			return false;
	return true;
}

void
sim_callers_stop(void)
{
	if (sweeping)
	{
		uv_close((uv_handle_t *) &sweep, NULL);
		uv_close((uv_handle_t *) &pace, NULL);
	}
	sweeping = false;
	for (unsigned i = 0; i < n_connections; i++)
		sim_bundle_close(connections[i]);
	free(connections);
	free(callers);
	connections = NULL;
	callers = NULL;
	n_connections = n_callers = 0;
}
