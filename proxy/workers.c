/*
 * workers.c
 *    The parent: starts workers, passes signals on, starts those again that
 *    end or stand still, and speaks to the service manager for all of them.
 */
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "notify.h"

#define STILL_MS	30000		/* a worker that has not written for so long is killed */
#define STEADY_MS	10000		/* one that ran so long is started again at once */
#define DELAY_MS	250			/* another one after this, twice that the next time */
#define DELAY_MAX_MS 30000
#define LOOK_MS		500

typedef struct child
{
	pid_t		pid;			/* 0: it does not run */
	int			pipe;			/* what it writes */
	bool		ready;
	uint64_t	started_at;
	uint64_t	heard_at;
	uint64_t	start_at;		/* when it is started again */
	uint64_t	delay;
} child_t;

typedef struct parent
{
	evp_config_t *config;
	int			argc;
	char	  **argv;
	child_t		children[EVP_WORKERS_MAX];
	int			count;
	int			signals;		/* signalfd */
	sigset_t	mask;			/* of signals before */
	bool		stopping;
	bool		announced;		/* that all are ready */
	uint64_t	beat_at;		/* of the service manager's watchdog */
	int			status;
} parent_t;

static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000;
}

/* In the new process: leaves the parent's things behind. */
static void
become_worker(parent_t *parent, int number, int end, pid_t parent_pid, evp_worker_t *worker)
{
	for (int i = 0; i < parent->count; i++)
	{
		if (parent->children[i].pid != 0 && i != number)
			close(parent->children[i].pipe);
	}
	close(parent->signals);
	/* A terminal's Ctrl-C comes by the parent alone: a second signal would end this process at once. */
	setpgid(0, 0);
	/* It drains when the parent has died. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent_pid)
		_exit(1);
	unsetenv("NOTIFY_SOCKET");
	sigprocmask(SIG_SETMASK, &parent->mask, NULL);
	worker->number = number;
	worker->parent = end;
}

/* True in the new process. */
static bool
start_child(parent_t *parent, int number, evp_worker_t *worker)
{
	child_t    *child = &parent->children[number];
	pid_t		self = getpid();
	int			ends[2];
	pid_t		pid = -1;

	child->started_at = child->heard_at = now_ms();
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0 && (pid = fork()) < 0)
	{
		close(ends[0]);
		close(ends[1]);
	}
	if (pid < 0)
	{
		evp_log(EVP_LOG_ERROR, "workers", NULL, "worker %d cannot be started: %s", number + 1, strerror(errno));
		child->start_at = child->started_at + DELAY_MAX_MS;
		return false;
	}
	if (pid == 0)
	{
		close(ends[0]);
		become_worker(parent, number, ends[1], self, worker);
		return true;
	}
	close(ends[1]);
	child->pid = pid;
	child->pipe = ends[0];
	child->ready = false;
	evp_log(EVP_LOG_INFO, "workers", NULL, "worker %d is process %d", number + 1, (int) pid);
	return false;
}

static void
signal_children(const parent_t *parent, int number)
{
	for (int i = 0; i < parent->count; i++)
	{
		if (parent->children[i].pid != 0)
			kill(parent->children[i].pid, number);
	}
}

static void
stop(parent_t *parent, int number)
{
	if (!parent->stopping)
		evp_notify(EVP_NOTIFY_STOPPING);
	parent->stopping = true;
	signal_children(parent, number);
}

/* A worker has ended: it is started again, unless it never was ready, when nothing was. */
static void
bury(parent_t *parent, int number, int status)
{
	child_t    *child = &parent->children[number];
	uint64_t	now = now_ms();

	close(child->pipe);
	child->pid = 0;
	if (parent->stopping)
	{
		if (status != 0)
			parent->status = 1;
		return;
	}
	if (WIFSIGNALED(status))
		evp_log(EVP_LOG_ERROR, "workers", NULL, "worker %d was ended by a signal: %s", number + 1, strsignal(WTERMSIG(status)));
	else
		evp_log(EVP_LOG_ERROR, "workers", NULL, "worker %d has ended with status %d", number + 1, WEXITSTATUS(status));
	if (!parent->announced)
	{
		parent->status = 1;
		stop(parent, SIGTERM);
		return;
	}
	if (now - child->started_at >= STEADY_MS)
		child->delay = 0;
	child->start_at = now + child->delay;
	child->delay = child->delay == 0 ? DELAY_MS : child->delay * 2 > DELAY_MAX_MS ? DELAY_MAX_MS : child->delay * 2;
}

static void
reap(parent_t *parent)
{
	pid_t		pid;
	int			status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
	{
		for (int i = 0; i < parent->count; i++)
		{
			if (parent->children[i].pid == pid)
				bury(parent, i, status);
		}
	}
}

