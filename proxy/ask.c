/*
 * ask.c
 *    See ask.h.
 */
#include "ask.h"

#include "cbor.h"
#include "graph.h"
#include "json.h"
#include "typed.h"

#define CONSUMER EVP_INTERNAL "consumer."

static const struct
{
	const char *name;
	const char *class;
}			kinds[] = {
	[EVP_ASK_STATUS] = {"status", CONSUMER "ConsumerFetchStatusRequestMessage"},
	[EVP_ASK_PROCESS] = {"process", CONSUMER "ConsumerProcessDeadQueueRequestMessage"},
	[EVP_ASK_DELETE] = {"delete", CONSUMER "ConsumerDeleteDeadEventRequestMessage"},
	[EVP_ASK_RETRY] = {"retry", CONSUMER "ConsumerSetEventRetryRequestMessage"},
};

bool
evp_ask_kind(evp_slice_t name, evp_ask_kind_t *kind)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (evp_slice_is(name, kinds[i].name))
		{
			*kind = (evp_ask_kind_t) i;
			return true;
		}
	return false;
}

bool
evp_ask_put(evp_buf_t *b, const evp_ask_t *ask)
{
	evp_typed_open(b, EVP_CLASS_REQUEST);
	evp_typed_text(b, "sourceBundleId", evp_slice_str("evento-server"));
	evp_typed_text(b, "sourceInstanceId", ask->server_instance);
	evp_typed_text(b, "correlationId", ask->correlation);
	evp_typed_int(b, "sourceBundleVersion", 0);
	evp_cbor_put_str(b, "body");
	evp_typed_open(b, kinds[ask->kind].class);
	evp_typed_text(b, "consumerId", ask->consumer);
	evp_typed_text(b, "componentType", ask->component_type);
	if (ask->kind == EVP_ASK_DELETE || ask->kind == EVP_ASK_RETRY)
		evp_typed_int(b, "eventSequenceNumber", ask->position);
	if (ask->kind == EVP_ASK_RETRY)
	{
		evp_cbor_put_str(b, "retry");
		evp_cbor_put_bool(b, ask->retry);
	}
	evp_typed_close(b);
	evp_typed_int(b, "timestamp", ask->now_ms);
	evp_typed_int(b, "timeout", ask->timeout_ms);
	evp_typed_text(b, "unit", evp_slice_str("MILLISECONDS"));
	evp_typed_close(b);
	return !b->failed;
}

int
evp_ask_answer(evp_buf_t *json, bool *failed, evp_slice_t payload, const char **reason)
{
	evp_graph_response_t response;
	evp_cbor_t	r;
	evp_arena_t arena = {0};
	int			rc = 0;

	*failed = false;
	if (evp_graph_response_parse(&response, payload, reason) < 0)
		return -1;
	*failed = response.kind == EVP_RESPONSE_EXCEPTION;
	evp_cbor_init(&r, response.body, &arena);
	evp_json_put_graph(json, &r);
	if (!evp_cbor_done(&r) || json->failed)
	{
		*reason = json->failed ? "the answer is too long" : r.error;
		rc = -1;
	}
	evp_arena_free(&arena);
	evp_graph_response_free(&response);
	return rc;
}
