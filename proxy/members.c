/*
 * members.c
 *    See members.h.
 */
#include "members.h"

#include <stdlib.h>
#include <string.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>

#define AVOID_FIRST_MS 1000

/* An instance as it is kept: the public part comes first, so that a pointer to it is a pointer to this. */
typedef struct evp_entry
{
	evp_instance_t pub;
	char	   *key;			/* bundle, zero byte, instance */
	size_t		key_len;
	UT_hash_handle hh;
} evp_entry_t;

typedef struct evp_peer_entry
{
	evp_peer_t	pub;
	UT_hash_handle hh;
} evp_peer_entry_t;

/* The instances that registered a name. */
typedef struct evp_name
{
	char	   *name;
	evp_instance_t **list;
	size_t		n;
	size_t		cap;
	UT_hash_handle hh;
} evp_name_t;

struct evp_members
{
	evp_members_events_t events;
	void	   *arg;
	uint64_t	cut_ms;
	uint64_t	avoid_ms;
	uint64_t	picture;		/* counts the merges */
	uint64_t	picks;			/* counts the choices */
	bool		changed;		/* in the call that is running */
	evp_entry_t *entries;
	evp_peer_entry_t *peers;
	evp_name_t *names;
};

static void *
must(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

/* Ends a call of this module: says once that something has changed. */
static void
settle(evp_members_t *m)
{
	if (m->changed)
	{
		m->changed = false;
		m->events.on_changed(m->arg);
	}
}

/* ---- names ---- */

static void
index_name(evp_members_t *m, evp_instance_t *i, const char *name)
{
	evp_name_t *e;
	size_t		len = strlen(name);

	HASH_FIND(hh, m->names, name, len, e);
	if (e == NULL)
	{
		e = must(calloc(1, sizeof *e));
		e->name = must(strdup(name));
		HASH_ADD_KEYPTR(hh, m->names, e->name, len, e);
	}
	/* An instance's names are entered in one go: where it named one twice, it is the last of that list. */
	if (e->n > 0 && e->list[e->n - 1] == i)
		return;
	if (e->n == e->cap)
	{
		e->cap = e->cap == 0 ? 2 : e->cap * 2;
		e->list = must(realloc(e->list, e->cap * sizeof *e->list));
	}
	e->list[e->n++] = i;
}

static void
free_name(evp_members_t *m, evp_name_t *e)
{
	HASH_DEL(m->names, e);
	free(e->list);
	free(e->name);
	free(e);
}

static void
unindex_name(evp_members_t *m, evp_instance_t *i, const char *name)
{
	evp_name_t *e;

	HASH_FIND(hh, m->names, name, strlen(name), e);
	if (e == NULL)
		return;
	for (size_t k = 0; k < e->n; k++)
	{
		if (e->list[k] == i)
		{
			e->list[k] = e->list[--e->n];
			break;
		}
	}
	if (e->n == 0)
		free_name(m, e);
}

static void
drop_names(evp_members_t *m, evp_instance_t *i)
{
	for (size_t k = 0; k < i->name_count; k++)
	{
		unindex_name(m, i, i->names[k]);
		free(i->names[k]);
	}
	free(i->names);
	i->names = NULL;
	i->name_count = 0;
}

static void
set_names(evp_members_t *m, evp_instance_t *i, const char *const *names, size_t n)
{
	bool		same = n == i->name_count;

	for (size_t k = 0; same && k < n; k++)
		same = strcmp(names[k], i->names[k]) == 0;
	if (same)
		return;
	drop_names(m, i);
	if (n > 0)
		i->names = must(calloc(n, sizeof *i->names));
	for (size_t k = 0; k < n; k++)
	{
		i->names[k] = must(strdup(names[k]));
		index_name(m, i, i->names[k]);
	}
	i->name_count = n;
	m->changed = true;
}

/* ---- instances ---- */

/* The key of an instance; the caller frees it. */
static char *
make_key(const char *bundle, const char *instance, size_t *len)
{
	size_t		b = strlen(bundle);
	size_t		i = strlen(instance);
	char	   *key = must(malloc(b + 1 + i));

	memcpy(key, bundle, b + 1);
	memcpy(key + b + 1, instance, i);
	*len = b + 1 + i;
	return key;
}

static evp_entry_t *
find_entry(evp_members_t *m, const char *bundle, const char *instance)
{
	evp_entry_t *e;
	size_t		len;
	char	   *key = make_key(bundle, instance, &len);

	HASH_FIND(hh, m->entries, key, len, e);
	free(key);
	return e;
}

static evp_entry_t *
make_entry(evp_members_t *m, const char *bundle, const char *instance)
{
	evp_entry_t *e = must(calloc(1, sizeof *e));

	e->pub.bundle = must(strdup(bundle));
	e->pub.instance = must(strdup(instance));
	e->key = make_key(bundle, instance, &e->key_len);
	HASH_ADD_KEYPTR(hh, m->entries, e->key, e->key_len, e);
	m->changed = true;
	return e;
}

static void
free_entry(evp_members_t *m, evp_entry_t *e)
{
	drop_names(m, &e->pub);
	HASH_DEL(m->entries, e);
	free(e->pub.bundle);
	free(e->pub.instance);
	free(e->key);
	free(e);
}

static void
set_state(evp_members_t *m, evp_instance_t *i, evp_instance_state_t state)
{
	if (i->state != state)
	{
		i->state = state;
		m->changed = true;
	}
}

/* The session of an instance has ended, or cannot be reached. */
static void
cut(evp_members_t *m, evp_instance_t *i, uint64_t now)
{
	if (i->state == EVP_INSTANCE_CUT)
		return;
	set_state(m, i, EVP_INSTANCE_CUT);
	i->cut_at = now;
	m->events.on_cut(m->arg, i);
}

static void
lose_up_to(evp_instance_t *i, int64_t session_no)
{
	if (session_no > i->lost_no)
		i->lost_no = session_no;
}

/* ---- proxies ---- */

static evp_peer_entry_t *
find_peer(evp_members_t *m, int64_t proxy_id)
{
	evp_peer_entry_t *p;

	HASH_FIND(hh, m->peers, &proxy_id, sizeof proxy_id, p);
	return p;
}

static evp_peer_entry_t *
make_peer(evp_members_t *m, int64_t proxy_id)
{
	evp_peer_entry_t *p = must(calloc(1, sizeof *p));

	p->pub.proxy_id = proxy_id;
	HASH_ADD(hh, m->peers, pub.proxy_id, sizeof p->pub.proxy_id, p);
	m->changed = true;
	return p;
}

static void
free_peer(evp_members_t *m, evp_peer_entry_t *p)
{
	HASH_DEL(m->peers, p);
	free(p->pub.internal);
	free(p);
	m->changed = true;
}

static void
cut_all_at(evp_members_t *m, int64_t proxy_id, uint64_t now)
{
	for (evp_entry_t *e = m->entries; e != NULL; e = e->hh.next)
	{
		if (e->pub.session == NULL && e->pub.proxy_id == proxy_id)
			cut(m, &e->pub, now);
	}
}

/* Has its link been broken for so long that nobody waits for its instances any more? */
static bool
given_up(const evp_members_t *m, const evp_peer_t *p, uint64_t now)
{
	return p->lost && now - p->lost_at >= m->cut_ms;
}

/* ---- life ---- */

evp_members_t *
evp_members_new(const evp_members_events_t *events, void *arg, uint64_t cut_ms, uint64_t avoid_ms)
{
	evp_members_t *m = must(calloc(1, sizeof *m));

	m->events = *events;
	m->arg = arg;
	m->cut_ms = cut_ms;
	m->avoid_ms = avoid_ms;
	return m;
}

void
evp_members_free(evp_members_t *m)
{
	evp_entry_t *e,
			   *next_entry;
	evp_peer_entry_t *p,
			   *next_peer;

	if (m == NULL)
		return;
	HASH_ITER(hh, m->entries, e, next_entry)
		free_entry(m, e);
	HASH_ITER(hh, m->peers, p, next_peer)
		free_peer(m, p);
	free(m);
}

/* ---- sessions here ---- */

void
evp_members_open(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, uint64_t now,
				 evp_session_t **older)
{
	evp_entry_t *e = find_entry(m, bundle, instance);
	evp_instance_t *i;

	*older = NULL;
	if (e == NULL)
		e = make_entry(m, bundle, instance);
	i = &e->pub;
	if (i->session == session)
		return;
	*older = i->session;
	lose_up_to(i, i->session_no);
	i->session = session;
	i->proxy_id = 0;
	i->session_no = 0;
	i->enabled = false;
	evp_members_answered(i);
	/* What it was asked on its last session is asked again on this one. */
	cut(m, i, now);
	set_state(m, i, EVP_INSTANCE_WAITING);
	settle(m);
}

void
evp_members_set(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, bool ready,
				char *const *names, size_t name_count)
{
	evp_entry_t *e = find_entry(m, bundle, instance);

	if (e == NULL || e->pub.session != session)
		return;
	set_names(m, &e->pub, (const char *const *) names, name_count);
	set_state(m, &e->pub, ready ? EVP_INSTANCE_READY : EVP_INSTANCE_WAITING);
	settle(m);
}

void
evp_members_number(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, int64_t session_no)
{
	evp_entry_t *e = find_entry(m, bundle, instance);

	if (e != NULL && e->pub.session == session)
		e->pub.session_no = session_no;
}

void
evp_members_close(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, uint64_t now)
{
	evp_entry_t *e = find_entry(m, bundle, instance);

	if (e == NULL || e->pub.session != session)
		return;
	lose_up_to(&e->pub, e->pub.session_no);
	e->pub.session = NULL;
	cut(m, &e->pub, now);
	settle(m);
}

/* ---- pictures ---- */

/* A session that is new to its instance takes the place of what there was. */
static void
place(evp_members_t *m, evp_instance_t *i, const evp_member_row_t *row, const evp_peer_t *peer, uint64_t now)
{
	bool		moved = i->session_no != row->session_no || i->session != NULL;

	if (moved)
	{
		lose_up_to(i, i->session_no);
		evp_members_answered(i);
	}
	i->session = NULL;
	i->proxy_id = row->proxy_id;
	i->session_no = row->session_no;
	cut(m, i, now);
	if (!peer->lost)
		set_state(m, i, row->enabled ? EVP_INSTANCE_READY : EVP_INSTANCE_WAITING);
	if (moved)
		m->events.on_moved(m->arg, i);
}

static void
merge_session(evp_members_t *m, const evp_member_row_t *row, const evp_peer_t *peer, uint64_t now,
			  evp_superseded_cb on_superseded)
{
	evp_entry_t *e = find_entry(m, row->bundle, row->instance);
	evp_peer_entry_t *known;
	evp_session_t *local;
	evp_instance_t *i;

	if (e == NULL)
	{
		if (given_up(m, peer, now))
			return;
		e = make_entry(m, row->bundle, row->instance);
		/* Nothing was asked of it: being placed cuts nothing. */
		e->pub.state = EVP_INSTANCE_CUT;
		e->pub.cut_at = now;
	}
	i = &e->pub;
	local = i->session;
	if (local != NULL && (i->session_no == 0 || row->session_no <= i->session_no))
		return;
	if (row->session_no <= i->lost_no || row->session_no < i->session_no)
		return;
	i->seen = m->picture;
	/* The same session at two numbers of one process: a picture may be older than what the link to it told. */
	known = find_peer(m, i->proxy_id);
	if (row->session_no == i->session_no && row->proxy_id != i->proxy_id && known != NULL && known->pub.linked && !peer->linked)
		return;
	if (local != NULL || row->session_no != i->session_no || row->proxy_id != i->proxy_id)
		place(m, i, row, peer, now);
	else if (!peer->lost)
		set_state(m, i, row->enabled ? EVP_INSTANCE_READY : EVP_INSTANCE_WAITING);
	i->enabled = row->enabled;
	/* One that has said hello and not registered yet keeps the names of before: calls wait for it. */
	if (row->name_count > 0 || row->enabled)
		set_names(m, i, row->names, row->name_count);
	if (local != NULL)
		on_superseded(m->arg, local, row->proxy_id);
}

static void
merge_proxy(evp_members_t *m, const evp_member_row_t *row)
{
	evp_peer_entry_t *p = find_peer(m, row->proxy_id);

	if (p == NULL)
		p = make_peer(m, row->proxy_id);
	if (p->pub.internal == NULL || strcmp(p->pub.internal, row->internal) != 0)
	{
		free(p->pub.internal);
		p->pub.internal = must(strdup(row->internal));
		m->changed = true;
	}
	p->pub.seen = m->picture;
	p->pub.missing_at = 0;
}

void
evp_members_merge(evp_members_t *m, int64_t self, const evp_member_row_t *rows, size_t n, uint64_t now,
				  evp_superseded_cb on_superseded)
{
	evp_peer_entry_t *p,
			   *next_peer;

	m->picture++;
	for (size_t k = 0; k < n; k++)
	{
		if (rows[k].proxy_id != self)
			merge_proxy(m, &rows[k]);
	}
	for (size_t k = 0; k < n; k++)
	{
		if (rows[k].proxy_id != self && rows[k].session_no != 0)
			merge_session(m, &rows[k], &find_peer(m, rows[k].proxy_id)->pub, now, on_superseded);
	}
	for (evp_entry_t *e = m->entries; e != NULL; e = e->hh.next)
	{
		evp_instance_t *i = &e->pub;

		if (i->session != NULL || i->state == EVP_INSTANCE_CUT || i->seen == m->picture)
			continue;
		p = find_peer(m, i->proxy_id);
		/* A proxy that a link reaches may have lost the database alone: see evp_members_expire. */
		if (p != NULL && p->pub.seen != m->picture && p->pub.linked)
			continue;
		if (p != NULL && p->pub.seen == m->picture)
			lose_up_to(i, i->session_no);
		cut(m, i, now);
	}
	HASH_ITER(hh, m->peers, p, next_peer)
	{
		if (p->pub.seen == m->picture)
			continue;
		if (!p->pub.linked)
			free_peer(m, p);
		else if (p->pub.missing_at == 0)
			p->pub.missing_at = now;
	}
	settle(m);
}

bool
evp_members_expire(evp_members_t *m, uint64_t now, uint64_t seen_at)
{
	evp_entry_t *e,
			   *next_entry;
	evp_peer_entry_t *p,
			   *next_peer;
	bool		waits = false;

	HASH_ITER(hh, m->peers, p, next_peer)
	{
		if (p->pub.missing_at == 0 || now - p->pub.missing_at < m->cut_ms)
			continue;
		cut_all_at(m, p->pub.proxy_id, now);
		free_peer(m, p);
	}
	HASH_ITER(hh, m->entries, e, next_entry)
	{
		if (e->pub.state != EVP_INSTANCE_CUT || now - e->pub.cut_at < m->cut_ms)
			continue;
		if (seen_at < e->pub.cut_at + m->cut_ms)
		{
			waits = true;
			continue;
		}
		m->events.on_gone(m->arg, &e->pub);
		free_entry(m, e);
		m->changed = true;
	}
	settle(m);
	return waits;
}

/* ---- links ---- */

void
evp_members_proxy_found(evp_members_t *m, int64_t proxy_id)
{
	evp_peer_entry_t *p = find_peer(m, proxy_id);

	if (p == NULL)
		return;
	p->pub.linked = true;
	p->pub.lost = false;
	for (evp_entry_t *e = m->entries; e != NULL; e = e->hh.next)
	{
		evp_instance_t *i = &e->pub;

		if (i->session == NULL && i->proxy_id == proxy_id && i->state == EVP_INSTANCE_CUT && i->session_no > i->lost_no)
			set_state(m, i, i->enabled ? EVP_INSTANCE_READY : EVP_INSTANCE_WAITING);
	}
	settle(m);
}

void
evp_members_proxy_lost(evp_members_t *m, int64_t proxy_id, uint64_t now)
{
	evp_peer_entry_t *p = find_peer(m, proxy_id);

	cut_all_at(m, proxy_id, now);
	if (p != NULL)
	{
		if (!p->pub.lost)
			p->pub.lost_at = now;
		p->pub.lost = true;
		p->pub.linked = false;
		if (p->pub.missing_at != 0)
			free_peer(m, p);
	}
	settle(m);
}

void
evp_members_proxy_renamed(evp_members_t *m, int64_t from, int64_t to)
{
	evp_peer_entry_t *p = find_peer(m, from);
	evp_peer_entry_t *known = find_peer(m, to);

	if (p == NULL || from == to)
		return;
	for (evp_entry_t *e = m->entries; e != NULL; e = e->hh.next)
	{
		if (e->pub.session == NULL && e->pub.proxy_id == from)
			e->pub.proxy_id = to;
	}
	if (known == NULL)
	{
		known = make_peer(m, to);
		known->pub.internal = p->pub.internal;
		p->pub.internal = NULL;
		/* It is in no picture yet: until one has it, it is taken for missing. */
		known->pub.missing_at = p->pub.missing_at;
	}
	known->pub.linked = p->pub.linked;
	known->pub.lost = p->pub.lost;
	known->pub.lost_at = p->pub.lost_at;
	free_peer(m, p);
	settle(m);
}

void
evp_members_session_lost(evp_members_t *m, evp_instance_t *instance, int64_t proxy_id, int64_t session_no, uint64_t now)
{
	if (instance->session != NULL || instance->proxy_id != proxy_id || instance->session_no != session_no)
		return;
	lose_up_to(instance, session_no);
	cut(m, instance, now);
	settle(m);
}

void
evp_members_session_waiting(evp_members_t *m, evp_instance_t *instance, int64_t proxy_id, int64_t session_no)
{
	if (instance->session != NULL || instance->proxy_id != proxy_id || instance->session_no != session_no ||
		instance->state != EVP_INSTANCE_READY)
		return;
	instance->enabled = false;
	set_state(m, instance, EVP_INSTANCE_WAITING);
	settle(m);
}

/* ---- questions ---- */

size_t
evp_members_find(evp_members_t *m, const char *name, size_t len, evp_instance_t *const **list)
{
	evp_name_t *e;

	HASH_FIND(hh, m->names, name, len, e);
	*list = e == NULL ? NULL : e->list;
	return e == NULL ? 0 : e->n;
}

evp_instance_t *
evp_members_instance(evp_members_t *m, const char *bundle, const char *instance)
{
	evp_entry_t *e = find_entry(m, bundle, instance);

	return e == NULL ? NULL : &e->pub;
}

const evp_peer_t *
evp_members_peer(evp_members_t *m, int64_t proxy_id)
{
	evp_peer_entry_t *p = find_peer(m, proxy_id);

	return p == NULL ? NULL : &p->pub;
}

const evp_peer_t *
evp_members_next_peer(evp_members_t *m, const evp_peer_t *peer)
{
	evp_peer_entry_t *p = peer == NULL ? m->peers : ((const evp_peer_entry_t *) peer)->hh.next;

	return p == NULL ? NULL : &p->pub;
}

/* How long an instance is avoided that has not answered so many of the calls by which it was tried. */
static uint64_t
avoid_time(const evp_members_t *m, unsigned unanswered)
{
	uint64_t	ms = AVOID_FIRST_MS;

	for (unsigned k = 1; k < unanswered && ms < m->avoid_ms; k++)
		ms *= 2;
	return ms < m->avoid_ms ? ms : m->avoid_ms;
}

bool
evp_members_unanswered(evp_members_t *m, evp_instance_t *instance, uint64_t now)
{
	/* What it was asked beside that and since says nothing new. */
	if (instance->unanswered > 0)
		return false;
	instance->unanswered = 1;
	instance->avoided_until = now + avoid_time(m, 1);
	return true;
}

void
evp_members_answered(evp_instance_t *instance)
{
	instance->unanswered = 0;
	instance->avoided_until = 0;
}

/* Is a the better choice than b? */
static bool
better(const evp_instance_t *a, const evp_instance_t *b, uint64_t now)
{
	if ((now < a->avoided_until) != (now < b->avoided_until))
		return now >= a->avoided_until;
	if (a->open != b->open)
		return a->open < b->open;
	if ((a->session != NULL) != (b->session != NULL))
		return a->session != NULL;
	return a->last_pick < b->last_pick;
}

evp_instance_t *
evp_members_pick(evp_members_t *m, evp_instance_t *const *list, size_t n, uint64_t now)
{
	evp_instance_t *best = NULL;

	for (size_t k = 0; k < n; k++)
	{
		if (list[k]->state == EVP_INSTANCE_READY && (best == NULL || better(list[k], best, now)))
			best = list[k];
	}
	if (best == NULL)
		return NULL;
	best->last_pick = ++m->picks;
	/* One that has not answered shows by this call whether it does now; until it has, the next one waits twice as long. */
	if (best->unanswered > 0 && now >= best->avoided_until)
		best->avoided_until = now + avoid_time(m, ++best->unanswered);
	return best;
}
