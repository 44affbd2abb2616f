/*
 * main.c
 *	  evento-ledger: arguments and signals.
 *
 * evento-ledger write --conninfo C --file F [--clients N] [--streams M] [--batch]
 *				[--positions] [--seconds S] [--max-pause MS] [--think MS] [--padding BYTES]
 * evento-ledger read --conninfo C --file F [--mode read_all|view|wait|notify|consumer] [--name N]
 * evento-ledger dump --conninfo C --file F
 * evento-ledger check [--complete] [--lossless | --lossy-after NS] [--absent-after NS] FILE ...
 *
 * write and read go on until SIGTERM; a reader then reads what is left.
 * Exit status: 0, 1 where check has found violations, 2 where it could not run.
 */
#include "ledger.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Seconds after the stop in which outcomes are still asked for. */
#define GRACE 30

atomic_bool stopping;
static _Atomic int64_t stopped_at;
Settings	settings = {.clients = 8, .streams = 50, .mode = "read_all", .name = "ledger", .max_pause = 20};

int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void
sleep_ms(double ms)
{
	struct timespec t = {(time_t) (ms / 1000), (long) ((ms - 1000.0 * (double) (time_t) (ms / 1000)) * 1e6)};

	nanosleep(&t, NULL);
}

bool
given_up(void)
{
	if (!stopping)
		return false;
	if (stopped_at == 0)
		stopped_at = now_ns();
	return now_ns() - stopped_at > GRACE * INT64_C(1000000000);
}

void
die(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fprintf(stderr, "evento-ledger: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

static void
on_signal(int number)
{
	(void) number;
	stopping = true;
}

static double
number(const char *text)
{
	char	   *end;
	double		value;

	errno = 0;
	value = strtod(text, &end);
	if (errno != 0 || end == text || *end != '\0' || value < 0 || value > 1e9)
		die("not a number: %s", text);
	return value;
}

/* A time as the record has them. */
static int64_t
moment(const char *text)
{
	char	   *end;
	int64_t		value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < 0)
		die("not a time: %s", text);
	return value;
}

static void
usage(void)
{
	die("usage: evento-ledger write|read|dump --conninfo C --file F [...], or check [--complete] FILE ...");
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"conninfo", required_argument, NULL, 'c'},
		{"file", required_argument, NULL, 'f'},
		{"clients", required_argument, NULL, 'n'},
		{"streams", required_argument, NULL, 'm'},
		{"batch", no_argument, NULL, 'b'},
		{"positions", no_argument, NULL, 'P'},
		{"seconds", required_argument, NULL, 's'},
		{"max-pause", required_argument, NULL, 'p'},
		{"think", required_argument, NULL, 't'},
		{"padding", required_argument, NULL, 'd'},
		{"mode", required_argument, NULL, 'M'},
		{"name", required_argument, NULL, 'N'},
		{"complete", no_argument, NULL, 'C'},
		{"lossless", no_argument, NULL, 'l'},
		{"lossy-after", required_argument, NULL, 'L'},
		{"absent-after", required_argument, NULL, 'A'},
		{NULL, 0, NULL, 0}
	};
	struct sigaction action = {.sa_handler = on_signal};
	Terms		terms = {.lossy_after = INT64_MAX, .absent_after = INT64_MAX};
	const char *command;
	int			c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		switch (c)
		{
			case 'c': settings.conninfo = optarg; break;
			case 'f': settings.file = optarg; break;
			case 'n': settings.clients = (int) number(optarg); break;
			case 'm': settings.streams = (int) number(optarg); break;
			case 'b': settings.batch = true; break;
			case 'P': settings.positions = true; break;
			case 's': settings.seconds = number(optarg); break;
			case 'p': settings.max_pause = number(optarg); break;
			case 't': settings.think = number(optarg); break;
			case 'd': settings.padding = (int) number(optarg); break;
			case 'M': settings.mode = optarg; break;
			case 'N': settings.name = optarg; break;
			case 'C': terms.complete = true; break;
			case 'l': terms.by_time = true; break;
			case 'L': terms.by_time = true; terms.lossy_after = moment(optarg); break;
			case 'A': terms.absent_after = moment(optarg); break;
			default: usage();
		}
	}
	if (optind >= argc)
		usage();
	command = argv[optind++];
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);

	if (strcmp(command, "check") == 0)
		return check_main(argc - optind, argv + optind, &terms);
	if (settings.conninfo == NULL || settings.file == NULL || optind < argc)
		usage();
	if (settings.clients < 1 || settings.clients > 1000 || settings.streams < 1 || settings.streams > 1000000 || settings.padding > 1000000)
		die("out of bounds: --clients, --streams or --padding");
	if (strcmp(command, "write") == 0)
		return write_main();
	if (strcmp(command, "read") == 0)
		return read_main();
	if (strcmp(command, "dump") == 0)
		return dump_main();
	usage();
}
