/*
 * session.c
 *    The life of a bundle's connection: accepted, waited for, let go, ended.
 *
 *    A session ends in evp_session_end and nowhere else.  Its memory lives
 *    until both of its handles (the connection's and the timer) are closed.
 */
#include "session_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asks.h"
#include "feed.h"
#include "guard.h"
#include "metrics.h"
#include "registry.h"
#include "requests.h"
#include "server.h"
#include "uuid.h"

#define FINISH_MS	1000	/* for a peer that was rejected to hang up by itself */
#define LOOK_MS		1		/* to read what has come while this process stood still */

/* Before a hello nobody needs more. */
#define STRANGER_FRAME_MAX	((size_t) 1024 * 1024)
#define STRANGER_STREAMS	1

#define SESSION_OF(conn_) ((evp_session_t *) ((char *) (conn_) - offsetof(evp_session_t, conn)))

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

void
evp_session_free_names(evp_session_info_t *info)
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
	evp_session_free_names(&session->info);
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

void
evp_session_end(evp_session_t *session, evp_log_level_t level, const char *reason)
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

void
evp_session_end_breach(evp_session_t *session, const char *reason)
{
	if (!session->closing)
		EVP_COUNT(protocol_errors);
	evp_session_end(session, EVP_LOG_WARNING, reason);
}

void
evp_session_close(evp_session_t *session, const char *reason)
{
	evp_session_end(session, EVP_LOG_INFO, reason);
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

void
evp_session_say(evp_session_t *session, evp_message_t *message)
{
	evp_parts_t parts;

	message->timestamp_ms = evp_wall_ms();
	if (!evp_message_pack(&parts, message))
	{
		evp_session_end(session, EVP_LOG_ERROR, "no memory for a message to it");
		return;
	}
	evp_conn_send(&session->conn, &parts);
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

/* When a peer that does not hang up, though nothing moves on its connection any more, is waited for no longer.  It may stand
 * still for a moment, and write before it reads that it is let go; what it asks then needs some of the time, too. */
static uint64_t
left_due(const evp_session_t *session)
{
	uint64_t	moved = session->conn.last_write > session->conn.last_read ? session->conn.last_write : session->conn.last_read;
	uint64_t	patience = session->proxy->config.drain_time / 4;

	return (moved > session->left_at ? moved : session->left_at) + (patience > FINISH_MS ? patience : FINISH_MS);
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

void
evp_session_set_timer(evp_session_t *session)
{
	uint64_t	now = evp_now(session->proxy);
	uint64_t	next = next_wake(session);

	if (session->closing || (session->wakes_at != 0 && session->wakes_at <= next))
		return;
	session->wakes_at = next;
	uv_timer_start(&session->timer, on_timer, next > now ? next - now : 0, 0);
}

bool
evp_session_update_ready(evp_session_t *session)
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
		evp_session_late_hello(session);
		evp_session_set_timer(session);
		return;
	}
	if (session->finished_at != 0 && now >= session->finished_at + FINISH_MS)
	{
		evp_session_end(session, EVP_LOG_DEBUG, "rejected");
		return;
	}
	if (session->leaving)
	{
		/* Where this process stood still for so long, what the bundle has written lies unread in the socket. */
		if (now >= left_due(session) && session->looked_at != session->conn.last_read)
		{
			session->looked_at = session->conn.last_read;
			session->wakes_at = now + LOOK_MS;
			uv_timer_start(&session->timer, on_timer, LOOK_MS, 0);
		}
		else if (now >= left_due(session))
			evp_session_end(session, EVP_LOG_INFO, "this proxy drains, and the bundle does not hang up");
		else
			evp_session_set_timer(session);
		return;
	}
	if (!session->info.welcomed && session->finished_at == 0 && now >= hello_due(session))
	{
		if (session->left_at != 0)
		{
			evp_session_end(session, EVP_LOG_DEBUG, "this proxy drains");
			return;
		}
		snprintf(reason, sizeof(reason), "no hello within %" PRIu64 " ms", config->hello_timeout);
		evp_session_end_breach(session, reason);
		return;
	}
	if (session->finished_at == 0 && now >= session->conn.last_read + config->idle_timeout)
	{
		snprintf(reason, sizeof(reason), "nothing came for %" PRIu64 " ms", config->idle_timeout);
		evp_session_end(session, EVP_LOG_WARNING, reason);
		return;
	}
	if (evp_wire_check(&session->conn.wire, (int64_t) now) < 0)
	{
		evp_session_end_breach(session, evp_wire_error(&session->conn.wire));
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
		evp_session_say(session, &ping);
	}
	if (evp_session_update_ready(session))
		evp_registry_session_changed(session->proxy->registry, session);
	evp_session_set_timer(session);
}

/* ---- the connection ---- */

static void
on_message(evp_conn_t *conn, evp_blob_t *blob)
{
	evp_session_message(SESSION_OF(conn), blob);
}

static void
on_unfinished(evp_conn_t *conn)
{
	evp_session_set_timer(SESSION_OF(conn));
}

static void
on_broken(evp_conn_t *conn, const char *reason, bool breach)
{
	evp_session_t *session = SESSION_OF(conn);

	if (session->finished_at != 0)
		evp_session_end(session, EVP_LOG_DEBUG, reason);	/* why was logged when it was rejected */
	else if (session->leaving && !breach)
	{
		/* It has hung up behind the last that was sent to it. */
		if (evp_conn_has_left(conn))
			evp_requests_session_read(session->proxy->requests, session);
		evp_session_end(session, EVP_LOG_INFO, "this proxy drains");
	}
	else if (breach)
		evp_session_end_breach(session, reason);
	else
		evp_session_end(session, EVP_LOG_INFO, reason);
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
		evp_session_end(session, EVP_LOG_DEBUG, uv_strerror(rc));
		return rc;
	}
	session->conn.wire.max_frame = STRANGER_FRAME_MAX;
	session->conn.wire.max_message = STRANGER_FRAME_MAX;
	session->conn.wire.max_held = STRANGER_FRAME_MAX;
	session->conn.wire.max_streams = STRANGER_STREAMS;
	session->conn.wire.timeout_ms = (int64_t) proxy->config.frame_timeout;
	session->conn.wire.stream_timeout_ms = (int64_t) proxy->config.chunk_timeout;
	evp_session_set_timer(session);
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
		evp_session_set_timer(session);
		return;
	}
	session->leaving = true;
	evp_log(EVP_LOG_DEBUG, "session", session->peer, "is let go");
	evp_conn_leave(&session->conn);
	take_out(session);
	evp_session_set_timer(session);
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

		next = conn->next;
		if (session->hello != NULL)
		{
			/* Not from within: it may supersede the one that is next. */
			session->wakes_at = evp_now(session->proxy);
			uv_timer_start(&session->timer, on_timer, 0, 0);
			continue;
		}
		if (session->info.welcomed)
			evp_session_check_again(session);
	}
}

void
evp_session_close_all(evp_hub_t *hub, const char *reason)
{
	while (hub->conns != NULL)
		evp_session_close(SESSION_OF(hub->conns), reason);
}
