/*
 * main.c
 *    evento-proxy: reads the settings, makes the modules, runs the loop, and
 *    takes all down in order when it is told to stop.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "asks.h"
#include "command.h"
#include "config.h"
#include "db.h"
#include "drain.h"
#include "feed.h"
#include "guard.h"
#include "http.h"
#include "link.h"
#include "locks.h"
#include "log.h"
#include "names.h"
#include "notify.h"
#include "proxy.h"
#include "reads.h"
#include "registry.h"
#include "reports.h"
#include "requests.h"
#include "router.h"
#include "secrets.h"
#include "server.h"
#include "store.h"
#include "telemetry.h"
#include "tls.h"
#include "uuid.h"
#include "workers.h"

#define LEAVE_MS	5000		/* for the database to hear that this proxy leaves, and what is summed */
#define STOP_MS		6500		/* for all of it; what still blocks then is left behind */
#define SPARE_FILES 200			/* descriptors beside those of bundles */

typedef struct process
{
	evp_proxy_t proxy;
	uv_loop_t	loop;
	uv_signal_t interrupt;
	uv_signal_t terminate;
	uv_signal_t hangup;
	int			argc;
	char	  **argv;
	uv_timer_t	watchdog;
	uv_timer_t	heartbeat;		/* for the service manager, or the parent */
	evp_worker_t worker;		/* which this is; number -1: it has no parent */
	evp_drain_t drain;
	bool		stopping;		/* a signal has come */
	bool		stopped;		/* the modules are stopped */
} process_t;

/* Every module, in the order in which they are made. */
#define MODULES(X) X(tls) X(db) X(reads) X(guard) X(store) X(locks) X(registry) X(router) X(links) X(requests) X(feed) X(telemetry) \
	X(reports) X(asks) X(commands) X(server) X(http)
#define MODULES_REVERSED(X) X(http) X(server) X(commands) X(asks) X(reports) X(telemetry) \
	X(feed) X(requests) X(links) X(router) X(registry) X(locks) X(store) X(guard) X(reads) X(db) X(tls)

static bool
make_modules(evp_proxy_t *proxy)
{
#define MAKE(module) \
	proxy->module = evp_##module##_new(proxy); \
	if (proxy->module == NULL) \
		return false;
	MODULES(MAKE)
#undef MAKE
	return true;
}

static void
stop_modules(process_t *process)
{
	evp_proxy_t *proxy = &process->proxy;

	if (process->stopped)
		return;
	process->stopped = true;
#define STOP(module) evp_##module##_stop(proxy->module);
	MODULES_REVERSED(STOP)
#undef STOP
	uv_close((uv_handle_t *) &process->interrupt, NULL);
	uv_close((uv_handle_t *) &process->terminate, NULL);
	uv_close((uv_handle_t *) &process->hangup, NULL);
	uv_close((uv_handle_t *) &process->heartbeat, NULL);
}

static void
free_modules(evp_proxy_t *proxy)
{
#define FREE(module) evp_##module##_free(proxy->module);
	MODULES_REVERSED(FREE)
#undef FREE
}

static void
on_left(void *arg)
{
	stop_modules(arg);
}

static void
on_watchdog(uv_timer_t *timer)
{
	process_t  *process = timer->data;

	if (!process->stopped)
	{
		stop_modules(process);
		uv_timer_start(&process->watchdog, on_watchdog, STOP_MS - LEAVE_MS, 0);
		return;
	}
	evp_log(EVP_LOG_WARNING, "main", NULL, "something still runs (a name look-up?): it is left behind");
	_exit(0);
}

static void
on_drained(void *arg)
{
	process_t  *process = arg;

	uv_timer_start(&process->watchdog, on_watchdog, LEAVE_MS, 0);
	evp_telemetry_flush(process->proxy.telemetry);
	evp_reports_flush(process->proxy.reports);
	evp_registry_leave(process->proxy.registry, on_left, process);
}

static void
on_signal(uv_signal_t *handle, int number)
{
	process_t  *process = handle->data;

	if (process->stopping)
	{
		evp_log(EVP_LOG_WARNING, "main", NULL, "second signal: stops at once");
		_exit(1);
	}
	process->stopping = true;
	evp_log(EVP_LOG_INFO, "main", NULL, "stops at %s", strsignal(number));
	evp_notify(EVP_NOTIFY_STOPPING);
	evp_drain_begin(&process->drain, &process->proxy, on_drained, process);
}

/* As many descriptors as the connections need, where the system allows it. */
static void
raise_files(const evp_config_t *config)
{
	struct rlimit limit;
	rlim_t		need = config->max_connections + config->http_connections + SPARE_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need)
		return;
	limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || need < limit.rlim_max ? need : limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < need)
		evp_log(EVP_LOG_WARNING, "main", NULL, "the system allows %" PRIu64 " open files, max-connections is %" PRIu64,
				(uint64_t) limit.rlim_cur, config->max_connections);
}

static void
apply_settings(const evp_config_t *config)
{
	evp_log_set_level((evp_log_level_t) config->log_level);
	evp_log_set_format((evp_log_format_t) config->log_format);
	raise_files(config);
}

static void
tell_changed(const char *flag, bool taken)
{
	if (taken)
		evp_log(EVP_LOG_INFO, "main", NULL, "%s has changed", flag);
	else
		evp_log(EVP_LOG_WARNING, "main", NULL, "%s has changed and needs a restart: it stays as it was", flag);
}

