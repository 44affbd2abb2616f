/*
 * session.c
 *    What a bundle's connection says, and when it has to say it.
 *
 *    A session ends in end_session and nowhere else.  Its memory lives until
 *    both of its handles (the connection's and the timer) are closed.
 */
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "asks.h"
#include "conn.h"
#include "discovery.h"
#include "feed.h"
#include "guard.h"
#include "log.h"
#include "metrics.h"
#include "notice.h"
#include "registry.h"
#include "reports.h"
#include "requests.h"
#include "router.h"
#include "server.h"
#include "telemetry.h"
#include "uuid.h"

#define ID_MAX		512		/* bytes of a bundle id and of an instance id */
#define PEER_MAX	400
#define FINISH_MS	1000	/* for a peer that was rejected to hang up by itself */

/* Before a hello nobody needs more. */
#define STRANGER_FRAME_MAX	((size_t) 1024 * 1024)
#define STRANGER_STREAMS	1
#define KEPT_HELLO_MAX	((size_t) 16 * 1024)	/* of one that waits for the access rules: there may be as many as connections */

struct evp_session
{
	evp_conn_t	conn;
	uv_timer_t	timer;
	evp_proxy_t *proxy;
	evp_session_info_t info;
	unsigned	pins;			/* handles that are not closed yet */
	bool		closing;
	uint64_t	accepted_at;	/* evp_now times */
	uint64_t	finished_at;	/* when it was rejected, 0: it was not */
	bool		leaving;		/* this proxy drains: the others think it closed, its last words are still heard */
	uint64_t	left_at;		/* since when this proxy drains, 0: it does not */
	uint64_t	enabled_at;
	uint64_t	discovered_at;
	bool		discovered;
	bool		settled;		/* a message has come behind the discovery */
	uint64_t	last_ping;
	int64_t		ping_sequence;
	uint64_t	wakes_at;		/* what the timer is set to, 0: not set */
	evp_access_address_t address;
	bool		has_token;		/* a hello with one has come */
	uint8_t		token_hash[EVP_ACCESS_HASH];
	char	  **cert_names;		/* of its certificate, NULL: it has none, or has said no hello yet */
	evp_blob_t *hello;			/* that waits for the access rules to be known */
	char		peer[PEER_MAX];	/* for the log */
};

#define SESSION_OF(conn_) ((evp_session_t *) ((char *) (conn_) - offsetof(evp_session_t, conn)))

static uint64_t last_local_no;

const evp_session_info_t *
evp_session_info(const evp_session_t *session)
{
	return &session->info;
}

evp_session_info_t *
evp_session_info_rw(evp_session_t *session)
{
	return &session->info;
}

/* ---- the end ---- */

static void
free_names(evp_session_info_t *info)
{
	for (size_t i = 0; i < info->name_count; i++)
		free(info->names[i]);
	free(info->names);
	info->names = NULL;
	info->name_count = 0;
}

static void
unpin(evp_session_t *session)
{
	if (--session->pins > 0)
		return;
	free_names(&session->info);
	evp_blob_unref(session->hello);
	free(session->cert_names);
	free(session->info.bundle);
	free(session->info.instance);
	free(session);
}

static void
on_timer_closed(uv_handle_t *handle)
{
	unpin(handle->data);
}

static void
on_conn_closed(evp_conn_t *conn)
{
	unpin(SESSION_OF(conn));
}

/* Tells the others that nothing can be sent on this session any more, and nothing starts from it. */
static void
take_out(evp_session_t *session)
{
	evp_proxy_t *proxy = session->proxy;

	evp_metrics.sessions--;
	session->info.enabled = false;
	session->info.ready = false;
	evp_feed_session_changed(proxy->feed, session);
	evp_requests_session_closed(proxy->requests, session);
	evp_asks_session_closed(proxy->asks, session);
	evp_registry_session_closed(proxy->registry, session);
}

/* The one way in which a session ends. */
static void
end_session(evp_session_t *session, evp_log_level_t level, const char *reason)
{
	if (session->closing)
		return;
	session->closing = true;
	evp_log(level, "session", session->peer, "closed: %s", reason);
	evp_conn_close(&session->conn);
	uv_close((uv_handle_t *) &session->timer, on_timer_closed);
	if (session->info.welcomed && !session->leaving)
		take_out(session);
	session->info.token = NULL;	/* it is not looked after any more */
}

