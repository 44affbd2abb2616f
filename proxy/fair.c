/*
 * fair.c
 *    See fair.h.
 */
#include "fair.h"

#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>
#include <utlist.h>

/* So few flows are looked through; more are found by a table. */
#define FEW 8

struct evp_fair_flow
{
	evp_fair_flow_t *prev;
	evp_fair_flow_t *next;
	evp_fair_item_t *items;
	uint64_t	source;
	UT_hash_handle hh;
};

static evp_fair_flow_t *
find(const evp_fair_t *fair, uint64_t source)
{
	evp_fair_flow_t *flow;

	if (fair->table != NULL)
		HASH_FIND(hh, fair->table, &source, sizeof(source), flow);
	else
		DL_SEARCH_SCALAR(fair->ring, flow, source, source);
	return flow;
}

/* From here on until it is empty, the table has all flows. */
static void
make_table(evp_fair_t *fair)
{
	evp_fair_flow_t *flow;

	DL_FOREACH(fair->ring, flow)
		HASH_ADD(hh, fair->table, source, sizeof(flow->source), flow);
}

/* The flow of a source, made at the end of the ring where there is none. */
static evp_fair_flow_t *
flow_of(evp_fair_t *fair, uint64_t source)
{
	evp_fair_flow_t *flow = find(fair, source);

	if (flow != NULL)
		return flow;
	flow = calloc(1, sizeof(*flow));
	if (flow == NULL)
		abort();				/* as everywhere, where a few bytes of a queue are missing */
	flow->source = source;
	DL_APPEND(fair->ring, flow);
	fair->flows++;
	if (fair->table != NULL)
		HASH_ADD(hh, fair->table, source, sizeof(flow->source), flow);
	else if (fair->flows > FEW)
		make_table(fair);
	return flow;
}

void
evp_fair_put(evp_fair_t *fair, uint64_t source, evp_fair_item_t *item)
{
	item->flow = flow_of(fair, source);
	DL_APPEND(item->flow->items, item);
	fair->count++;
}

void
evp_fair_put_first(evp_fair_t *fair, uint64_t source, evp_fair_item_t *item)
{
	item->flow = flow_of(fair, source);
	DL_PREPEND(item->flow->items, item);
	fair->count++;
	DL_DELETE(fair->ring, item->flow);
	DL_PREPEND(fair->ring, item->flow);
}

evp_fair_item_t *
evp_fair_first(const evp_fair_t *fair)
{
	return fair->ring != NULL ? fair->ring->items : NULL;
}

evp_fair_item_t *
evp_fair_after(const evp_fair_item_t *item)
{
	if (item->next != NULL)
		return item->next;
	return item->flow->next != NULL ? item->flow->next->items : NULL;
}

void
evp_fair_remove(evp_fair_t *fair, evp_fair_item_t *item)
{
	evp_fair_flow_t *flow = item->flow;

	DL_DELETE(flow->items, item);
	item->flow = NULL;
	fair->count--;
	if (flow->items != NULL)
		return;
	DL_DELETE(fair->ring, flow);
	fair->flows--;
	if (fair->table != NULL)
		HASH_DEL(fair->table, flow);
	free(flow);
}

void
evp_fair_pass(evp_fair_t *fair, uint64_t source)
{
	evp_fair_flow_t *flow = fair->ring;

	if (flow == NULL || flow->source != source || flow->next == NULL)
		return;
	DL_DELETE(fair->ring, flow);
	DL_APPEND(fair->ring, flow);
}
