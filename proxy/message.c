/*
 * message.c
 *    The eight messages of the bundle protocol, decoded and encoded.
 */
#include "message.h"

#include "cbor.h"
#include "uuid.h"

/* Payloads up to this size are copied into the message: cheaper than a part more. */
#define PAYLOAD_COPY_MAX 1024

/* Room for everything of a message but its payload; texts come from frames of
 * bounded size. */
#define HEAD_MAX EVP_WIRE_MAX_MESSAGE

#define SCRATCH_KEPT ((size_t) 64 * 1024)

static const char *const names[] = {
	[EVP_HEL] = "HEL",
	[EVP_WLC] = "WLC",
	[EVP_REJ] = "REJ",
	[EVP_PNG] = "PNG",
	[EVP_PON] = "PON",
	[EVP_REQ] = "REQ",
	[EVP_RSP] = "RSP",
	[EVP_NTF] = "NTF",
};

#define N_TYPES (sizeof(names) / sizeof(names[0]))

const char *
evp_message_name(evp_message_type_t type)
{
	return (size_t) type < N_TYPES ? names[type] : "?";
}

typedef enum field_kind
{
	FIELD_TYPE,
	FIELD_UUID,
	FIELD_INT,
	FIELD_NAME,					/* text that serves as an identifier */
	FIELD_TEXT,
	FIELD_BYTES,
	FIELD_CAPABILITIES,
	FIELD_FAILURE
} field_kind_t;

typedef struct field
{
	const char *key;
	size_t		len;
	field_kind_t kind;
	size_t		offset;			/* in evp_message_t */
	const char *wrong;			/* the error where its value is of another type */
} field_t;

#define FIELD(key, kind, member, type) \
	{key, sizeof(key) - 1, kind, offsetof(evp_message_t, member), key " is not " type}

/* All keys of all types: a key means the same wherever it stands. */
static const field_t fields[] = {
	FIELD("@t", FIELD_TYPE, type, "a text"),
	FIELD("correlationId", FIELD_UUID, correlation, "a UUID"),
	FIELD("sourceBundleId", FIELD_NAME, source_bundle_id, "a text"),
	FIELD("sourceInstanceId", FIELD_NAME, source_instance_id, "a text"),
	FIELD("sourceBundleVersion", FIELD_NAME, source_bundle_version, "a text"),
	FIELD("payloadType", FIELD_NAME, payload_type, "a text"),
	FIELD("payload", FIELD_BYTES, payload, "a byte string"),
	FIELD("failure", FIELD_FAILURE, has_failure, "a map of texts"),
	FIELD("timeoutMillis", FIELD_INT, timeout_ms, "an integer"),
	FIELD("timestampMs", FIELD_INT, timestamp_ms, "an integer"),
	FIELD("sequence", FIELD_INT, sequence, "an integer"),
	FIELD("originTimestampMs", FIELD_INT, origin_timestamp_ms, "an integer"),
	FIELD("protocolVersion", FIELD_INT, protocol_version, "an integer"),
	FIELD("bundleId", FIELD_NAME, bundle_id, "a text"),
	FIELD("instanceId", FIELD_NAME, instance_id, "a text"),
	FIELD("serverInstanceId", FIELD_NAME, instance_id, "a text"),
	FIELD("bundleVersion", FIELD_NAME, bundle_version, "a text"),
	FIELD("capabilities", FIELD_CAPABILITIES, capabilities, "an array of texts"),
	FIELD("acceptedCapabilities", FIELD_CAPABILITIES, capabilities, "an array of texts"),
	FIELD("authToken", FIELD_NAME, auth_token, "a text"),
	FIELD("code", FIELD_NAME, code, "a text"),
	FIELD("reason", FIELD_TEXT, reason, "a text"),
};

#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