/* Ends a session whose peer broke the protocol. */
static void
end_for_breach(evp_session_t *session, const char *reason)
{
	if (!session->closing)
		EVP_COUNT(protocol_errors);
	end_session(session, EVP_LOG_WARNING, reason);
}

void
evp_session_close(evp_session_t *session, const char *reason)
{
	end_session(session, EVP_LOG_INFO, reason);
}

/* ---- sending ---- */

int
evp_session_send(evp_session_t *session, evp_blob_t *message)
{
	evp_parts_t parts;

	evp_parts_blob(&parts, evp_blob_ref(message));
	return evp_conn_send(&session->conn, &parts);
}

int
evp_session_send_parts(evp_session_t *session, const evp_parts_t *parts)
{
	evp_parts_t own;

	evp_parts_ref(&own, parts);
	return evp_conn_send(&session->conn, &own);
}

/* Encodes and sends a small message of our own. */
static void
send_message(evp_session_t *session, evp_message_t *message)
{
	evp_parts_t parts;

	message->timestamp_ms = evp_wall_ms();
	if (!evp_message_pack(&parts, message))
	{
		end_session(session, EVP_LOG_ERROR, "no memory for a message to it");
		return;
	}
	evp_conn_send(&session->conn, &parts);
}

static void
reply_init(evp_message_t *reply, evp_message_type_t type, const evp_message_t *to)
{
	memset(reply, 0, sizeof(*reply));
	reply->type = type;
	reply->has_correlation = to->has_correlation;
	memcpy(reply->correlation, to->correlation, sizeof(reply->correlation));
}

/* ---- time ---- */

static uint64_t
earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t
ping_due(const evp_session_t *session)
{
	uint64_t	since = session->conn.last_write > session->last_ping ? session->conn.last_write : session->last_ping;

	return since + session->proxy->config.ping_interval;
}

/* When the session becomes ready with nothing more coming from its bundle; UINT64_MAX where it is or can't. */
static uint64_t
ready_due(const evp_session_t *session)
{
	const evp_config_t *config = &session->proxy->config;
	uint64_t	due;

	if (!session->info.enabled || session->info.ready)
		return UINT64_MAX;
	due = session->enabled_at + config->discovery_wait;
	if (session->discovered)
		due = earlier(due, session->settled ? 0 : session->discovered_at + config->discovery_settle);
	return due;
}

/* When a peer that does not hang up, though nothing moves on its connection any more, is waited for no longer. */
static uint64_t
left_due(const evp_session_t *session)
{
	uint64_t	moved = session->conn.last_write > session->conn.last_read ? session->conn.last_write : session->conn.last_read;

	return (moved > session->left_at ? moved : session->left_at) + FINISH_MS;
}

static uint64_t
hello_due(const evp_session_t *session)
{
	return session->left_at != 0 ? session->left_at + FINISH_MS : session->accepted_at + session->proxy->config.hello_timeout;
}

static uint64_t
next_wake(const evp_session_t *session)
{
	const evp_config_t *config = &session->proxy->config;
	uint64_t	next;

	if (session->finished_at != 0)
		return session->finished_at + FINISH_MS;
	if (session->leaving)
		return left_due(session);
	next = session->conn.last_read + config->idle_timeout;
	next = earlier(next, evp_conn_deadline(&session->conn));
	if (!session->info.welcomed)
		return earlier(next, hello_due(session));
	next = earlier(next, ping_due(session));
	return earlier(next, ready_due(session));
}

static void on_timer(uv_timer_t *timer);
static void on_late_hello(evp_session_t *session);

/* Sets the timer where what is next is earlier than what it is set to; a later one is found when it fires. */
static void
set_timer(evp_session_t *session)
{
	uint64_t	now = evp_now(session->proxy);
	uint64_t	next = next_wake(session);

	if (session->closing || (session->wakes_at != 0 && session->wakes_at <= next))
		return;
	session->wakes_at = next;
	uv_timer_start(&session->timer, on_timer, next > now ? next - now : 0, 0);
}

