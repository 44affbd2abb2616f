/*
 * sim.c
 *    The simulator's options, the course of a run, and its summary.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim.h"

#define MAX_COMPLAINTS 10
#define READY_MS 30000			/* for all bundles to be welcomed */
#define SETTLE_MS 30000			/* for the last answers and events */

static sim_t sim;
static uv_prepare_t prepare;
static uv_timer_t clock_timer;
static uv_signal_t sigint, sigterm;
static uint64_t started;		/* uv_hrtime when the load began */
static uint64_t stopped;		/* when it was stopped */
static uint64_t settle_until;
static enum {STARTING, RUNNING, SETTLING, CLOSING} phase;

static const char help[] =
"evento-sim plays bundles of an order application against evento proxies: it\n"
"loads them, checks every answer and every event, and prints what it measured.\n"
"\n"
"  --proxies LIST          host:port,… where callers and consumers connect (127.0.0.1:3030);\n"
"                          a connection that is lost is made to the next in turn, and a host\n"
"                          that has several addresses is several\n"
"  --handler-proxies LIST  the same for handlers (as --proxies)\n"
"  --handlers N            instances of each handling bundle; 0: they run elsewhere (1)\n"
"  --callers N             closed loops (64); 0: only handle, until SIGINT\n"
"  --connections N         connections that the callers share (one a proxy)\n"
"  --consumers N           consumers that follow the log (1)\n"
"  --kind KIND             aggregate, service or query (aggregate)\n"
"  --orders N              aggregates (as --callers: each loop has its own)\n"
"  --payload BYTES         padding of a command (100)\n"
"  --snapshot-every N      events; 0: never (20)\n"
"  --seconds N             length of the load (10)\n"
"  --count N               end after so many requests instead\n"
"  --rate N                requests a second of all callers together (as many as they can)\n"
"  --timeout MS            of a request (30000)\n"
"  --run NAME              part of every order's name (random)\n"
"  --mixed-locks           commands lock their order, nothing, or what all orders share\n"
"  --record FILE           a line for each command that has ended, of kind aggregate:\n"
"                          answered TIME ORDER REVISION AMOUNT, or failed TIME ORDER AMOUNT;\n"
"                          TIME in ms since 1970\n"
"  --allow-failures        failed requests are counted, and do not fail the run\n"
"  --telemetry             handlers and consumers tell what they do, and answer to it\n"
"  --tls-ca FILE           TLS to the proxies, whose certificates come from this CA\n"
"  --tls-cert FILE         and a certificate of our own\n"
"  --tls-key FILE          with its key\n"
"  --token BUNDLE=TOKEN    a token for the hello of a bundle; may be given several times\n"
"  --help                  this\n"
"\n"
"Of two signals the first ends the load, and the second the run.\n"
"Exit status 0: all checks held.  1: some did not, or a request failed.  2: wrong use.\n";