/* The field of a key, NULL where there is none.  at: where to look first, since keys mostly come in the order of the table. */
static const field_t *
field_of(evp_slice_t key, size_t *at)
{
	for (size_t n = 0; n < N_FIELDS; n++)
	{
		const field_t *f = &fields[*at];

		*at = *at + 1 < N_FIELDS ? *at + 1 : 0;
		if (f->len == key.n && memcmp(f->key, key.p, key.n) == 0)
			return f;
	}
	return NULL;
}

static bool
decode_type(evp_cbor_t *r, evp_message_t *m)
{
	evp_slice_t name;

	if (!evp_cbor_text(r, &name))
		return false;
	for (size_t i = 0; i < N_TYPES; i++)
		if (evp_slice_is(name, names[i]))
		{
			m->type = (evp_message_type_t) i;
			return true;
		}
	return evp_cbor_fail(r, "unknown message type");
}

static bool
decode_uuid(evp_cbor_t *r, evp_message_t *m)
{
	evp_slice_t v;

	m->has_correlation = false;
	if (evp_cbor_take_null(r))
		return true;
	if (evp_cbor_peek(r) == EVP_CBOR_TEXT)
		m->has_correlation = evp_cbor_text(r, &v) && evp_uuid_parse(v.p, v.n, m->correlation);
	else if (evp_cbor_bytes(r, &v) && v.n == 16)
	{
		memcpy(m->correlation, v.p, 16);
		m->has_correlation = true;
	}
	return m->has_correlation;
}

static bool
decode_capabilities(evp_cbor_t *r, evp_message_t *m)
{
	m->n_capabilities = 0;
	if (evp_cbor_take_null(r))
		return true;
	if (!evp_cbor_enter_array(r))
		return false;
	while (evp_cbor_more(r))
	{
		if (m->n_capabilities == EVP_MAX_CAPABILITIES)
			evp_cbor_skip(r, NULL);
		else if (evp_cbor_name(r, &m->capabilities[m->n_capabilities]))
			m->n_capabilities++;
	}
	return r->error == NULL;
}

static bool
decode_failure(evp_cbor_t *r, evp_message_t *m)
{
	m->has_failure = false;
	if (evp_cbor_take_null(r))
		return true;
	if (!evp_cbor_enter_map(r))
		return false;
	while (evp_cbor_more(r))
	{
		evp_slice_t key;

		if (evp_cbor_peek(r) != EVP_CBOR_TEXT)
		{
			evp_cbor_skip(r, NULL);
			evp_cbor_skip(r, NULL);
			continue;
		}
		if (!evp_cbor_text(r, &key))
			break;
		if (evp_slice_is(key, "exceptionClassName"))
			evp_cbor_text_or_null(r, &m->failure_class);
		else if (evp_slice_is(key, "message"))
			evp_cbor_text_or_null(r, &m->failure_message);
		else if (evp_slice_is(key, "stackTrace"))
			evp_cbor_text_or_null(r, &m->failure_stack);
		else
			evp_cbor_skip(r, NULL);
	}
	m->has_failure = r->error == NULL;
	return m->has_failure;
}

static bool
decode_field(evp_cbor_t *r, evp_message_t *m, const field_t *f)
{
	void	   *to = (char *) m + f->offset;

	switch (f->kind)
	{
		case FIELD_TYPE:
			return decode_type(r, m);
		case FIELD_UUID:
			return decode_uuid(r, m);
		case FIELD_INT:
			return evp_cbor_int_or_null(r, to, NULL);
		case FIELD_NAME:
			return evp_cbor_name_or_null(r, to);
		case FIELD_TEXT:
			return evp_cbor_text_or_null(r, to);
		case FIELD_BYTES:
			return evp_cbor_bytes_or_null(r, to);
		case FIELD_CAPABILITIES:
			return decode_capabilities(r, m);
		case FIELD_FAILURE:
			return decode_failure(r, m);
	}
	return false;
}