/* Becomes ready when its time has come; true when that changed. */
static bool
update_ready(evp_session_t *session)
{
	if (ready_due(session) > evp_now(session->proxy))
		return false;
	session->info.ready = true;
	return true;
}

static void
on_timer(uv_timer_t *timer)
{
	evp_session_t *session = timer->data;
	const evp_config_t *config = &session->proxy->config;
	uint64_t	now = evp_now(session->proxy);
	char		reason[96];

	session->wakes_at = 0;
	if (session->hello != NULL && evp_guard_ready(session->proxy->guard))
	{
		on_late_hello(session);
		set_timer(session);
		return;
	}
	if (session->finished_at != 0 && now >= session->finished_at + FINISH_MS)
	{
		end_session(session, EVP_LOG_DEBUG, "rejected");
		return;
	}
	if (session->leaving)
	{
		if (now >= left_due(session))
			end_session(session, EVP_LOG_INFO, "this proxy drains, and the bundle does not hang up");
		else
			set_timer(session);
		return;
	}
	if (!session->info.welcomed && session->finished_at == 0 && now >= hello_due(session))
	{
		if (session->left_at != 0)
		{
			end_session(session, EVP_LOG_DEBUG, "this proxy drains");
			return;
		}
		snprintf(reason, sizeof(reason), "no hello within %" PRIu64 " ms", config->hello_timeout);
		end_for_breach(session, reason);
		return;
	}
	if (session->finished_at == 0 && now >= session->conn.last_read + config->idle_timeout)
	{
		snprintf(reason, sizeof(reason), "nothing came for %" PRIu64 " ms", config->idle_timeout);
		end_session(session, EVP_LOG_WARNING, reason);
		return;
	}
	if (evp_wire_check(&session->conn.wire, (int64_t) now) < 0)
	{
		end_for_breach(session, evp_wire_error(&session->conn.wire));
		return;
	}
	if (session->info.welcomed && now >= ping_due(session))
	{
		evp_message_t ping;

		memset(&ping, 0, sizeof(ping));
		ping.type = EVP_PNG;
		ping.has_correlation = true;
		evp_uuid_v4(ping.correlation);
		ping.sequence = ++session->ping_sequence;
		session->last_ping = now;
		send_message(session, &ping);
	}
	if (update_ready(session))
		evp_registry_session_changed(session->proxy->registry, session);
	set_timer(session);
}

/* ---- hello ---- */

/* Says no, and lets the peer hang up: one that is cut off at once may never read why. */
static void
reject(evp_session_t *session, const evp_message_t *hello, const char *code, const char *reason)
{
	evp_message_t rej;

	reply_init(&rej, EVP_REJ, hello);
	rej.code = evp_slice_str(code);
	rej.reason = evp_slice_str(reason);
	send_message(session, &rej);
	if (session->closing)
		return;
	EVP_COUNT(protocol_errors);
	evp_log(EVP_LOG_WARNING, "session", session->peer, "rejected with %s: %s", code, reason);
	session->finished_at = evp_now(session->proxy);
	evp_conn_finish(&session->conn);
	set_timer(session);
}

/* What is wrong with an id, NULL where nothing is. */
static const char *
id_trouble(evp_slice_t id, bool of_bundle)
{
	if (id.p == NULL || id.n == 0)
		return of_bundle ? "bundle id is missing" : "instance id is missing";
	if (id.n > ID_MAX)
		return of_bundle ? "bundle id is longer than 512 bytes" : "instance id is longer than 512 bytes";
	if (memchr(id.p, 0, id.n) != NULL)
		return of_bundle ? "bundle id holds U+0000" : "instance id holds U+0000";
	return NULL;
}

static int64_t
parse_version(evp_slice_t text)
{
	int64_t		n = 0;

	for (size_t i = 0; i < text.n; i++)
	{
		if (text.p[i] < '0' || text.p[i] > '9' || n > INT64_MAX / 10 - 1)
			return 0;
		n = n * 10 + (text.p[i] - '0');
	}
	return n;
}

