/*
 * notice_test.c
 *    Admin notifications: recorded ones, and what else bundles may send.
 */
#include <stdio.h>

#include "unit.h"

#include "cbor.h"
#include "notice.h"
#include "typed.h"

/* The notice of a recorded frame; the caller frees both. */
static evp_message_t
recorded(const unit_golden_t *golden, size_t n, const char *prefix, evp_notice_t *notice)
{
	evp_message_t m = unit_message(unit_golden_find(golden, n, prefix));
	const char *reason = NULL;

	assert_int_equal(evp_notice_parse(notice, m.payload, &reason), 0);
	return m;
}

/* What the walks have called back, as text. */
static char seen[4000];

static void
on_invocation(void *arg, evp_slice_t name, int64_t count)
{
	(void) arg;
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%.*s=%lld ", (int) name.n, (const char *) name.p, (long long) count);
}

static void
on_consumer(void *arg, const char *type, evp_slice_t component, evp_slice_t consumer)
{
	(void) arg;
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s %.*s %.*s, ", type, (int) component.n, (const char *) component.p,
			 (int) consumer.n, (const char *) consumer.p);
}

static void
on_executor(void *arg, const evp_executor_stats_t *s)
{
	(void) arg;
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%.*s %lld %lld %lld %lld %lld %lld, ", (int) s->name.n, (const char *) s->name.p,
			 (long long) s->capacity, (long long) s->in_flight, (long long) s->admitted, (long long) s->rejected, (long long) s->completed,
			 (long long) s->failed);
}

static void
on_stats(void *arg, const evp_consumer_stats_t *s)
{
	(void) arg;
	snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%.*s %.*s %lld %lld %lld, ", (int) s->consumer.n, (const char *) s->consumer.p,
			 (int) s->component.n, (const char *) s->component.p, (long long) s->in_flight, (long long) s->submit_timeouts,
			 (long long) s->transient_failures);
}

static void
test_recorded(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	evp_notice_t notice;
	evp_message_t m;
	const char *reason = NULL;

	(void) state;
	m = recorded(golden, n, "030-", &notice);
	assert_int_equal(notice.kind, EVP_NOTICE_SERVICE_TIME);
	assert_slice(notice.component, "OrdersInvoker");
	assert_slice(notice.action, "OrdersInvoker::send");
	assert_int_equal(notice.start_ms, 1795245945898);
	assert_int_equal(notice.end_ms, 1795245946143);
	evp_notice_free(&notice);
	evp_message_free(&m);

	m = recorded(golden, n, "028-", &notice);
	assert_int_equal(notice.kind, EVP_NOTICE_INVOCATIONS);
	assert_slice(notice.component, "OrderService");
	assert_slice(notice.action, "AuditMark");
	seen[0] = '\0';
	assert_int_equal(evp_notice_invocations(&notice, on_invocation, NULL, &reason), 0);
	assert_string_equal(seen, "");
	evp_notice_free(&notice);
	evp_message_free(&m);

	m = recorded(golden, n, "006-", &notice);
	assert_int_equal(notice.kind, EVP_NOTICE_CONSUMERS);
	assert_int_equal(evp_notice_consumers(&notice, on_consumer, NULL, &reason), 0);
	assert_string_equal(seen, "");
	evp_notice_free(&notice);
	evp_message_free(&m);
	unit_golden_free(golden, n);
}

static void
put_name(evp_buf_t *b, const char *key, const char *value)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_str(b, value);
}

static void
put_number(evp_buf_t *b, const char *key, int64_t value)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_int(b, value);
}

/* A message around the body that put writes. */
static evp_slice_t
message(evp_buf_t *b, const char *class, void (*put) (evp_buf_t *b))
{
	evp_buf_init(b, SIZE_MAX);
	evp_typed_open(b, EVP_CLASS_MESSAGE);
	put_name(b, "sourceBundleId", "b");
	evp_cbor_put_str(b, "body");
	evp_typed_open(b, class);
	put(b);
	evp_typed_close(b);
	evp_cbor_put_int(b, 7);		/* a key that is no text */
	evp_cbor_put_null(b);
	evp_typed_close(b);
	return evp_slice_of(b->data, b->len);
}

