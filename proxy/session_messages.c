/*
 * session_messages.c
 *    What a bundle says: its hello and whether it lets it in, what it
 *    registers, its requests and answers.
 */
#include "session_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asks.h"
#include "discovery.h"
#include "feed.h"
#include "guard.h"
#include "metrics.h"
#include "notice.h"
#include "registry.h"
#include "reports.h"
#include "requests.h"
#include "router.h"
#include "telemetry.h"

#define ID_MAX			512		/* bytes of a bundle id and of an instance id */
#define KEPT_HELLO_MAX	((size_t) 16 * 1024)	/* of one that waits for the access rules: there may be as many as connections */

static uint64_t last_local_no;

static void
reply_init(evp_message_t *reply, evp_message_type_t type, const evp_message_t *to)
{
	memset(reply, 0, sizeof(*reply));
	reply->type = type;
	reply->has_correlation = to->has_correlation;
	memcpy(reply->correlation, to->correlation, sizeof(reply->correlation));
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
	evp_session_say(session, &rej);
	if (session->closing)
		return;
	EVP_COUNT(protocol_errors);
	evp_log(EVP_LOG_WARNING, "session", session->peer, "rejected with %s: %s", code, reason);
	session->finished_at = evp_now(session->proxy);
	evp_conn_finish(&session->conn);
	evp_session_set_timer(session);
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
		evp_session_end(session, EVP_LOG_ERROR, "no memory for its name");
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
	evp_session_say(session, &wlc);
	if (session->closing)
		return;
	evp_registry_session_welcomed(proxy->registry, session);
	if (session->closing)
		return;
	evp_requests_session_welcomed(proxy->requests, session);
	evp_session_set_timer(session);
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
		evp_session_end_breach(session, "second hello on one connection");
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

void
evp_session_late_hello(evp_session_t *session)
{
	evp_blob_t *blob = session->hello;
	evp_message_t hello;
	const char *reason;

	session->hello = NULL;
	if (evp_message_decode(&hello, blob, &reason) < 0)
		evp_session_end(session, EVP_LOG_ERROR, "no memory for its hello");
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
	evp_session_end_breach(session, text);
	return false;
}

void
evp_session_check_again(evp_session_t *session)
{
	bool		limited = session->info.token != NULL;
	const char *why = check_access(session, evp_slice_str(session->info.bundle));

	if (why != NULL)
		evp_session_end(session, EVP_LOG_WARNING, why);
	/* What it registered while it was trusted. */
	for (size_t i = 0; !limited && i < session->info.name_count; i++)
	{
		if (!may_register(session, evp_slice_str(session->info.names[i])))
			break;
	}
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
		evp_session_end_breach(session, text);
		return;
	}
	if (registration.n_names > session->proxy->config.max_names)
	{
		evp_registration_free(&registration);
		evp_session_end_breach(session, "registers more payload names than max-names");
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
	evp_session_free_names(&session->info);
	session->info.names = names;
	session->info.name_count = names != NULL ? count : 0;
	session->info.bundle_version = registration.bundle_version;
	if (session->info.name_count != registration.n_names)
		evp_session_end(session, EVP_LOG_ERROR, "no memory for its payload names");
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
	if (evp_session_update_ready(session))
		evp_registry_session_changed(session->proxy->registry, session);
	evp_session_set_timer(session);
}

static void
on_enable(evp_session_t *session)
{
	if (session->info.enabled)
		return;
	session->info.enabled = true;
	session->enabled_at = evp_now(session->proxy);
	evp_session_update_ready(session);
	evp_registry_session_changed(session->proxy->registry, session);
	evp_session_set_timer(session);
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
	if (evp_session_update_ready(session))
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
		evp_session_end_breach(session, "request without correlationId");
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
	evp_session_say(session, &rsp);
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
	evp_session_say(session, &pong);
}

void
evp_session_message(evp_session_t *session, evp_blob_t *blob)
{
	evp_message_t message;
	const char *reason;
	char		text[160];

	if (evp_message_decode(&message, blob, &reason) < 0)
	{
		snprintf(text, sizeof(text), "unreadable message: %s", reason);
		evp_session_end_breach(session, text);
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
			evp_session_end_breach(session, text);
			break;
	}
	evp_message_free(&message);
}