static void
welcome(evp_session_t *session, const evp_message_t *hello)
{
	evp_proxy_t *proxy = session->proxy;
	evp_message_t wlc;

	session->info.bundle = strndup((const char *) hello->bundle_id.p, hello->bundle_id.n);
	session->info.instance = strndup((const char *) hello->instance_id.p, hello->instance_id.n);
	if (session->info.bundle == NULL || session->info.instance == NULL)
	{
		end_session(session, EVP_LOG_ERROR, "no memory for its name");
		return;
	}
	session->info.bundle_version = parse_version(hello->bundle_version);
	session->info.local_no = ++last_local_no;
	session->info.welcomed = true;
	session->conn.wire.max_frame = EVP_WIRE_MAX_FRAME;
	session->conn.wire.max_message = proxy->config.max_message;
	session->conn.wire.max_held = EVP_WIRE_MAX_HELD;
	session->conn.wire.max_streams = proxy->config.max_chunk_streams;
	snprintf(session->peer, sizeof(session->peer), "%s %.150s/%.150s", session->conn.peer, session->info.bundle,
			 session->info.instance);
	evp_metrics.sessions++;
	EVP_COUNT(sessions_total);
	evp_log(EVP_LOG_INFO, "session", session->peer, "connected, version %" PRId64, session->info.bundle_version);

	reply_init(&wlc, EVP_WLC, hello);
	wlc.protocol_version = EVP_PROTOCOL_VERSION;
	wlc.instance_id = evp_slice_str(proxy->server_instance);
	send_message(session, &wlc);
	if (session->closing)
		return;
	evp_registry_session_welcomed(proxy->registry, session);
	if (session->closing)
		return;
	evp_requests_session_welcomed(proxy->requests, session);
	set_timer(session);
}

/* Why a bundle is not let in, NULL where it is.  Takes note of the token that lets it in. */
static const char *
check_access(evp_session_t *session, evp_slice_t bundle)
{
	evp_access_peer_t peer = {.address = session->address,.bundle = bundle,
	.token_hash = session->has_token ? session->token_hash : NULL,.cert_names = (const char *const *) session->cert_names};

	return evp_guard_check(session->proxy->guard, &peer, &session->info.token);
}

static void
on_hello(evp_session_t *session, const evp_message_t *hello)
{
	const char *trouble;
	char		reason[96];

	if (session->info.welcomed || session->hello != NULL)
	{
		end_for_breach(session, "second hello on one connection");
		return;
	}
	if (session->proxy->draining)
	{
		reject(session, hello, "INTERNAL", "this proxy is about to stop");
		return;
	}
	if (hello->protocol_version != EVP_PROTOCOL_VERSION)
	{
		snprintf(reason, sizeof(reason), "server speaks v%d, client offered v%" PRId64, EVP_PROTOCOL_VERSION,
				 hello->protocol_version);
		reject(session, hello, "PROTOCOL_VERSION", reason);
		return;
	}
	trouble = id_trouble(hello->bundle_id, true);
	if (trouble == NULL)
		trouble = id_trouble(hello->instance_id, false);
	if (trouble != NULL)
	{
		reject(session, hello, "UNKNOWN_BUNDLE", trouble);
		return;
	}
	if (!evp_guard_ready(session->proxy->guard))
	{
		if (hello->blob->len > KEPT_HELLO_MAX)
			reject(session, hello, "INTERNAL", "the access rules are not known yet, and the hello is too long to wait for them");
		else
			session->hello = evp_blob_ref(hello->blob);
		return;
	}
	session->has_token = evp_access_hash(hello->auth_token, session->token_hash);
	free(session->cert_names);
	session->cert_names = evp_conn_cert_names(&session->conn);
	trouble = check_access(session, hello->bundle_id);
	if (trouble != NULL)
		reject(session, hello, "AUTH_FAILED", trouble);
	else
		welcome(session, hello);
}

/* The hello that has waited for the access rules. */
static void
on_late_hello(evp_session_t *session)
{
	evp_blob_t *blob = session->hello;
	evp_message_t hello;
	const char *reason;

	session->hello = NULL;
	if (evp_message_decode(&hello, blob, &reason) < 0)
		end_session(session, EVP_LOG_ERROR, "no memory for its hello");
	else
	{
		on_hello(session, &hello);
		evp_message_free(&hello);
	}
	evp_blob_unref(blob);
}

