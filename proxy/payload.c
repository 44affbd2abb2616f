/*
 * payload.c
 *    Payloads of Java classes to what the log stores, and back to the very
 *    same text; and the metadata of messages.
 */
#include "payload.h"

#include "../include/packed.h"
#include "cbor.h"
#include "json.h"

#define CLASS_PREFIX		"class "
#define CLASS_PREFIX_LEN	(sizeof(CLASS_PREFIX) - 1)
#define METADATA_CLASS		"com.evento.common.modeling.messaging.message.application.Metadata"

static bool
has_class_prefix(evp_slice_t s)
{
	return s.n >= CLASS_PREFIX_LEN && memcmp(s.p, CLASS_PREFIX, CLASS_PREFIX_LEN) == 0;
}

static evp_slice_t
drop_front(evp_slice_t s, size_t n)
{
	return (evp_slice_t) {.owner = s.owner,.p = s.p + n,.n = s.n - n};
}

evp_slice_t
evp_payload_name(evp_slice_t object_class)
{
	evp_slice_t s = object_class;
	const uint8_t *dot = s.n == 0 ? NULL : memrchr(s.p, '.', s.n);

	if (dot != NULL)
		return drop_front(s, (size_t) (dot - s.p) + 1);
	return has_class_prefix(s) ? drop_front(s, CLASS_PREFIX_LEN) : s;
}

/* Does JSON text begin with an object? */
static bool
begins_object(evp_slice_t text)
{
	evp_json_t	j;

	evp_json_init(&j, text);
	return evp_json_peek(&j) == '{';
}

/* Does the brace at p close at the very last byte?  Looks at brackets and
 * strings only: whether all of it is JSON is for the database to say. */
static bool
is_one_object(const uint8_t *p, size_t n)
{
	const uint8_t *end = p + n;
	size_t		depth = 0;

	while (p < end)
	{
		switch (*p++)
		{
			case '{':
			case '[':
				depth++;
				break;
			case '}':
			case ']':
				if (depth == 0 || --depth == 0)
					return depth == 0 && p == end;
				break;
			case '"':
				while (p < end && *p != '"')
					p += *p == '\\' && p + 1 < end ? 2 : 1;
				if (p++ == end)
					return false;
				break;
		}
	}
	return false;
}

/* The object in ["<class>",{…}]; null where the text has another shape. */
static evp_slice_t
object_of(evp_slice_t text, evp_slice_t class)
{
	evp_slice_t object;

	/* [" before the class, ", behind it, {} the least object, ] at the end. */
	if (class.n == 0 || text.n < class.n + 7 || text.p[0] != '[' || text.p[1] != '"' ||
		memcmp(text.p + 2, class.p, class.n) != 0 || memcmp(text.p + 2 + class.n, "\",{", 3) != 0 ||
		text.p[text.n - 1] != ']')
		return (evp_slice_t) {0};
	for (size_t i = 0; i < class.n; i++)
		if (class.p[i] == '"' || class.p[i] == '\\' || class.p[i] < 0x20)
			return (evp_slice_t) {0};
	object = drop_front(text, class.n + 4);
	object.n--;
	return is_one_object(object.p, object.n) ? object : (evp_slice_t) {0};
}

int
evp_payload_split(evp_payload_t *out, evp_slice_t serialized_object, evp_slice_t object_class,
				  evp_arena_t *arena, const char **reason)
{
	*out = (evp_payload_t) {0};
	if (object_class.p == NULL)
		return 0;
	if (serialized_object.p == NULL)
	{
		*reason = "payload without serializedObject";
		return -1;
	}
	out->type = evp_payload_name(object_class);
	out->data = serialized_object;
	out->klass = object_class;
	if (out->type.n == 0 || out->type.n > EVENTO_MAX_TYPE_LEN)
	{
		*reason = out->type.n == 0 ? "payload class without a name" : "name of a payload class is too long";
		return -1;
	}
	if (has_class_prefix(object_class))
	{
		evp_slice_t class = drop_front(object_class, CLASS_PREFIX_LEN);
		evp_slice_t object = object_of(serialized_object, class);

		/* A class that would be read as one of the other forms stays whole. */
		if (object.p != NULL && !has_class_prefix(class) && class.p[0] != '=')
		{
			out->klass = class;
			out->data = object;
		}
	}
	else if (begins_object(serialized_object) || object_class.p[0] == '=')
	{
		evp_blob_t *marked = evp_arena_alloc(arena, object_class.n + 1);

		if (marked == NULL)
		{
			*reason = "out of memory";
			return -1;
		}
		marked->data[0] = '=';
		memcpy(marked->data + 1, object_class.p, object_class.n);
		out->klass = evp_slice_blob(marked);
	}
	if (out->klass.n > EVENTO_MAX_CLASS_LEN)
	{
		*reason = "payload class is too long";
		return -1;
	}
	return 1;
}