void
sim_wrong(sim_t *s, const char *format,...)
{
	va_list		ap;

	if (s->wrong++ >= MAX_COMPLAINTS)
		return;
	fputs("wrong: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void
sim_failed(sim_t *s, const char *format,...)
{
	va_list		ap;

	if (s->failed++ >= MAX_COMPLAINTS)
		return;
	fputs("failed: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int64_t
sim_order_number(const sim_t *s, evp_slice_t name)
{
	size_t		n = strlen(s->run);
	int64_t		v = 0;

	if (evp_slice_is_null(name) || name.n <= n + 1 || name.n > n + 12 || memcmp(name.p, s->run, n) != 0 || name.p[n] != '-')
		return -1;
	for (size_t i = n + 1; i < name.n; i++)
	{
		if (name.p[i] < '0' || name.p[i] > '9')
			return -1;
		v = v * 10 + (name.p[i] - '0');
	}
	return v < (int64_t) s->orders ? v : -1;
}

static void
wrong_use(const char *what, const char *value)
{
	fprintf(stderr, "evento-sim: %s: %s\nTry evento-sim --help.\n", what, value);
	exit(2);
}

static uint64_t
number(const char *name, const char *text, uint64_t max)
{
	char	   *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0' || end == text || *text == '-' || v > max)
		wrong_use(name, text);
	return v;
}

static unsigned
addresses(const char *name, const char *list, sim_address_t *out)
{
	unsigned	n = 0;

	while (*list != '\0')
	{
		size_t		len = strcspn(list, ",");
		const char *colon = memrchr(list, ':', len);
		size_t		host_len;

		if (colon == NULL || n == SIM_MAX_PROXIES)
			wrong_use(name, list);
		host_len = (size_t) (colon - list);
		if (host_len == 0 || host_len >= sizeof(out->host) || len - host_len - 1 == 0 || len - host_len - 1 >= sizeof(out->port))
			wrong_use(name, list);
		memcpy(out[n].host, list, host_len);
		memcpy(out[n].port, colon + 1, len - host_len - 1);
		n++;
		list += len;
		if (*list == ',')
			list++;
	}
	if (n == 0)
		wrong_use(name, list);
	return n;
}

/* TLS to the proxies, whose certificates come from a CA; cert and key: our own, or NULL. */
static void
use_tls(const char *ca, const char *cert, const char *key)
{
	sim.tls = SSL_CTX_new(TLS_client_method());
	if (sim.tls == NULL || SSL_CTX_load_verify_locations(sim.tls, ca, NULL) != 1)
		wrong_use("--tls-ca", ca);
	SSL_CTX_set_verify(sim.tls, SSL_VERIFY_PEER, NULL);
	if (cert != NULL && SSL_CTX_use_certificate_chain_file(sim.tls, cert) != 1)
		wrong_use("--tls-cert", cert);
	if (key != NULL && SSL_CTX_use_PrivateKey_file(sim.tls, key, SSL_FILETYPE_PEM) != 1)
		wrong_use("--tls-key", key);
}

static void
options(int argc, char **argv)
{
	static const struct option table[] = {
		{"proxies", 1, NULL, 'p'}, {"handler-proxies", 1, NULL, 'P'}, {"handlers", 1, NULL, 'H'},
		{"callers", 1, NULL, 'c'}, {"connections", 1, NULL, 'C'}, {"consumers", 1, NULL, 'f'},
		{"kind", 1, NULL, 'k'}, {"orders", 1, NULL, 'o'}, {"payload", 1, NULL, 'b'},
		{"snapshot-every", 1, NULL, 'e'}, {"seconds", 1, NULL, 's'}, {"count", 1, NULL, 'n'}, {"rate", 1, NULL, 'R'},
		{"timeout", 1, NULL, 't'}, {"run", 1, NULL, 'r'}, {"record", 1, NULL, 'w'}, {"allow-failures", 0, NULL, 'a'}, {"mixed-locks", 0, NULL, 'm'},
		{"telemetry", 0, NULL, 't' + 256}, {"tls-ca", 1, NULL, 'A'}, {"tls-cert", 1, NULL, 'T'}, {"tls-key", 1, NULL, 'K'},
		{"token", 1, NULL, 'x'}, {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}
	};
	const char *tls_ca = NULL;
	const char *tls_cert = NULL;
	const char *tls_key = NULL;
	bool		seconds_given = false;
	int			o;

	while ((o = getopt_long(argc, argv, "", table, NULL)) != -1)
		switch (o)
		{
			case 'p': sim.n_proxies = addresses("--proxies", optarg, sim.proxies); break;
			case 'P': sim.n_handler_proxies = addresses("--handler-proxies", optarg, sim.handler_proxies); break;
			case 'H': sim.handlers = (unsigned) number("--handlers", optarg, 256); break;
			case 'c': sim.callers = (unsigned) number("--callers", optarg, 100000); break;
			case 'C': sim.connections = (unsigned) number("--connections", optarg, 4096); break;
			case 'f': sim.consumers = (unsigned) number("--consumers", optarg, 1000); break;
			case 'o': sim.orders = (unsigned) number("--orders", optarg, 10000000); break;
			case 'b': sim.payload = (unsigned) number("--payload", optarg, 200 * 1024 * 1024); break;
			case 'e': sim.snapshot_every = (unsigned) number("--snapshot-every", optarg, 1000000); break;
			case 's': sim.seconds = (unsigned) number("--seconds", optarg, 86400); seconds_given = true; break;
			case 'R': sim.rate = number("--rate", optarg, 10000000); break;
			case 'n': sim.count = number("--count", optarg, UINT64_MAX / 2); break;
			case 't': sim.timeout_ms = (unsigned) number("--timeout", optarg, 3600000); break;
			case 'w':
				sim.record = fopen(optarg, "w");
				if (sim.record == NULL)
					wrong_use("--record", optarg);
				setvbuf(sim.record, NULL, _IOLBF, 0);
				break;
			case 'a': sim.allow_failures = true; break;
			case 'm': sim.mixed_locks = true; break;
			case 't' + 256: sim.telemetry = true; break;
			case 'A': tls_ca = optarg; break;
			case 'T': tls_cert = optarg; break;
			case 'K': tls_key = optarg; break;
			case 'x':
				if (sim.n_tokens == SIM_MAX_TOKENS || strchr(optarg, '=') == NULL)
					wrong_use("--token (BUNDLE=TOKEN)", optarg);
				sim.tokens[sim.n_tokens++] = optarg;
				break;
			case 'r':
				if (strlen(optarg) == 0 || strlen(optarg) >= sizeof(sim.run) || strspn(optarg, "abcdefghijklmnopqrstuvwxyz0123456789") != strlen(optarg))
					wrong_use("--run (lower case letters and digits)", optarg);
				memcpy(sim.run, optarg, strlen(optarg) + 1);
				break;
			case 'k':
				if (strcmp(optarg, "aggregate") == 0)
					sim.kind = SIM_AGGREGATE;
				else if (strcmp(optarg, "service") == 0)
					sim.kind = SIM_SERVICE;
				else if (strcmp(optarg, "query") == 0)
					sim.kind = SIM_QUERY;
				else
					wrong_use("--kind", optarg);
				break;
			case 'h':
				fputs(help, stdout);
				exit(0);
			default:
				exit(2);
		}
	if (optind < argc)
		wrong_use("unexpected argument", argv[optind]);
	if (sim.record != NULL && sim.kind != SIM_AGGREGATE)
		wrong_use("--record", "only with --kind aggregate");
	if (tls_ca != NULL)
		use_tls(tls_ca, tls_cert, tls_key);
	if (sim.n_proxies == 0)
		sim.n_proxies = addresses("--proxies", "127.0.0.1:3030", sim.proxies);
	if (sim.n_handler_proxies == 0)
	{
		memcpy(sim.handler_proxies, sim.proxies, sizeof(sim.proxies));
		sim.n_handler_proxies = sim.n_proxies;
	}
	if (sim.connections == 0)
		sim.connections = sim.n_proxies;
	if (sim.orders == 0)
		sim.orders = sim.callers ? sim.callers : 1;
	if (sim.count && !seconds_given)
		sim.seconds = 0;
	if (sim.run[0] == '\0')
	{
		uint8_t		id[16];

		evp_uuid_v4(id);
		snprintf(sim.run, sizeof(sim.run), "sim%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
	}
}

static uint64_t
ms_since(uint64_t then)
{
	return (uv_hrtime() - then) / 1000000;
}

/* Callers send nothing more; what they wait for still comes. */
static void
end_load(void)
{
	sim.stopping = true;
	stopped = uv_hrtime();
	settle_until = stopped + (uint64_t) (SETTLE_MS + sim.timeout_ms) * 1000000;
	phase = SETTLING;
}

/* Every event of an answered command has reached the first consumer. */
static bool
consumers_done(void)
{
	if (sim.consumers == 0 || sim.kind == SIM_QUERY)
		return true;
	if (sim.kind == SIM_SERVICE)
		return sim.events_seen >= sim.answered;
	for (unsigned i = 0; i < sim.orders; i++)
		if (sim.order[i].seen_revision < sim.order[i].revision)
			return false;
	return true;
}

static void
close_all(void)
{
	phase = CLOSING;
	sim.stopping = true;
	sim_callers_stop();
	sim_consumers_stop();
	sim_handlers_stop();
	uv_close((uv_handle_t *) &prepare, NULL);
	uv_close((uv_handle_t *) &clock_timer, NULL);
	uv_close((uv_handle_t *) &sigint, NULL);
	uv_close((uv_handle_t *) &sigterm, NULL);
}

static void
on_clock(uv_timer_t *t)
{
	(void) t;
	switch (phase)
	{
		case STARTING:
			if (sim.ready == sim.expected_ready)
			{
				phase = RUNNING;
				started = uv_hrtime();
				printf("ready run %s\n", sim.run);
				fflush(stdout);
				sim_callers_go();
			}
			else if (ms_since(started) > READY_MS)
			{
				sim_wrong(&sim, "%u of %u bundles and consumers were not ready in time", sim.expected_ready - sim.ready, sim.expected_ready);
				stopped = uv_hrtime();
				close_all();
			}
			break;
		case RUNNING:
			if (sim.callers == 0)
				break;			/* until a signal */
			if ((sim.seconds && ms_since(started) >= (uint64_t) sim.seconds * 1000) ||
				(sim.count && sim.begun >= sim.count && sim_callers_done()))
				end_load();
			break;
		case SETTLING:
			if (sim_callers_done() && consumers_done())
				close_all();
			else if (uv_hrtime() > settle_until)
			{
				sim_wrong(&sim, "the last %s did not come", sim_callers_done() ? "events" : "answers");
				close_all();
			}
			break;
		case CLOSING:
			break;
	}
}

static void
on_prepare(uv_prepare_t *p)
{
	(void) p;
	sim_bundles_flush();
}

static void
on_signal(uv_signal_t *s, int signum)
{
	(void) s;
	(void) signum;
	if (phase == CLOSING)
		_exit(1);
	if (phase == RUNNING && sim.callers > 0)
	{
		end_load();
		return;
	}
	stopped = uv_hrtime();
	close_all();
}

/* Lines of "name value …", for people and for scripts. */
static void
summary(void)
{
	double		seconds = (double) (stopped - started) / 1e9;
	int64_t		revisions = 0, total = 0, seen = 0, seen_total = 0;

	for (unsigned i = 0; i < sim.orders; i++)
	{
		revisions += sim.order[i].revision;
		total += sim.order[i].total;
		seen += sim.order[i].seen_revision;
		seen_total += sim.order[i].seen_total;
	}
	for (unsigned i = 0; sim.callers && i < sim.n_proxies; i++)
		printf("answered_at %s:%s %" PRIu64 "\n", sim.proxies[i].host, sim.proxies[i].port, sim.answered_at[i]);
	printf("answered %" PRIu64 "\nfailed %" PRIu64 "\nhandled %" PRIu64 "\n", sim.answered, sim.failed, sim.handled);
	printf("seconds %.2f\nper_second %.0f\n", seconds, seconds > 0 ? (double) sim.answered / seconds : 0);
	printf("latency_ms p50 %.2f p95 %.2f p99 %.2f max %.2f\n", sim_histogram_ms(&sim.latency, 0.5),
		   sim_histogram_ms(&sim.latency, 0.95), sim_histogram_ms(&sim.latency, 0.99), (double) sim.latency.max / 1000);
	if (sim.kind == SIM_AGGREGATE && sim.callers)
		printf("answered_revisions %" PRId64 " answered_total %" PRId64 "\n", revisions, total);
	if (sim.kind == SIM_AGGREGATE && sim.consumers)
	{
		printf("projected_revisions %" PRId64 " projected_total %" PRId64 "\n", seen, seen_total);
		printf("command_to_event_ms p50 %.2f p99 %.2f\n", sim_histogram_ms(&sim.command_to_event, 0.5),
			   sim_histogram_ms(&sim.command_to_event, 0.99));
		printf("answer_to_event_ms p50 %.2f p99 %.2f\n", sim_histogram_ms(&sim.answer_to_event, 0.5),
			   sim_histogram_ms(&sim.answer_to_event, 0.99));
		if (sim.failed == 0 && sim.callers && (seen != revisions || seen_total != total))
			sim_wrong(&sim, "the projection differs from what was answered");
	}
	printf("wrong %" PRIu64 "\n", sim.wrong);
}

int
main(int argc, char **argv)
{
	static uv_loop_t loop;
	bool		ok;

	sim = (sim_t) {.loop = &loop,.handlers = 1,.callers = 64,.consumers = 1,.payload = 100,.snapshot_every = 20,
		.seconds = 10,.timeout_ms = 30000};
	options(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	sim.order = calloc(sim.orders, sizeof(*sim.order));
	if (sim.order == NULL || uv_loop_init(&loop) < 0)
	{
		fputs("evento-sim: out of memory\n", stderr);
		return 1;
	}
	uv_prepare_init(&loop, &prepare);
	uv_prepare_start(&prepare, on_prepare);
	uv_timer_init(&loop, &clock_timer);
	uv_timer_start(&clock_timer, on_clock, 20, 20);
	uv_signal_init(&loop, &sigint);
	uv_signal_start(&sigint, on_signal, SIGINT);
	uv_signal_init(&loop, &sigterm);
	uv_signal_start(&sigterm, on_signal, SIGTERM);
	started = stopped = uv_hrtime();
	if (!sim_handlers_start(&sim) || (sim.callers && !sim_consumers_start(&sim)) || (sim.callers && !sim_callers_start(&sim)))
	{
		fputs("evento-sim: out of memory\n", stderr);
		return 1;
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	summary();
	ok = sim.wrong == 0 && (sim.failed == 0 || sim.allow_failures);
	free(sim.order);
	puts(ok ? "OK" : "FAILED");
	return ok ? 0 : 1;
}