/* ---- notifications ---- */

/* Does its token allow a bundle a name?  Ends the session where not. */
static bool
may_register(evp_session_t *session, evp_slice_t name)
{
	const evp_access_token_t *token = session->info.token;
	char		text[300];

	if (token == NULL || evp_access_allows(&token->may_register, name))
		return true;
	snprintf(text, sizeof(text), "registers %.*s, which its token does not allow", (int) (name.n > 200 ? 200 : name.n),
			 (const char *) name.p);
	end_for_breach(session, text);
	return false;
}

static void
on_registration(evp_session_t *session, const evp_message_t *ntf)
{
	evp_registration_t registration;
	const char *reason;
	char		text[160];
	char	  **names;
	size_t		count;

	if (evp_registration_parse(&registration, ntf->payload, &reason) < 0)
	{
		snprintf(text, sizeof(text), "unreadable registration: %s", reason);
		end_for_breach(session, text);
		return;
	}
	if (registration.n_names > session->proxy->config.max_names)
	{
		evp_registration_free(&registration);
		end_for_breach(session, "registers more payload names than max-names");
		return;
	}
	for (size_t i = 0; i < registration.n_names; i++)
	{
		if (may_register(session, registration.names[i]))
			continue;
		evp_registration_free(&registration);
		return;
	}
	count = registration.n_names;
	names = calloc(count > 0 ? count : 1, sizeof(*names));
	for (size_t i = 0; names != NULL && i < count; i++)
	{
		names[i] = strndup((const char *) registration.names[i].p, registration.names[i].n);
		if (names[i] == NULL)
			count = i;			/* ends the loop, and tells below */
	}
	free_names(&session->info);
	session->info.names = names;
	session->info.name_count = names != NULL ? count : 0;
	session->info.bundle_version = registration.bundle_version;
	if (session->info.name_count != registration.n_names)
		end_session(session, EVP_LOG_ERROR, "no memory for its payload names");
	else
		evp_registry_session_changed(session->proxy->registry, session);
	evp_registration_free(&registration);
}

static void
on_discovery(evp_session_t *session, const evp_message_t *ntf)
{
	evp_buf_t	json;
	int64_t		version;
	const char *reason;

	/* What it says is for people: a session goes on without it. */
	evp_buf_init(&json, session->proxy->config.max_discovery);
	if (evp_discovery_to_json(&json, ntf->payload, &version, &reason) < 0)
		evp_log(EVP_LOG_WARNING, "session", session->peer, "discovery is left out of the catalogue: %s", reason);
	else
		evp_registry_discovery(session->proxy->registry, session, (const char *) json.data, json.len);
	evp_buf_free(&json);
	if (session->discovered)
		return;
	session->discovered = true;
	session->discovered_at = evp_now(session->proxy);
	if (update_ready(session))
		evp_registry_session_changed(session->proxy->registry, session);
	set_timer(session);
}

static void
on_enable(evp_session_t *session)
{
	if (session->info.enabled)
		return;
	session->info.enabled = true;
	session->enabled_at = evp_now(session->proxy);
	update_ready(session);
	evp_registry_session_changed(session->proxy->registry, session);
	set_timer(session);
}

static void
on_disable(evp_session_t *session)
{
	if (!session->info.enabled)
		return;
	session->info.enabled = false;
	session->info.ready = false;
	evp_registry_session_changed(session->proxy->registry, session);
	evp_feed_session_changed(session->proxy->feed, session);
}

/* The bundle has written its discovery, since it has written something behind it. */
static void
settle(evp_session_t *session)
{
	if (!session->discovered || session->settled)
		return;
	session->settled = true;
	if (update_ready(session))
		evp_registry_session_changed(session->proxy->registry, session);
}

