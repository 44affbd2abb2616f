/*
 * link_proto.c
 *    See link_proto.h.
 */
#include "link_proto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const char magic[4] = {'E', 'V', 'P', 'L'};

static bool
has_id(evp_link_type_t type)
{
	return type == EVP_LINK_CALL || type == EVP_LINK_CANCEL || type == EVP_LINK_RESULT || type == EVP_LINK_CUT ||
		type == EVP_LINK_REFUSED;
}

static bool
has_session(evp_link_type_t type)
{
	return type == EVP_LINK_CALL || type == EVP_LINK_CUT || type == EVP_LINK_REFUSED;
}

static bool
has_key(evp_link_type_t type)
{
	return type == EVP_LINK_CALL || type == EVP_LINK_ANSWER;
}

static bool
has_message(evp_link_type_t type)
{
	return type == EVP_LINK_CALL || type == EVP_LINK_RESULT || type == EVP_LINK_ANSWER;
}

static bool
put_key(evp_buf_t *b, evp_slice_t key)
{
	if (key.n == 0 || key.n > EVP_LINK_MAX_KEY)
		return false;
	return evp_buf_append_u16(b, (uint16_t) key.n) && evp_buf_append(b, key.p, key.n);
}

bool
evp_link_put(evp_buf_t *b, const evp_link_frame_t *frame, size_t message_len)
{
	size_t		start = b->len;

	evp_buf_append_u32(b, 0);
	evp_buf_append_u32(b, 0);
	evp_buf_append_u8(b, (uint8_t) frame->type);
	if (frame->type == EVP_LINK_HELLO)
	{
		evp_buf_append(b, magic, sizeof magic);
		evp_buf_append_u8(b, EVP_LINK_VERSION);
	}
	if (frame->type == EVP_LINK_HELLO || frame->type == EVP_LINK_CHALLENGE)
		evp_buf_append(b, frame->nonce, EVP_LINK_NONCE);
	if (frame->type == EVP_LINK_HELLO || frame->type == EVP_LINK_CHALLENGE || frame->type == EVP_LINK_RENAMED)
		evp_buf_append_u64(b, (uint64_t) frame->proxy_id);
	if (frame->type == EVP_LINK_CHALLENGE || frame->type == EVP_LINK_PROOF)
		evp_buf_append(b, frame->mac, EVP_LINK_MAC);
	if (has_id(frame->type))
		evp_buf_append(b, frame->id, sizeof frame->id);
	if (has_session(frame->type))
		evp_buf_append_u64(b, (uint64_t) frame->session_no);
	if (frame->type == EVP_LINK_CALL)
		evp_buf_append_u32(b, frame->timeout_ms);
	if (frame->type == EVP_LINK_REFUSED)
		evp_buf_append_u8(b, frame->why);
	if (has_key(frame->type) && !(put_key(b, frame->bundle) && put_key(b, frame->instance)))
		b->failed = true;
	if (b->failed || message_len > EVP_LINK_MAX_MESSAGE)
		return false;
	evp_buf_set_u32(b, start, (uint32_t) (b->len - start - 8));
	evp_buf_set_u32(b, start + 4, (uint32_t) message_len);
	return true;
}

/* What is left to decode. */
typedef struct evp_cursor
{
	const uint8_t *p;
	size_t		n;
	bool		failed;
} evp_cursor_t;

static const uint8_t *
take(evp_cursor_t *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->failed || n > c->n)
	{
		c->failed = true;
		return NULL;
	}
	c->p += n;
	c->n -= n;
	return p;
}