static void
put_invocations(evp_buf_t *b)
{
	/* Before what it belongs to. */
	evp_cbor_put_str(b, "invocations");
	evp_typed_open(b, "java.util.TreeMap");
	put_number(b, "OrderPlace", 2);
	put_number(b, "OrderFind", 1);
	evp_typed_close(b);
	put_name(b, "action", "Shop::buy");
	put_name(b, "component", "Shop");
}

static void
put_set(evp_buf_t *b, const char *component, const char *first, const char *second)
{
	evp_cbor_put_str(b, component);
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, "java.util.HashSet");
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, first);
	if (second != NULL)
		evp_cbor_put_str(b, second);
	evp_cbor_close(b);
	evp_cbor_close(b);
}

static void
put_consumers(evp_buf_t *b)
{
	evp_cbor_put_str(b, "observerConsumers");
	evp_typed_open(b, "java.util.HashMap");
	put_set(b, "O", "b_O_1_*", NULL);
	evp_typed_close(b);
	evp_cbor_put_str(b, "sagaConsumers");
	evp_cbor_put_null(b);
	evp_cbor_put_str(b, "projectorConsumers");
	evp_typed_open(b, "java.util.HashMap");
	put_set(b, "P", "b_P_1_eu", "b_P_1_us");
	evp_cbor_put_str(b, "None");
	evp_cbor_put_null(b);
	evp_typed_close(b);
}

static void
put_statistics(evp_buf_t *b)
{
	evp_cbor_put_str(b, "executors");
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, "java.util.ArrayList");
	evp_cbor_open_array(b);
	evp_typed_open(b, "x$ExecutorStats");
	put_number(b, "failed", 6);
	put_number(b, "completed", 5);
	put_number(b, "rejected", 4);
	put_number(b, "admitted", 3);
	put_number(b, "inFlight", 2);
	put_number(b, "capacity", 1);
	put_number(b, "unknown", 1);
	put_name(b, "name", "e");
	evp_typed_close(b);
	evp_typed_open(b, "x$ExecutorStats");	/* without a name it is nobody's */
	evp_typed_close(b);
	evp_cbor_close(b);
	evp_cbor_close(b);
	evp_cbor_put_str(b, "consumers");
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, "java.util.ArrayList");
	evp_cbor_open_array(b);
	evp_typed_open(b, "x$ConsumerStats");
	put_name(b, "consumerId", "b_P_1_*");
	put_name(b, "componentName", "P");
	put_number(b, "inFlight", 7);
	put_number(b, "submitTimeouts", 8);
	put_number(b, "transientFailures", 9);
	evp_typed_close(b);
	evp_cbor_close(b);
	evp_cbor_close(b);
}