static void
on_admin_notification(evp_session_t *session, const evp_message_t *ntf)
{
	evp_proxy_t *proxy = session->proxy;
	evp_notice_t notice;
	const char *reason;

	/* Nothing but statistics depends on them: a session goes on whatever they are. */
	if (evp_notice_parse(&notice, ntf->payload, &reason) < 0)
	{
		evp_log(EVP_LOG_DEBUG, "session", session->peer, "unreadable admin notification: %s", reason);
		EVP_COUNT(telemetry_dropped);
		return;
	}
	evp_telemetry_notice(proxy->telemetry, session, &notice);
	evp_reports_notice(proxy->reports, session, &notice);
	if (notice.kind == EVP_NOTICE_CONSUMERS)
		settle(session);
	evp_notice_free(&notice);
}

static void
on_notification(evp_session_t *session, const evp_message_t *ntf)
{
	EVP_COUNT(notifications);
	/* Who leaves registers where it goes next. */
	if (!session->info.welcomed || session->leaving)
		return;
	if (evp_slice_is(ntf->payload_type, "evento:bundle-admin-notification"))
		on_admin_notification(session, ntf);
	else if (evp_slice_is(ntf->payload_type, "evento:bundle-registration"))
		on_registration(session, ntf);
	else if (evp_slice_is(ntf->payload_type, "evento:bundle-discovery"))
		on_discovery(session, ntf);
	else if (evp_slice_is(ntf->payload_type, "evento:enable"))
		on_enable(session);
	else if (evp_slice_is(ntf->payload_type, "evento:disable"))
		on_disable(session);
}

/* ---- messages ---- */

static void
on_request(evp_session_t *session, evp_message_t *req)
{
	evp_message_t rsp;

	if (!req->has_correlation)
	{
		end_for_breach(session, "request without correlationId");
		return;
	}
	if (session->info.welcomed)
	{
		settle(session);
		if (!session->closing)
			evp_requests_request(session->proxy->requests, session, req);
		return;
	}
	reply_init(&rsp, EVP_RSP, req);
	rsp.has_failure = true;
	rsp.failure_class = evp_slice_str(EVP_EX_STATE);
	rsp.failure_message = evp_slice_str("handshake required before requests");
	EVP_COUNT(failures);
	send_message(session, &rsp);
}

static void
on_response(evp_session_t *session, const evp_message_t *rsp)
{
	if (session->info.welcomed && rsp->has_correlation && evp_asks_response(session->proxy->asks, session, rsp))
		return;
	if (session->info.welcomed && rsp->has_correlation)
		evp_router_response(session->proxy->router, session, rsp);
	else
		EVP_COUNT(responses_unmatched);
}

static void
on_ping(evp_session_t *session, const evp_message_t *ping)
{
	evp_message_t pong;

	reply_init(&pong, EVP_PON, ping);
	pong.sequence = ping->sequence;
	pong.origin_timestamp_ms = ping->timestamp_ms;
	send_message(session, &pong);
}

static void
on_message(evp_conn_t *conn, evp_blob_t *blob)
{
	evp_session_t *session = SESSION_OF(conn);
	evp_message_t message;
	const char *reason;
	char		text[160];

	if (evp_message_decode(&message, blob, &reason) < 0)
	{
		snprintf(text, sizeof(text), "unreadable message: %s", reason);
		end_for_breach(session, text);
		return;
	}
	switch (message.type)
	{
		case EVP_HEL:
			on_hello(session, &message);
			break;
		case EVP_PNG:
			on_ping(session, &message);
			break;
		case EVP_PON:
			break;
		case EVP_REQ:
			on_request(session, &message);
			break;
		case EVP_RSP:
			on_response(session, &message);
			break;
		case EVP_NTF:
			on_notification(session, &message);
			break;
		case EVP_WLC:
		case EVP_REJ:
			snprintf(text, sizeof(text), "%s from a bundle", evp_message_name(message.type));
			end_for_breach(session, text);
			break;
	}
	evp_message_free(&message);
}

static void
on_unfinished(evp_conn_t *conn)
{
	set_timer(SESSION_OF(conn));
}