static uint64_t
take_number(evp_cursor_t *c, size_t bytes)
{
	const uint8_t *p = take(c, bytes);
	uint64_t	v = 0;

	for (size_t i = 0; p != NULL && i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static evp_slice_t
take_key(evp_cursor_t *c)
{
	size_t		n = (size_t) take_number(c, 2);
	const uint8_t *p = take(c, n);

	/* They are used as C strings from here on. */
	if (p == NULL || n == 0 || n > EVP_LINK_MAX_KEY || memchr(p, 0, n) != NULL)
	{
		c->failed = true;
		return evp_slice_of(NULL, 0);
	}
	return evp_slice_of(p, n);
}

int
evp_link_decode(evp_link_frame_t *frame, const evp_blob_t *head, evp_blob_t *message, const char **reason)
{
	evp_cursor_t c = {.p = head->data,.n = head->len};
	evp_link_type_t type = (evp_link_type_t) take_number(&c, 1);
	const uint8_t *p;

	memset(frame, 0, sizeof *frame);
	if (type < EVP_LINK_HELLO || type > EVP_LINK_ANSWER)
	{
		*reason = "frame of unknown type";
		return -1;
	}
	frame->type = type;
	if (type == EVP_LINK_HELLO)
	{
		p = take(&c, sizeof magic);
		if (p == NULL || memcmp(p, magic, sizeof magic) != 0)
		{
			*reason = "not a proxy";
			return -1;
		}
		if (take_number(&c, 1) != EVP_LINK_VERSION)
		{
			*reason = "another version of the protocol between proxies";
			return -1;
		}
	}
	if (type == EVP_LINK_HELLO || type == EVP_LINK_CHALLENGE)
		frame->nonce = take(&c, EVP_LINK_NONCE);
	if (type == EVP_LINK_HELLO || type == EVP_LINK_CHALLENGE || type == EVP_LINK_RENAMED)
		frame->proxy_id = (int64_t) take_number(&c, 8);
	if (type == EVP_LINK_CHALLENGE || type == EVP_LINK_PROOF)
		frame->mac = take(&c, EVP_LINK_MAC);
	if (has_id(type) && (p = take(&c, sizeof frame->id)) != NULL)
		memcpy(frame->id, p, sizeof frame->id);
	if (has_session(type))
		frame->session_no = (int64_t) take_number(&c, 8);
	if (type == EVP_LINK_CALL)
		frame->timeout_ms = (uint32_t) take_number(&c, 4);
	if (type == EVP_LINK_REFUSED)
		frame->why = (uint8_t) take_number(&c, 1);
	if (has_key(type))
	{
		frame->bundle = take_key(&c);
		frame->instance = take_key(&c);
	}
	frame->message = message;
	if (c.failed || c.n > 0 || has_message(type) != (message != NULL))
	{
		*reason = "malformed frame";
		return -1;
	}
	return 0;
}

void
evp_link_reader_init(evp_link_reader_t *r)
{
	memset(r, 0, sizeof *r);
	evp_buf_init(&r->head, EVP_LINK_MAX_HEAD);
	evp_buf_init(&r->message, EVP_LINK_MAX_MESSAGE);
}

void
evp_link_reader_free(evp_link_reader_t *r)
{
	evp_buf_free(&r->head);
	evp_buf_free(&r->message);
	r->lengths_len = 0;
}

static size_t
length_at(const uint8_t *p)
{
	return (size_t) p[0] << 24 | (size_t) p[1] << 16 | (size_t) p[2] << 8 | p[3];
}

/* Moves what belongs to a part of the frame into it; 1 when the part is complete. */
static int
fill(evp_buf_t *part, size_t whole, const uint8_t **p, size_t *n)
{
	size_t		more = whole - part->len;

	if (more > *n)
		more = *n;
	if (more > 0 && !evp_buf_append(part, *p, more))
		return -1;
	*p += more;
	*n -= more;
	return part->len == whole ? 1 : 0;
}

int
evp_link_feed(evp_link_reader_t *r, const uint8_t **p, size_t *n, evp_blob_t **head, evp_blob_t **message, const char **reason)
{
	int			rc;

	while (r->lengths_len < sizeof r->lengths)
	{
		if (*n == 0)
			return 0;
		r->lengths[r->lengths_len++] = *(*p)++;
		(*n)--;
		if (r->lengths_len < sizeof r->lengths)
			continue;
		r->head_len = length_at(r->lengths);
		r->message_len = length_at(r->lengths + 4);
		if (r->head_len == 0 || r->head_len > EVP_LINK_MAX_HEAD || r->message_len > r->max_message)
		{
			*reason = r->head_len == 0 ? "empty frame" : "frame too long";
			return -1;
		}
	}
	rc = fill(&r->head, r->head_len, p, n);
	if (rc == 1)
		rc = fill(&r->message, r->message_len, p, n);
	if (rc == 0)
		return 0;
	*head = rc < 0 ? NULL : evp_blob_from_buf(&r->head);
	*message = rc < 0 || r->message_len == 0 ? NULL : evp_blob_from_buf(&r->message);
	r->lengths_len = 0;
	if (*head == NULL || (*message == NULL && r->message_len > 0))
	{
		evp_blob_unref(*head);
		evp_blob_unref(*message);
		*reason = "out of memory";
		return -1;
	}
	return 1;
}

bool
evp_link_prove(const evp_link_greeting_t *g, bool acceptor, const uint8_t *secret, size_t secret_len, uint8_t mac[EVP_LINK_MAC])
{
	uint8_t		text[32 + 2 * EVP_LINK_NONCE + 16 + EVP_LINK_BINDING];
	uint8_t    *p = text;
	const char *role = acceptor ? "evento link 1: acceptor" : "evento link 1: dialler";
	unsigned	len = 0;

	if (secret == NULL || secret_len == 0 || secret_len > INT32_MAX)
		return false;
	memset(text, 0, 32);
	memcpy(text, role, strlen(role));
	p += 32;
	memcpy(p, g->dialler_nonce, EVP_LINK_NONCE);
	p += EVP_LINK_NONCE;
	memcpy(p, g->acceptor_nonce, EVP_LINK_NONCE);
	p += EVP_LINK_NONCE;
	for (int i = 0; i < 8; i++)
	{
		p[i] = (uint8_t) ((uint64_t) g->dialler_id >> (56 - 8 * i));
		p[8 + i] = (uint8_t) ((uint64_t) g->acceptor_id >> (56 - 8 * i));
	}
	p += 16;
	if (g->bound)
	{
		memcpy(p, g->binding, EVP_LINK_BINDING);
		p += EVP_LINK_BINDING;
	}
	return HMAC(EVP_sha256(), secret, (int) secret_len, text, (size_t) (p - text), mac, &len) != NULL && len == EVP_LINK_MAC;
}

bool
evp_link_proven(const evp_link_greeting_t *g, bool acceptor, const uint8_t *secret, size_t secret_len, const uint8_t *mac)
{
	uint8_t		right[EVP_LINK_MAC];

	return evp_link_prove(g, acceptor, secret, secret_len, right) && CRYPTO_memcmp(right, mac, EVP_LINK_MAC) == 0;
}