static void
test_lists(void **state)
{
	evp_buf_t	b;
	evp_notice_t notice;
	const char *reason = NULL;

	(void) state;
	seen[0] = '\0';
	assert_int_equal(evp_notice_parse(&notice, message(&b, EVP_COMMON "performance.PerformanceInvocationsMessage", put_invocations), &reason), 0);
	assert_slice(notice.component, "Shop");
	assert_slice(notice.action, "Shop::buy");
	assert_int_equal(evp_notice_invocations(&notice, on_invocation, NULL, &reason), 0);
	assert_string_equal(seen, "OrderPlace=2 OrderFind=1 ");
	evp_notice_free(&notice);
	evp_buf_free(&b);

	seen[0] = '\0';
	assert_int_equal(evp_notice_parse(&notice, message(&b, EVP_INTERNAL "discovery.BundleConsumerRegistrationMessage", put_consumers), &reason), 0);
	assert_int_equal(notice.kind, EVP_NOTICE_CONSUMERS);
	assert_int_equal(evp_notice_consumers(&notice, on_consumer, NULL, &reason), 0);
	assert_string_equal(seen, "Projector P b_P_1_eu, Projector P b_P_1_us, Observer O b_O_1_*, ");
	evp_notice_free(&notice);
	evp_buf_free(&b);

	seen[0] = '\0';
	assert_int_equal(evp_notice_parse(&notice, message(&b, EVP_INTERNAL "consumer.ConsumerStatsMessage", put_statistics), &reason), 0);
	assert_int_equal(notice.kind, EVP_NOTICE_STATISTICS);
	assert_int_equal(evp_notice_executors(&notice, on_executor, NULL, &reason), 0);
	assert_int_equal(evp_notice_stats(&notice, on_stats, NULL, &reason), 0);
	assert_string_equal(seen, "e 1 2 3 4 5 6, b_P_1_* P 7 8 9, ");
	evp_notice_free(&notice);
	evp_buf_free(&b);

	assert_int_equal(evp_notice_parse(&notice, message(&b, "com.acme.Unknown", put_consumers), &reason), 0);
	assert_int_equal(notice.kind, EVP_NOTICE_OTHER);
	evp_notice_free(&notice);
	evp_buf_free(&b);
}

static void
bad(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_notice_t notice;
	const char *reason = NULL;

	assert_int_equal(evp_notice_parse(&notice, evp_slice_blob(blob), &reason), -1);
	assert_string_equal(reason, expected);
	evp_blob_unref(blob);
}

static void
put_bad_list(evp_buf_t *b)
{
	put_name(b, "component", "C");
	put_name(b, "action", "A");
	evp_cbor_put_str(b, "invocations");
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, "java.util.HashMap");
	evp_cbor_open_array(b);
	evp_cbor_close(b);
	evp_cbor_close(b);
}

static void
test_bad(void **state)
{
	evp_buf_t	b;
	evp_notice_t notice;
	const char *reason = NULL;

	(void) state;
	bad("", "CBOR is cut short");
	bad("80", "CBOR container is too short");
	bad("826161a0", "payload is not an EventoMessage");
	seen[0] = '\0';
	assert_int_equal(evp_notice_parse(&notice, message(&b, EVP_COMMON "performance.PerformanceInvocationsMessage", put_bad_list), &reason), 0);
	assert_int_equal(evp_notice_invocations(&notice, on_invocation, NULL, &reason), -1);
	assert_string_equal(reason, "not a map");
	assert_string_equal(seen, "");
	evp_notice_free(&notice);
	evp_buf_free(&b);
}

static void
test_mutations(void **state)
{
	static const struct
	{
		const char *class;
		void		(*put) (evp_buf_t *b);
	}			bodies[] = {
		{EVP_COMMON "performance.PerformanceInvocationsMessage", put_invocations},
		{EVP_INTERNAL "discovery.BundleConsumerRegistrationMessage", put_consumers},
		{EVP_INTERNAL "consumer.ConsumerStatsMessage", put_statistics},
	};
	uint64_t	seed = 7;
	size_t		parsed = 0;

	(void) state;
	for (int i = 0; i < 30000; i++)
	{
		evp_buf_t	b;
		evp_slice_t payload = message(&b, bodies[i % 3].class, bodies[i % 3].put);
		evp_blob_t *blob = unit_mutate(payload.p, payload.n, &seed);
		evp_notice_t notice;
		const char *reason = NULL;

		seen[0] = '\0';
		if (evp_notice_parse(&notice, evp_slice_blob(blob), &reason) == 0)
		{
			evp_notice_invocations(&notice, on_invocation, NULL, &reason);
			evp_notice_consumers(&notice, on_consumer, NULL, &reason);
			evp_notice_executors(&notice, on_executor, NULL, &reason);
			evp_notice_stats(&notice, on_stats, NULL, &reason);
			evp_notice_free(&notice);
			parsed++;
		}
		else
			assert_non_null(reason);
		evp_blob_unref(blob);
		evp_buf_free(&b);
	}
	assert_true(parsed > 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("notice", tests, NULL, NULL);
}