void
evp_payload_put(evp_buf_t *b, evp_slice_t klass, evp_slice_t type, evp_slice_t data)
{
	bool		by_type = klass.p == NULL || klass.n == 0;
	bool		whole;

	if (by_type)
		klass = type;
	whole = !by_type && (has_class_prefix(klass) || klass.p[0] == '=');
	evp_cbor_put_str(b, "serializedObject");
	if (!whole && begins_object(data))
	{
		evp_cbor_put_text_header(b, 2 + klass.n + 2 + data.n + 1);
		evp_buf_append(b, "[\"", 2);
		evp_buf_append(b, klass.p, klass.n);
		evp_buf_append(b, "\",", 2);
		evp_buf_append(b, data.p, data.n);
		evp_buf_append(b, "]", 1);
		by_type = true;
	}
	else
		evp_cbor_put_text(b, data.p, data.n);
	evp_cbor_put_str(b, "objectClass");
	if (by_type)
	{
		evp_cbor_put_text_header(b, CLASS_PREFIX_LEN + klass.n);
		evp_buf_append(b, CLASS_PREFIX, CLASS_PREFIX_LEN);
		evp_buf_append(b, klass.p, klass.n);
	}
	else
		evp_cbor_put_slice(b, klass.p[0] == '=' ? drop_front(klass, 1) : klass);
}

void
evp_payload_put_nothing(evp_buf_t *b)
{
	evp_cbor_put_str(b, "serializedObject");
	evp_cbor_put_str(b, "null");
	evp_cbor_put_str(b, "objectClass");
	evp_cbor_put_null(b);
}

int
evp_metadata_to_json(evp_buf_t *json, evp_slice_t cbor, const char **reason)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t class;
	bool		typed;
	int			rc = 1;

	if (cbor.p == NULL)
		return 0;
	evp_cbor_init(&r, cbor, &arena);
	if (evp_cbor_take_null(&r))
		rc = 0;
	else
	{
		typed = evp_cbor_peek(&r) == EVP_CBOR_ARRAY;
		if (typed)
		{
			evp_cbor_enter_array(&r);
			evp_cbor_text(&r, &class);
		}
		if (evp_cbor_peek(&r) != EVP_CBOR_MAP)
			evp_cbor_fail(&r, "metadata is not a map");
		else
			evp_json_put_cbor(json, &r, true);
		if (typed && evp_cbor_more(&r))
			evp_cbor_fail(&r, "metadata is not a map");
	}
	if (!evp_cbor_done(&r) || json->failed)
	{
		*reason = json->failed ? "metadata is too long" : r.error;
		rc = -1;
	}
	evp_arena_free(&arena);
	return rc;
}

/* The value of a member: text, null, or the JSON text of anything else. */
static void
put_metadata_value(evp_buf_t *b, evp_json_t *j, evp_buf_t *scratch)
{
	evp_slice_t range;
	int			c = evp_json_peek(j);

	if (c == '"')
	{
		evp_buf_reset(scratch);
		if (evp_json_string(j, scratch))
			evp_cbor_put_text(b, scratch->data, scratch->len);
	}
	else if (evp_json_skip(j, &range))
	{
		if (c == 'n')
			evp_cbor_put_null(b);
		else
			evp_cbor_put_text(b, range.p, range.n);
	}
}

void
evp_metadata_put(evp_buf_t *b, evp_slice_t json)
{
	size_t		start = b->len;
	bool		first = true;
	evp_buf_t	scratch;
	evp_json_t	j;

	if (json.p == NULL)
	{
		evp_cbor_put_null(b);
		return;
	}
	/* A lone surrogate's U+FFFD takes 3 bytes where its escape took 6, so
	 * nothing gets longer than its JSON text. */
	evp_buf_init(&scratch, json.n);
	evp_json_init(&j, json);
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, METADATA_CLASS);
	evp_cbor_open_map(b);
	if (evp_json_enter(&j, '{'))
		while (evp_json_more(&j, '}', &first))
		{
			evp_buf_reset(&scratch);
			if (!evp_json_string(&j, &scratch) || !evp_json_colon(&j))
				break;
			evp_cbor_put_text(b, scratch.data, scratch.len);
			put_metadata_value(b, &j, &scratch);
			if (j.error)
				break;
		}
	evp_cbor_close(b);
	evp_cbor_close(b);
	if (!evp_json_done(&j) && !b->failed)
	{
		b->len = start;
		evp_cbor_put_null(b);
	}
	evp_buf_free(&scratch);
}
