/*
 * session_state.h
 *    What the parts of session.h share: one session and what ends it, what it
 *    waits for, and what its bundle has said.
 *
 * session.c            its life: accepted, waited for, let go, ended
 * session_messages.c   what its bundle says
 */
#ifndef EVP_SESSION_STATE_H
#define EVP_SESSION_STATE_H

#include <uv.h>

#include "conn.h"
#include "log.h"
#include "session.h"

#define EVP_SESSION_PEER_MAX	400

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
	uint64_t	looked_at;		/* what had been read last when its socket was looked at before it is given up */
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
	char		peer[EVP_SESSION_PEER_MAX];	/* for the log */
};

/* ---- session.c ---- */

/* The one way in which a session ends. */
void evp_session_end(evp_session_t *session, evp_log_level_t level, const char *reason);

/* Ends a session whose peer broke the protocol. */
void evp_session_end_breach(evp_session_t *session, const char *reason);

/* Encodes and sends a small message of our own. */
void evp_session_say(evp_session_t *session, evp_message_t *message);

/* Sets the timer where what is next is earlier than what it is set to; a later one is found when it fires. */
void evp_session_set_timer(evp_session_t *session);

/* Becomes ready when its time has come; true when that changed. */
bool evp_session_update_ready(evp_session_t *session);

void evp_session_free_names(evp_session_info_t *info);

/* ---- session_messages.c ---- */

void evp_session_message(evp_session_t *session, evp_blob_t *blob);

/* The hello that has waited for the access rules. */
void evp_session_late_hello(evp_session_t *session);

/* Ends a welcomed session that the access rules, which have changed, do not let in, or not with the names it has. */
void evp_session_check_again(evp_session_t *session);

#endif							/* EVP_SESSION_STATE_H */