static void
on_hangup(uv_signal_t *handle, int number)
{
	process_t  *process = handle->data;
	char		error[1024];

	(void) number;
	if (process->stopping)
		return;
	evp_log(EVP_LOG_INFO, "main", NULL, "reads its settings again");
	evp_notify_reloading();
	if (evp_config_reload(&process->proxy.config, process->argc, process->argv, process->worker.number, tell_changed, error,
						  sizeof(error)))
	{
		apply_settings(&process->proxy.config);
		evp_server_reload(process->proxy.server);
	}
	else
		evp_log(EVP_LOG_ERROR, "main", NULL, "the settings stay as they were: %s", error);
	evp_notify(EVP_NOTIFY_READY);
}

/* A parent that does not read finds the pipe full, and needs no more of it. */
static void
tell_parent(const process_t *process, const char *what)
{
	(void) !write(process->worker.parent, what, 1);
}

static void
on_heartbeat(uv_timer_t *timer)
{
	process_t  *process = timer->data;

	if (process->worker.number >= 0)
		tell_parent(process, EVP_WORKER_ALIVE);
	else
		evp_notify(EVP_NOTIFY_ALIVE);
}

/* Everything listens: whoever waits for that is told, now and again and again. */
static void
begin_heartbeat(process_t *process)
{
	bool		child = process->worker.number >= 0;
	uint64_t	interval = child ? EVP_WORKER_BEAT_MS : evp_notify_watchdog();

	uv_timer_init(&process->loop, &process->heartbeat);
	process->heartbeat.data = process;
	if (child)
		tell_parent(process, EVP_WORKER_READY);
	else
		evp_notify(EVP_NOTIFY_READY);
	if (interval > 0)
		uv_timer_start(&process->heartbeat, on_heartbeat, interval, interval);
}

static void
catch_signals(process_t *process)
{
	uv_loop_t  *loop = &process->loop;

	/* A write to a connection that is gone is an error there, not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	if (uv_signal_init(loop, &process->interrupt) < 0 || uv_signal_init(loop, &process->terminate) < 0 ||
		uv_timer_init(loop, &process->watchdog) < 0 || uv_signal_start(&process->interrupt, on_signal, SIGINT) < 0 ||
		uv_signal_start(&process->terminate, on_signal, SIGTERM) < 0 || uv_signal_init(loop, &process->hangup) < 0 ||
		uv_signal_start(&process->hangup, on_hangup, SIGHUP) < 0)
	{
		evp_log(EVP_LOG_ERROR, "main", NULL, "signals cannot be caught");
		exit(1);
	}
	process->interrupt.data = process;
	process->terminate.data = process;
	process->hangup.data = process;
	process->watchdog.data = process;
	/* The loop ends when the modules have, whatever the watchdog is set to. */
	uv_unref((uv_handle_t *) &process->watchdog);
}

static void
name_instance(evp_proxy_t *proxy)
{
	uint8_t		id[16];
	char		text[EVP_UUID_TEXT_LEN + 1];

	evp_uuid_v4(id);
	evp_uuid_format(id, text);
	snprintf(proxy->server_instance, sizeof(proxy->server_instance), "%.80s-%s", proxy->config.name, text);
	/* It goes out as CBOR text: half a character at the cut would break that. */
	for (char *p = proxy->server_instance; *p != '\0'; p++)
	{
		if ((unsigned char) *p >= 0x80)
			*p = '_';
	}
}

int
main(int argc, char **argv)
{
	static process_t process;
	evp_proxy_t *proxy = &process.proxy;
	char		error[1024];
	int			status;

	switch (evp_config_read(&proxy->config, argc, argv, error, sizeof(error)))
	{
		case EVP_CONFIG_EXIT:
			return fflush(stdout) == 0 ? 0 : 1;
		case EVP_CONFIG_ERROR:
			fprintf(stderr, "evento-proxy: %s\n", error);
			return 1;
		case EVP_CONFIG_OK:
			break;
	}
	apply_settings(&proxy->config);
	argv = evp_secrets_hide(argc, argv);
	process.worker.number = -1;
	if (proxy->config.workers > 1)
	{
		if (!evp_workers_run(&proxy->config, argc, argv, &process.worker, &status))
			return status;
		if (!evp_config_for_worker(&proxy->config, process.worker.number, error, sizeof(error)))
		{
			evp_log(EVP_LOG_ERROR, "main", NULL, "%s", error);
			return 1;
		}
		/* They may be others than those that the parent began with. */
		apply_settings(&proxy->config);
	}
	process.argc = argc;
	process.argv = argv;
	evp_names_prepare();
	if (uv_loop_init(&process.loop) < 0)
	{
		evp_log(EVP_LOG_ERROR, "main", NULL, "the event loop cannot be made: %s", strerror(errno));
		return 1;
	}
	proxy->loop = &process.loop;
	name_instance(proxy);
	catch_signals(&process);
	evp_log(EVP_LOG_INFO, "main", NULL, "evento-proxy " EVP_VERSION " starts as %s", proxy->config.name);
	if (!make_modules(proxy))
		return 1;				/* nothing has been said to anyone yet: the process may just end */

	begin_heartbeat(&process);

	uv_run(&process.loop, UV_RUN_DEFAULT);

	uv_close((uv_handle_t *) &process.watchdog, NULL);
	uv_run(&process.loop, UV_RUN_DEFAULT);
	free_modules(proxy);
	if (uv_loop_close(&process.loop) != 0)
		evp_log(EVP_LOG_DEBUG, "main", NULL, "a handle was left open");
	evp_config_free(&proxy->config);
	evp_log(EVP_LOG_INFO, "main", NULL, "stopped");
	return 0;
}
