/*
 * handler.c
 *    The bundles that handle: "sim-command", an aggregate and a service, and
 *    "sim-query", a projection that answers with what it was asked.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

#define MAX_HANDLERS 256

static const char *const command_names[] = {"OrderPlace", "OrderChange", "OrderNotify", NULL};
static const char *const query_names[] = {"OrderGet", NULL};

static sim_bundle_t *bundles[MAX_HANDLERS * 2];
static unsigned n_bundles;

static void
on_nothing(sim_bundle_t *b)
{
	(void) b;
}

static void
on_no_response(sim_bundle_t *b, const evp_message_t *m)
{
	(void) m;
	sim_wrong(b->sim, "a handler got a response");
}

/* The aggregate: revision and total follow from the story alone. */
static void
handle_order(sim_bundle_t *b, const sim_task_t *task, evp_buf_t *out)
{
	evp_slice_t base = evp_slice_is_null(task->last_event) ? task->snapshot : task->last_event;
	evp_slice_t order = sim_json_text(task->command, "orderId");
	int64_t		revision = evp_slice_is_null(base) ? 0 : sim_json_number(base, "revision");
	int64_t		total = evp_slice_is_null(base) ? 0 : sim_json_number(base, "total");
	int64_t		amount = sim_json_number(task->command, "amount");
	bool		place = evp_slice_is(task->name, "OrderPlace");
	char		json[256];
	char		state[128];

	if (!task->story_dense)
		sim_wrong(b->sim, "the story of %.*s is not dense", (int) order.n, order.p);
	if (place && revision > 0)
	{
		sim_put_exception_answer(out, task, "java.lang.IllegalStateException", "the order was placed already");
		return;
	}
	if (!place && revision == 0)
	{
		sim_put_exception_answer(out, task, "java.lang.IllegalStateException", "there is no such order");
		return;
	}
	revision++;
	total += amount;
	snprintf(json, sizeof(json), "\"orderId\":\"%.*s\",\"amount\":%lld,\"revision\":%lld,\"total\":%lld",
			 (int) (order.n > 128 ? 128 : order.n), order.p, (long long) amount, (long long) revision, (long long) total);
	snprintf(state, sizeof(state), "\"revision\":%lld,\"total\":%lld", (long long) revision, (long long) total);
	sim_put_event_answer(out, task, place ? "OrderPlaced" : "OrderChanged", json,
						 b->sim->snapshot_every && revision % b->sim->snapshot_every == 0 ? state : NULL);
}

static void
on_request(sim_bundle_t *b, const evp_message_t *m)
{
	evp_message_t answer = {.type = EVP_RSP,.has_correlation = true,.timestamp_ms = sim_now_ms()};
	sim_task_t	task;
	evp_buf_t	out;
	int64_t		began = sim_now_ms();

	b->sim->handled++;
	evp_buf_init(&out, EVP_WIRE_MAX_MESSAGE);
	if (!sim_read_task(&task, m->payload))
		sim_wrong(b->sim, "a handler cannot read its request");
	else if (evp_slice_is(task.name, "OrderGet"))
		sim_put_view_answer(&out, &task, sim_json_text(task.command, "orderId"), sim_json_number(task.command, "amount"));
	else if (evp_slice_is(task.name, "OrderNotify"))
	{
		char		json[256];
		evp_slice_t order = sim_json_text(task.command, "orderId");

		snprintf(json, sizeof(json), "\"orderId\":\"%.*s\",\"amount\":%lld", (int) (order.n > 128 ? 128 : order.n), order.p,
				 (long long) sim_json_number(task.command, "amount"));
		sim_put_service_answer(&out, &task, "OrderNotified", json);
	}
	else
		handle_order(b, &task, &out);
	memcpy(answer.correlation, m->correlation, sizeof(answer.correlation));
	answer.payload_type = m->payload_type;
	answer.payload = evp_slice_of(out.data, out.len);
	if (out.len > 0)
		sim_bundle_send(b, &answer);
	if (b->sim->telemetry)
		sim_tell_call(b, "Sim", task.name, sim_now_ms() - began);
	evp_buf_free(&out);
	evp_arena_free(&task.arena);
}

static const sim_bundle_ops_t handler_ops = {on_nothing, on_request, on_no_response, on_nothing};

bool
sim_handlers_start(sim_t *sim)
{
	unsigned	n = sim->handlers > MAX_HANDLERS ? MAX_HANDLERS : sim->handlers;

	for (unsigned i = 0; i < n; i++)
	{
		bundles[n_bundles] = sim_bundle_new(sim, "sim-command", "Aggregate", command_names, sim->handler_proxies,
											sim->n_handler_proxies, i, &handler_ops, NULL);
		if (bundles[n_bundles++] == NULL)
			return false;
		/* The query side starts at another proxy where there is one. */
		bundles[n_bundles] = sim_bundle_new(sim, "sim-query", "Projection", query_names, sim->handler_proxies,
											sim->n_handler_proxies, i + 1, &handler_ops, NULL);
		if (bundles[n_bundles++] == NULL)
			return false;
	}
	return true;
}

void
sim_handlers_stop(void)
{
	for (unsigned i = 0; i < n_bundles; i++)
		sim_bundle_close(bundles[i]);
	n_bundles = 0;
}