static void
on_broken(evp_conn_t *conn, const char *reason, bool breach)
{
	evp_session_t *session = SESSION_OF(conn);

	if (session->finished_at != 0)
		end_session(session, EVP_LOG_DEBUG, reason);	/* why was logged when it was rejected */
	else if (session->leaving && !breach)
	{
		/* It has hung up behind the last that was sent to it. */
		if (evp_conn_has_left(conn))
			evp_requests_session_read(session->proxy->requests, session);
		end_session(session, EVP_LOG_INFO, "this proxy drains");
	}
	else if (breach)
		end_for_breach(session, reason);
	else
		end_session(session, EVP_LOG_INFO, reason);
}

static const evp_conn_callbacks_t conn_callbacks = {on_message, on_unfinished, on_broken, on_conn_closed};

static void
note_address(evp_session_t *session)
{
	struct sockaddr_storage address;
	int			len = sizeof(address);

	if (uv_tcp_getpeername(&session->conn.tcp, (struct sockaddr *) &address, &len) == 0)
		evp_access_address(&session->address, (struct sockaddr *) &address);
}

int
evp_session_accept(evp_proxy_t *proxy, evp_hub_t *hub, uv_stream_t *listener)
{
	evp_session_t *session = calloc(1, sizeof(*session));
	int			rc;

	if (session == NULL)
		return UV_ENOMEM;
	session->proxy = proxy;
	session->pins = 2;
	session->accepted_at = evp_now(proxy);
	/* Only sets fields, so it cannot fail. */
	uv_timer_init(proxy->loop, &session->timer);
	session->timer.data = session;
	rc = evp_conn_accept(&session->conn, hub, listener, &conn_callbacks);
	snprintf(session->peer, sizeof(session->peer), "%s", session->conn.peer);
	note_address(session);
	if (rc < 0)
	{
		end_session(session, EVP_LOG_DEBUG, uv_strerror(rc));
		return rc;
	}
	session->conn.wire.max_frame = STRANGER_FRAME_MAX;
	session->conn.wire.max_message = STRANGER_FRAME_MAX;
	session->conn.wire.max_held = STRANGER_FRAME_MAX;
	session->conn.wire.max_streams = STRANGER_STREAMS;
	session->conn.wire.timeout_ms = (int64_t) proxy->config.frame_timeout;
	session->conn.wire.stream_timeout_ms = (int64_t) proxy->config.chunk_timeout;
	set_timer(session);
	return 0;
}

/* Lets a bundle go, so that nothing is lost: it gets what is queued for it and then the end of the stream, and what it
 * had written by then is still taken. */
static void
leave(evp_session_t *session)
{
	if (session->closing || session->left_at != 0)
		return;
	session->left_at = evp_now(session->proxy);
	if (!session->info.welcomed)
	{
		set_timer(session);
		return;
	}
	session->leaving = true;
	evp_log(EVP_LOG_DEBUG, "session", session->peer, "is let go");
	evp_conn_leave(&session->conn);
	take_out(session);
	set_timer(session);
}

void
evp_session_leave_all(evp_hub_t *hub)
{
	evp_conn_t *next;

	for (evp_conn_t *conn = hub->conns; conn != NULL; conn = next)
	{
		next = conn->next;
		leave(SESSION_OF(conn));
	}
}

void
evp_session_access_changed(evp_hub_t *hub)
{
	evp_conn_t *next;

	for (evp_conn_t *conn = hub->conns; conn != NULL; conn = next)
	{
		evp_session_t *session = SESSION_OF(conn);
		bool		limited = session->info.token != NULL;
		const char *why;

		next = conn->next;
		if (session->hello != NULL)
		{
			/* Not from within: it may supersede the one that is next. */
			session->wakes_at = evp_now(session->proxy);
			uv_timer_start(&session->timer, on_timer, 0, 0);
			continue;
		}
		if (!session->info.welcomed)
			continue;
		why = check_access(session, evp_slice_str(session->info.bundle));
		if (why != NULL)
			end_session(session, EVP_LOG_WARNING, why);
		/* What it registered while it was trusted. */
		for (size_t i = 0; !limited && i < session->info.name_count; i++)
		{
			if (!may_register(session, evp_slice_str(session->info.names[i])))
				break;
		}
	}
}

void
evp_session_close_all(evp_hub_t *hub, const char *reason)
{
	while (hub->conns != NULL)
		evp_session_close(SESSION_OF(hub->conns), reason);
}