static void
tell_nobody(const char *flag, bool taken)
{
	(void) flag;
	(void) taken;
}

/* What has changed, or is wrong, the workers say. */
static void
reload(parent_t *parent)
{
	char		error[1024];

	if (!evp_config_reload(parent->config, parent->argc, parent->argv, -1, tell_nobody, error, sizeof(error)))
		return;
	evp_log_set_level((evp_log_level_t) parent->config->log_level);
	evp_log_set_format((evp_log_format_t) parent->config->log_format);
}

static void
take_signals(parent_t *parent)
{
	struct signalfd_siginfo info;

	while (read(parent->signals, &info, sizeof(info)) == (ssize_t) sizeof(info))
	{
		switch (info.ssi_signo)
		{
			case SIGTERM:
			case SIGINT:
				evp_log(EVP_LOG_INFO, "workers", NULL, "stops at %s", strsignal((int) info.ssi_signo));
				stop(parent, SIGTERM);
				break;
			case SIGHUP:
				evp_notify_reloading();
				reload(parent);
				signal_children(parent, SIGHUP);
				evp_notify(EVP_NOTIFY_READY);
				break;
			default:
				break;			/* SIGCHLD: all are reaped in any case */
		}
	}
}

static void
hear(parent_t *parent, child_t *child)
{
	char		said[64];
	ssize_t		n = read(child->pipe, said, sizeof(said));

	if (n <= 0)
		return;
	child->heard_at = now_ms();
	if (memchr(said, EVP_WORKER_READY[0], (size_t) n) != NULL)
		child->ready = true;
	for (int i = 0; i < parent->count; i++)
	{
		if (!parent->children[i].ready)
			return;
	}
	if (!parent->announced)
		evp_notify(EVP_NOTIFY_READY);
	parent->announced = true;
}

/* Starts what is due and kills what stands still.  True in a new worker. */
static bool
look_after(parent_t *parent, evp_worker_t *worker)
{
	uint64_t	now = now_ms();
	uint64_t	interval = evp_notify_watchdog();

	for (int i = 0; i < parent->count; i++)
	{
		child_t    *child = &parent->children[i];

		if (child->pid == 0 && !parent->stopping && now >= child->start_at && start_child(parent, i, worker))
			return true;
		if (child->pid != 0 && now >= child->heard_at + STILL_MS)
		{
			evp_log(EVP_LOG_ERROR, "workers", NULL, "worker %d stands still and is killed", i + 1);
			kill(child->pid, SIGKILL);
			child->heard_at = now;
		}
	}
	if (interval > 0 && now >= parent->beat_at + interval / 2)
	{
		parent->beat_at = now;
		evp_notify(EVP_NOTIFY_ALIVE);
	}
	return false;
}

static bool
any_left(const parent_t *parent)
{
	for (int i = 0; i < parent->count; i++)
	{
		if (parent->children[i].pid != 0)
			return true;
	}
	return false;
}

static bool
catch_signals(parent_t *parent)
{
	sigset_t	caught;

	sigemptyset(&caught);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGINT);
	sigaddset(&caught, SIGHUP);
	sigaddset(&caught, SIGCHLD);
	parent->signals = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	return parent->signals >= 0 && sigprocmask(SIG_BLOCK, &caught, &parent->mask) == 0;
}

bool
evp_workers_run(evp_config_t *config, int argc, char **argv, evp_worker_t *worker, int *status)
{
	static parent_t parent;
	struct pollfd polled[EVP_WORKERS_MAX + 1];

	parent.config = config;
	parent.argc = argc;
	parent.argv = argv;
	parent.count = (int) config->workers;
	if (!catch_signals(&parent))
	{
		evp_log(EVP_LOG_ERROR, "workers", NULL, "signals cannot be caught: %s", strerror(errno));
		*status = 1;
		return false;
	}
	while (!parent.stopping || any_left(&parent))
	{
		if (look_after(&parent, worker))
			return true;
		polled[0] = (struct pollfd) {.fd = parent.signals,.events = POLLIN};
		/* poll takes no notice of a negative descriptor. */
		for (int i = 0; i < parent.count; i++)
			polled[i + 1] = (struct pollfd) {.fd = parent.children[i].pid != 0 ? parent.children[i].pipe : -1,.events = POLLIN};
		if (poll(polled, (nfds_t) parent.count + 1, LOOK_MS) < 0 && errno != EINTR)
			break;
		for (int i = 0; i < parent.count; i++)
		{
			if (polled[i + 1].fd >= 0 && (polled[i + 1].revents & POLLIN) != 0)
				hear(&parent, &parent.children[i]);
		}
		take_signals(&parent);
		reap(&parent);
	}
	*status = parent.status;
	return false;
}