/* Does the value that comes next have a type that the field can have? */
static bool
type_fits(evp_cbor_t *r, field_kind_t kind)
{
	evp_cbor_type_t type = evp_cbor_peek(r);

	if (type == EVP_CBOR_NULL)
		return kind != FIELD_TYPE;
	switch (kind)
	{
		case FIELD_INT:
			return type == EVP_CBOR_INT;
		case FIELD_UUID:
			return type == EVP_CBOR_BYTES || type == EVP_CBOR_TEXT;
		case FIELD_BYTES:
			return type == EVP_CBOR_BYTES;
		case FIELD_CAPABILITIES:
			return type == EVP_CBOR_ARRAY;
		case FIELD_FAILURE:
			return type == EVP_CBOR_MAP;
		default:
			return type == EVP_CBOR_TEXT;
	}
}

/* Reads the map; the error is the reader's. */
static void
decode_map(evp_cbor_t *r, evp_message_t *m)
{
	bool		has_type = false;
	size_t		at = 0;

	if (!evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r))
	{
		evp_slice_t key;
		const field_t *f = NULL;

		if (evp_cbor_peek(r) == EVP_CBOR_TEXT)
		{
			if (!evp_cbor_text(r, &key))
				return;
			f = field_of(key, &at);
		}
		else if (!evp_cbor_skip(r, NULL))
			return;
		if (f == NULL)
			evp_cbor_skip(r, NULL);
		else if (!type_fits(r, f->kind))
			evp_cbor_fail(r, f->wrong);
		else if (!decode_field(r, m, f))
			evp_cbor_fail(r, f->wrong);
		else if (f->kind == FIELD_TYPE)
			has_type = true;
	}
	if (r->error == NULL && !has_type)
		evp_cbor_fail(r, "message without a type");
}

int
evp_message_decode(evp_message_t *m, evp_blob_t *blob, const char **reason)
{
	evp_cbor_t	r;

	*m = (evp_message_t) {0};
	m->blob = evp_blob_ref(blob);
	evp_cbor_init(&r, evp_slice_blob(blob), &m->arena);
	decode_map(&r, m);
	if (evp_cbor_done(&r))
		return 0;
	*reason = r.error;
	evp_message_free(m);
	return -1;
}

void
evp_message_free(evp_message_t *m)
{
	evp_arena_free(&m->arena);
	evp_blob_unref(m->blob);
	*m = (evp_message_t) {0};
}

static void
put_int(evp_buf_t *b, const char *key, int64_t v)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_int(b, v);
}

static void
put_text(evp_buf_t *b, const char *key, evp_slice_t v)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_slice(b, v);
}

static void
put_capabilities(evp_buf_t *b, const char *key, const evp_message_t *m)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_array_header(b, m->n_capabilities);
	for (unsigned i = 0; i < m->n_capabilities; i++)
		evp_cbor_put_slice(b, m->capabilities[i]);
}

static void
put_failure(evp_buf_t *b, const evp_message_t *m)
{
	evp_cbor_put_str(b, "failure");
	if (!m->has_failure)
	{
		evp_cbor_put_null(b);
		return;
	}
	evp_cbor_open_map(b);
	put_text(b, "exceptionClassName", m->failure_class);
	put_text(b, "message", m->failure_message);
	put_text(b, "stackTrace", m->failure_stack);
	evp_cbor_close(b);
}

/* The keys payloadType and payload; of the value, only what stands before its bytes. */
static void
put_payload_head(evp_buf_t *b, const evp_message_t *m)
{
	put_text(b, "payloadType", m->payload_type);
	evp_cbor_put_str(b, "payload");
	if (m->payload.p == NULL)
		evp_cbor_put_null(b);
	else
		evp_cbor_put_bytes_header(b, m->payload.n);
}

static bool
has_payload(const evp_message_t *m)
{
	return m->type == EVP_REQ || m->type == EVP_RSP || m->type == EVP_NTF;
}

/* What stands before the bytes of the payload; all of it but timestamp and end
 * where the type has no payload. */
