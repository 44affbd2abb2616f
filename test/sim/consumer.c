/*
 * consumer.c
 *    Consumers: each follows the log from its end at the start of the run,
 *    checks that sequence numbers only rise and revisions have no gap, and the
 *    first one keeps the projection and times how late events come.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

#define MAX_CONSUMERS 1000
#define FETCH_LIMIT 1000

typedef struct consumer
{
	sim_bundle_t *bundle;
	sim_t	   *sim;
	bool		first;
	int64_t		after;			/* last sequence number seen; -1: the log's last is asked for */
	int64_t    *revision;		/* last seen, by order */
	uint8_t		asked[16];
} consumer_t;

static const char *const no_names[] = {NULL};
static consumer_t *consumers;
static unsigned n_consumers;

static void
ask(consumer_t *c)
{
	evp_message_t m = {.type = EVP_REQ,.has_correlation = true,.timestamp_ms = sim_now_ms(),.timeout_ms = 30000};
	evp_buf_t	out;

	evp_buf_init(&out, 4096);
	if (c->after < 0)
		sim_put_last(&out, c->bundle);
	else
		sim_put_fetch(&out, c->bundle, c->after, FETCH_LIMIT);
	evp_uuid_v4(c->asked);
	memcpy(m.correlation, c->asked, sizeof(m.correlation));
	m.source_bundle_id = evp_slice_str(c->bundle->bundle);
	m.source_instance_id = evp_slice_str(c->bundle->instance);
	m.source_bundle_version = evp_slice_str("1");
	m.payload_type = evp_slice_str(c->after < 0 ? "EventLastSequenceNumberRequest" : "EventFetchRequest");
	m.payload = evp_slice_of(out.data, out.len);
	sim_bundle_send(c->bundle, &m);
	evp_buf_free(&out);
}

static void
on_event(void *arg, const sim_event_t *e)
{
	consumer_t *c = arg;
	sim_t	   *sim = c->sim;
	int64_t		n;
	int64_t		revision;
	sim_order_t *o;

	if (e->sequence <= c->after)
		sim_wrong(sim, "a consumer saw %lld after %lld", (long long) e->sequence, (long long) c->after);
	c->after = e->sequence;
	if (evp_slice_is(e->name, "OrderNotified"))
	{
		if (c->first && sim_order_number(sim, sim_json_text(e->object, "orderId")) >= 0)
			sim->events_seen++;
		return;
	}
	n = sim_order_number(sim, e->aggregate);
	if (n < 0)
		return;
	revision = sim_json_number(e->object, "revision");
	if (revision != c->revision[n] + 1)
		sim_wrong(sim, "a consumer saw revision %lld of order %lld after %lld", (long long) revision, (long long) n,
				  (long long) c->revision[n]);
	c->revision[n] = revision;
	if (!c->first)
		return;
	o = &sim->order[n];
	o->seen_revision = revision;
	o->seen_total += sim_json_number(e->object, "amount");
	sim->events_seen++;
	if (o->sent[revision % SIM_REVISIONS] != 0)
	{
		uint64_t	now = uv_hrtime();
		uint64_t	acked = o->acked[revision % SIM_REVISIONS];

		sim_histogram_add(&sim->command_to_event, (now - o->sent[revision % SIM_REVISIONS]) / 1000);
		/* An event may well be seen before its command's answer is. */
		if (o->revision >= revision && acked != 0)
			sim_histogram_add(&sim->answer_to_event, (now - acked) / 1000);
		else
			sim_histogram_add(&sim->answer_to_event, 0);
	}
}

static void
on_welcome(sim_bundle_t *b)
{
	if (b->sim->telemetry)
		sim_tell_consumer(b, "SimProjector", "*");
	ask(b->arg);
}

static void
on_request(sim_bundle_t *b, const evp_message_t *m)
{
	const consumer_t *c = b->arg;

	if (!sim_answer_ask(b, m, c->after < 0 ? 0 : c->after))
		sim_wrong(b->sim, "a consumer got a request");
}

static void
on_response(sim_bundle_t *b, const evp_message_t *m)
{
	consumer_t *c = b->arg;

	if (memcmp(m->correlation, c->asked, sizeof(c->asked)) != 0)
		return;					/* of a fetch before the connection was lost */
	if (m->has_failure)
		sim_failed(b->sim, "a fetch failed: %.*s", (int) m->failure_message.n, m->failure_message.p);
	else if (c->after < 0)
	{
		if (sim_read_last(m->payload, &c->after))
			b->sim->ready++;
		else
			sim_wrong(b->sim, "a consumer cannot read the last sequence number");
	}
	else if (sim_read_events(m->payload, on_event, c) < 0)
		sim_wrong(b->sim, "a consumer cannot read its events");
	ask(c);
}

static void
on_down(sim_bundle_t *b)
{
	(void) b;
}

static const sim_bundle_ops_t consumer_ops = {on_welcome, on_request, on_response, on_down};

bool
sim_consumers_start(sim_t *sim)
{
	n_consumers = sim->consumers > MAX_CONSUMERS ? MAX_CONSUMERS : sim->consumers;
	consumers = calloc(n_consumers + 1, sizeof(*consumers));
	for (unsigned i = 0; consumers != NULL && i < n_consumers; i++)
	{
		consumer_t *c = &consumers[i];

		c->sim = sim;
		c->first = i == 0;
		c->after = -1;
		c->revision = calloc(sim->orders, sizeof(*c->revision));
		/* The last proxy first: the callers begin with the first. */
		c->bundle = sim_bundle_new(sim, "sim-consumer", "Projector", no_names, sim->proxies, sim->n_proxies,
								   sim->n_proxies - 1 + i, &consumer_ops, c);
		if (c->revision == NULL || c->bundle == NULL)
			return false;
		/* Once more when it knows where it begins: what is sent before that it would not look for. */
		sim->expected_ready++;
	}
	return consumers != NULL;
}

void
sim_consumers_stop(void)
{
	for (unsigned i = 0; i < n_consumers; i++)
	{
		sim_bundle_close(consumers[i].bundle);
		free(consumers[i].revision);
		consumers[i].revision = NULL;
	}
	n_consumers = 0;
}