static void
put_before_payload(evp_buf_t *b, const evp_message_t *m)
{
	evp_cbor_open_map(b);
	put_text(b, "@t", evp_slice_str(evp_message_name(m->type)));
	evp_cbor_put_str(b, "correlationId");
	if (m->has_correlation)
		evp_cbor_put_bytes(b, m->correlation, 16);
	else
		evp_cbor_put_null(b);
	switch (m->type)
	{
		case EVP_HEL:
			put_int(b, "protocolVersion", m->protocol_version);
			put_text(b, "bundleId", m->bundle_id);
			put_text(b, "instanceId", m->instance_id);
			put_text(b, "bundleVersion", m->bundle_version);
			put_capabilities(b, "capabilities", m);
			put_text(b, "authToken", m->auth_token);
			break;
		case EVP_WLC:
			put_int(b, "protocolVersion", m->protocol_version);
			put_text(b, "serverInstanceId", m->instance_id);
			put_capabilities(b, "acceptedCapabilities", m);
			break;
		case EVP_REJ:
			put_text(b, "code", m->code);
			put_text(b, "reason", m->reason);
			break;
		case EVP_PNG:
		case EVP_PON:
			put_int(b, "sequence", m->sequence);
			break;
		case EVP_REQ:
			put_text(b, "sourceBundleId", m->source_bundle_id);
			put_text(b, "sourceInstanceId", m->source_instance_id);
			put_text(b, "sourceBundleVersion", m->source_bundle_version);
			put_payload_head(b, m);
			break;
		case EVP_RSP:
		case EVP_NTF:
			put_payload_head(b, m);
			break;
	}
}

static void
put_after_payload(evp_buf_t *b, const evp_message_t *m)
{
	if (m->type == EVP_REQ)
		put_int(b, "timeoutMillis", m->timeout_ms);
	else if (m->type == EVP_RSP)
		put_failure(b, m);
	put_int(b, "timestampMs", m->timestamp_ms);
	if (m->type == EVP_PON)
		put_int(b, "originTimestampMs", m->origin_timestamp_ms);
	evp_cbor_close(b);
}

bool
evp_message_encode(evp_buf_t *b, const evp_message_t *m)
{
	put_before_payload(b, m);
	if (has_payload(m) && m->payload.p != NULL)
		evp_buf_append(b, m->payload.p, m->payload.n);
	put_after_payload(b, m);
	return !b->failed;
}

/* Where messages are encoded before their length is known; kept for the next one unless it was a large one. */
static evp_buf_t scratch = {.max = HEAD_MAX};

/* What was encoded there, in a block of just its size; NULL where it did not succeed. */
static evp_blob_t *
take_scratch(void)
{
	evp_blob_t *blob = scratch.failed ? NULL : evp_blob_new(scratch.data, scratch.len);

	if (scratch.failed || scratch.cap > SCRATCH_KEPT)
		evp_buf_free(&scratch);
	return blob;
}

bool
evp_message_pack(evp_parts_t *parts, const evp_message_t *m)
{
	evp_blob_t *head;
	size_t		split;

	*parts = (evp_parts_t) {0};
	evp_buf_reset(&scratch);
	if (!has_payload(m) || m->payload.owner == NULL || m->payload.n <= PAYLOAD_COPY_MAX)
	{
		evp_message_encode(&scratch, m);
		head = take_scratch();
		if (head != NULL)
			evp_parts_blob(parts, head);
		return head != NULL;
	}
	put_before_payload(&scratch, m);
	split = scratch.len;
	put_after_payload(&scratch, m);
	head = take_scratch();
	if (head == NULL)
		return false;
	parts->part[0] = (evp_slice_t) {.owner = head,.p = head->data,.n = split};
	parts->part[1] = evp_slice_ref(m->payload);
	parts->part[2] = (evp_slice_t) {.owner = evp_blob_ref(head),.p = head->data + split,.n = head->len - split};
	parts->n = 3;
	parts->len = head->len + m->payload.n;
	return true;
}
