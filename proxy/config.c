/*
 * config.c
 *    Reads the settings: defaults, then the ini file, then the environment,
 *    then flags.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

typedef enum setting_kind
{
	KIND_TEXT,
	KIND_NUMBER,
	KIND_MS,
	KIND_BYTES,
	KIND_LEVEL,
	KIND_FORMAT
} setting_kind_t;

typedef struct setting
{
	const char *field;			/* its name in evp_config_t */
	setting_kind_t kind;
	size_t		offset;			/* in evp_config_t */
	const char *dflt;
	uint64_t	least;
	uint64_t	most;
	const char *help;
	char		flag[40];		/* the same with "-", set by flags_init */
	char		variable[56];	/* in the environment, as well */
	bool		reloaded;		/* taken over by evp_config_reload, as well */
} setting_t;

/* The table. */
static setting_t settings[] = {
#define EVP_ROW(kind, field, dflt, least, most, help) {#field, KIND_##kind, offsetof(evp_config_t, field), dflt, least, most, help, "", "", false},
	EVP_SETTINGS(EVP_ROW)
#undef EVP_ROW
};

#define SETTING_COUNT (sizeof(settings) / sizeof(settings[0]))

/* Long options beside the settings. */
enum
{
	OPTION_CONFIG = SETTING_COUNT + 256,
	OPTION_HELP,
	OPTION_VERSION
};

#define VARIABLE_PREFIX "EVENTO_PROXY_"
#define OPTION_SETTING 256		/* option value of the first setting, beyond any character */

/* Where the settings of an ini file go while it is read. */
typedef struct ini_state
{
	FILE	   *stream;
	evp_config_t *config;
	char	   *error;
	size_t		size;
	const char *file;
	int			line;			/* that is being read */
	int			bad_line;		/* the first bad one, 0: none */
	bool		continued;		/* the line begins with a space: it goes on with the setting above */
} ini_state_t;

static void
flags_init(void)
{
	for (size_t i = 0; i < SETTING_COUNT; i++)
	{
		snprintf(settings[i].flag, sizeof(settings[i].flag), "%s", settings[i].field);
		for (char *p = settings[i].flag; *p != '\0'; p++)
		{
			if (*p == '_')
				*p = '-';
		}
		snprintf(settings[i].variable, sizeof(settings[i].variable), VARIABLE_PREFIX "%s", settings[i].field);
		for (char *p = settings[i].variable; *p != '\0'; p++)
			*p = (char) toupper((unsigned char) *p);
#define EVP_MARK(field_) \
		if (settings[i].offset == offsetof(evp_config_t, field_)) \
			settings[i].reloaded = true;
		EVP_RELOADED(EVP_MARK)
#undef EVP_MARK
	}
}

/* A number with one of the units given; false where it is none or too large for 64 bits. */
static bool
parse_scaled(const char *text, const char *const *units, const uint64_t *factors, size_t count, uint64_t *value)
{
	char	   *end;
	uint64_t	n;
	uint64_t	factor = 1;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno != 0)
		return false;
	while (*end == ' ')
		end++;
	if (*end != '\0')
	{
		size_t		i = 0;

		while (i < count && strcmp(end, units[i]) != 0)
			i++;
		if (i == count)
			return false;
		factor = factors[i];
	}
	return !__builtin_mul_overflow(n, factor, value);
}

static bool
parse_value(const setting_t *setting, const char *text, uint64_t *value)
{
	static const char *const ms_units[] = {"ms", "s", "min"};
	static const uint64_t ms_factors[] = {1, 1000, 60000};
	static const char *const byte_units[] = {"B", "kB", "MB", "GB"};
	static const uint64_t byte_factors[] = {1, UINT64_C(1) << 10, UINT64_C(1) << 20, UINT64_C(1) << 30};
	evp_log_level_t level;
	evp_log_format_t format;

	switch (setting->kind)
	{
		case KIND_TEXT:
			return false;
		case KIND_NUMBER:
			return parse_scaled(text, NULL, NULL, 0, value);
		case KIND_MS:
			return parse_scaled(text, ms_units, ms_factors, 3, value);
		case KIND_BYTES:
			return parse_scaled(text, byte_units, byte_factors, 4, value);
		case KIND_LEVEL:
			if (!evp_log_level_parse(text, &level))
				return false;
			*value = (uint64_t) level;
			return true;
		case KIND_FORMAT:
			if (!evp_log_format_parse(text, &format))
				return false;
			*value = (uint64_t) format;
			return true;
	}
	return false;
}

static const char *
kind_words(setting_kind_t kind)
{
	switch (kind)
	{
		case KIND_TEXT:
			return "text";
		case KIND_NUMBER:
			return "a whole number";
		case KIND_MS:
			return "a time such as 500ms, 10s or 2min";
		case KIND_BYTES:
			return "a size such as 64kB, 16MB or 1GB";
		case KIND_LEVEL:
			return "error, warning, info or debug";
		case KIND_FORMAT:
			return "text or json";
	}
	return "";
}

/* Sets one setting.  False, with the rest of a sentence that begins with the setting's name, when the value is bad. */
static bool
apply(evp_config_t *config, const setting_t *setting, const char *text, char *why, size_t size)
{
	char	   *field = (char *) config + setting->offset;
	uint64_t	value;

	if (setting->kind == KIND_TEXT)
	{
		size_t		len = strlen(text);
		char	   *copy;

		if (len < setting->least || len > setting->most)
		{
			snprintf(why, size, "must be %llu to %llu bytes long", (unsigned long long) setting->least,
					 (unsigned long long) setting->most);
			return false;
		}
		copy = strdup(text);
		if (copy == NULL)
		{
			snprintf(why, size, "does not fit in memory");
			return false;
		}
		free(*(char **) field);
		*(char **) field = copy;
		return true;
	}
	if (!parse_value(setting, text, &value))
	{
		snprintf(why, size, "must be %s, not \"%.100s\"", kind_words(setting->kind), text);
		return false;
	}
	if (setting->kind != KIND_LEVEL && setting->kind != KIND_FORMAT && (value < setting->least || value > setting->most))
	{
		snprintf(why, size, "must be %llu to %llu%s, not \"%.100s\"", (unsigned long long) setting->least,
				 (unsigned long long) setting->most,
				 setting->kind == KIND_MS ? " ms" : setting->kind == KIND_BYTES ? " bytes" : "", text);
		return false;
	}
	*(uint64_t *) field = value;
	return true;
}

static void ini_error(ini_state_t *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Notes the first error of a file: later ones may only follow from it. */
static void
ini_error(ini_state_t *state, const char *format, ...)
{
	va_list		args;
	int			head;

	if (state->bad_line != 0)
		return;
	state->bad_line = state->line;
	head = snprintf(state->error, state->size, "%s line %d: ", state->file, state->line);
	if (head < 0 || (size_t) head >= state->size)
		return;
	va_start(args, format);
	vsnprintf(state->error + head, state->size - (size_t) head, format, args);
	va_end(args);
}

/* inih's reader: counts lines, and finds those that inih would break in two. */
static char *
read_line(char *text, int size, void *arg)
{
	ini_state_t *state = arg;
	char	   *got = fgets(text, size, state->stream);
	int			next;

	if (got == NULL)
		return NULL;
	state->line++;
	state->continued = text[0] == ' ' || text[0] == '\t';
	if (strchr(text, '\n') == NULL && !feof(state->stream))
	{
		ini_error(state, "longer than %d bytes; a value can go on in the next line, which then begins with a space",
				  size - 2);
		while ((next = getc(state->stream)) != EOF && next != '\n')
			;
	}
	return got;
}

/* A text that goes on in a second line: both with a space between. */
static void
apply_continued(ini_state_t *state, const setting_t *setting, const char *more)
{
	char	   *before = *(char **) ((char *) state->config + setting->offset);
	size_t		len = strlen(before) + strlen(more) + 2;
	char	   *joined = malloc(len);
	char		why[300];

	if (joined == NULL)
	{
		ini_error(state, "%s does not fit in memory", setting->flag);
		return;
	}
	snprintf(joined, len, "%s %s", before, more);
	if (!apply(state->config, setting, joined, why, sizeof(why)))
		ini_error(state, "%s %s", setting->flag, why);
	free(joined);
}

static int
on_ini(void *arg, const char *section, const char *name, const char *value)
{
	ini_state_t *state = arg;
	char		why[300];

	if (section[0] != '\0' && strcmp(section, "evento-proxy") != 0)
	{
		ini_error(state, "unknown section [%.100s]", section);
		return 0;
	}
	for (size_t i = 0; i < SETTING_COUNT; i++)
	{
		if (strcmp(settings[i].flag, name) != 0)
			continue;
		if (state->continued && settings[i].kind == KIND_TEXT)
			apply_continued(state, &settings[i], value);
		else if (!apply(state->config, &settings[i], value, why, sizeof(why)))
			ini_error(state, "%s %s", name, why);
		return 1;
	}
	ini_error(state, "unknown setting \"%.100s\"", name);
	return 0;
}

static bool
read_file(evp_config_t *config, const char *file, char *error, size_t size)
{
	ini_state_t state = {fopen(file, "r"), config, error, size, file, 0, 0, false};
	int			rc;

	if (state.stream == NULL)
	{
		snprintf(error, size, "--config %s: %s", file, strerror(errno));
		return false;
	}
	rc = ini_parse_stream(read_line, &state, on_ini, &state);
	if (ferror(state.stream))
		snprintf(error, size, "--config %s: cannot be read", file);
	else if (rc > 0 && (state.bad_line == 0 || rc < state.bad_line))
		snprintf(error, size, "%s line %d: not of the form \"setting = value\"", file, rc);
	else if (rc == 0 && state.bad_line == 0)
	{
		fclose(state.stream);
		return true;
	}
	fclose(state.stream);
	return false;
}

static void
print_help(void)
{
	printf("evento-proxy " EVP_VERSION ": connects bundles of the Evento Framework to an event store in PostgreSQL.\n\n"
		   "Usage: evento-proxy [--config FILE] [--SETTING VALUE]...\n\n"
		   "Flags win over the environment, that over the file, and the file over the defaults. The variable of a setting is\n"
		   VARIABLE_PREFIX " and its name in capitals, with _ for -; in the file a line reads \"setting = value\". What is marked\n"
		   "with * is read again at SIGHUP.\n\n"
		   "  --config FILE\n      ini file with settings (" VARIABLE_PREFIX "CONFIG)\n"
		   "  --help\n      shows this text\n"
		   "  --version\n      shows the version\n");
	for (size_t i = 0; i < SETTING_COUNT; i++)
		printf("  --%s (default: %s)\n      %s%s\n", settings[i].flag, settings[i].dflt[0] == '\0' ? "none" : settings[i].dflt,
			   settings[i].help, settings[i].reloaded ? " *" : "");
}

static void
build_options(struct option *options)
{
	size_t		n = 0;

	for (; n < SETTING_COUNT; n++)
		options[n] = (struct option) {settings[n].flag, required_argument, NULL, OPTION_SETTING + (int) n};
	options[n++] = (struct option) {"config", required_argument, NULL, OPTION_CONFIG};
	options[n++] = (struct option) {"help", no_argument, NULL, OPTION_HELP};
	options[n++] = (struct option) {"version", no_argument, NULL, OPTION_VERSION};
	options[n] = (struct option) {NULL, 0, NULL, 0};
}

/*
 * One pass over the flags.  In the first only --config, --help and --version
 * count, since the file has to be read before flags overrule it.
 */
static evp_config_outcome_t
read_flags(evp_config_t *config, int argc, char **argv, const char **file, char *error, size_t size)
{
	struct option options[SETTING_COUNT + 4];
	char		why[300];
	int			option;

	build_options(options);
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1)
	{
		if (option == OPTION_HELP && file != NULL)
		{
			print_help();
			return EVP_CONFIG_EXIT;
		}
		else if (option == OPTION_VERSION && file != NULL)
		{
			printf("evento-proxy " EVP_VERSION "\n");
			return EVP_CONFIG_EXIT;
		}
		else if (option == OPTION_CONFIG)
		{
			if (file != NULL)
				*file = optarg;
		}
		else if (option == ':')
		{
			snprintf(error, size, "%.100s needs a value", argv[optind - 1]);
			return EVP_CONFIG_ERROR;
		}
		else if (option == '?')
		{
			snprintf(error, size, "unknown or ambiguous flag %.100s (--help lists all)", argv[optind - 1]);
			return EVP_CONFIG_ERROR;
		}
		else if (file == NULL && option >= OPTION_SETTING && option < OPTION_SETTING + (int) SETTING_COUNT &&
				 !apply(config, &settings[option - OPTION_SETTING], optarg, why, sizeof(why)))
		{
			snprintf(error, size, "--%s %s", settings[option - OPTION_SETTING].flag, why);
			return EVP_CONFIG_ERROR;
		}
	}
	if (optind < argc)
	{
		snprintf(error, size, "unexpected argument \"%.100s\" (--help lists the flags)", argv[optind]);
		return EVP_CONFIG_ERROR;
	}
	return EVP_CONFIG_OK;
}

/* Variables that are empty count as not set. */
static bool
read_environment(evp_config_t *config, char *error, size_t size)
{
	char		why[300];

	for (size_t i = 0; i < SETTING_COUNT; i++)
	{
		const char *value = getenv(settings[i].variable);

		if (value != NULL && value[0] != '\0' && !apply(config, &settings[i], value, why, sizeof(why)))
		{
			snprintf(error, size, "%s %s", settings[i].variable, why);
			return false;
		}
	}
	return true;
}

/* Whether two workers would want the same port. */
static bool
port_ranges_meet(const evp_config_t *config)
{
	uint64_t	n = config->workers;
	uint64_t	internal = config->internal_port;
	uint64_t	http = config->http_port;
	uint64_t	bundle = config->bundle_port;

	return (internal < http + n && http < internal + n) || (bundle >= internal && bundle < internal + n) ||
		(bundle >= http && bundle < http + n);
}

/* What no single setting can say by its bounds. */
static bool
check_whole(const evp_config_t *config, char *error, size_t size)
{
	const struct
	{
		const char *flag;
		const char *value;
	}			pairs[] = {{"advertised", config->advertised}, {"internal-advertised", config->internal_advertised}};
	char		host[256];
	uint16_t	port;

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		if (pairs[i].value[0] != '\0' && !evp_config_host_port(pairs[i].value, host, sizeof(host), &port))
		{
			snprintf(error, size, "--%s must be host:port, not \"%.100s\"", pairs[i].flag, pairs[i].value);
			return false;
		}
	}
	if (config->internal_port + config->workers - 1 > 65535 || config->http_port + config->workers - 1 > 65535)
	{
		snprintf(error, size, "--workers: there are not so many ports from --internal-port and --http-port on");
		return false;
	}
	if (config->workers > 1 && config->internal_advertised[0] != '\0' &&
		evp_config_host_port(config->internal_advertised, host, sizeof(host), &port) && port + config->workers - 1 > 65535)
	{
		snprintf(error, size, "--workers: there are not so many ports from that of --internal-advertised on");
		return false;
	}
	if (config->workers > 1 && port_ranges_meet(config))
	{
		snprintf(error, size, "--workers: the ports from --internal-port and --http-port on must not meet each other, nor --bundle-port");
		return false;
	}
	if (strcmp(config->http_api, "open") != 0 && strcmp(config->http_api, "closed") != 0)
	{
		snprintf(error, size, "--http-api must be open or closed, not \"%.100s\"", config->http_api);
		return false;
	}
	if (strcmp(config->read_from, "primary") != 0 && strcmp(config->read_from, "standby") != 0)
	{
		snprintf(error, size, "--read-from must be primary or standby, not \"%.100s\"", config->read_from);
		return false;
	}
	if (config->ping_interval >= config->idle_timeout)
	{
		snprintf(error, size, "--ping-interval (%llu ms) must be less than --idle-timeout (%llu ms)",
				 (unsigned long long) config->ping_interval, (unsigned long long) config->idle_timeout);
		return false;
	}
	return true;
}

/* Fills in what is empty and depends on the machine or on other settings. */
static bool
complete(evp_config_t *config, char *error, size_t size)
{
	struct
	{
		char	  **value;
		const char *address;
		uint64_t	port;
	}			pairs[] = {{&config->advertised, config->bundle_address, config->bundle_port},
	{&config->internal_advertised, config->internal_address, config->internal_port}};
	char		host[256] = "";
	char		text[300];

	if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
		snprintf(host, sizeof(host), "localhost");
	if (config->name[0] == '\0')
	{
		free(config->name);
		config->name = strndup(host, 128);
	}
	for (size_t i = 0; i < 2; i++)
	{
		const char *address = pairs[i].address;

		if ((*pairs[i].value)[0] != '\0')
			continue;
		/* An address that means every interface leads nobody here; the host's name does. */
		if (strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0)
			address = host;
		snprintf(text, sizeof(text), strchr(address, ':') != NULL ? "[%s]:%llu" : "%s:%llu", address,
				 (unsigned long long) pairs[i].port);
		free(*pairs[i].value);
		*pairs[i].value = strdup(text);
	}
	if (config->name == NULL || config->advertised == NULL || config->internal_advertised == NULL)
	{
		snprintf(error, size, "no memory for the settings");
		return false;
	}
	return true;
}

evp_config_outcome_t
evp_config_read(evp_config_t *config, int argc, char **argv, char *error, size_t size)
{
	const char *file = getenv(VARIABLE_PREFIX "CONFIG");
	evp_config_outcome_t outcome;
	char		why[300];

	memset(config, 0, sizeof(*config));
	error[0] = '\0';
	flags_init();
	outcome = read_flags(config, argc, argv, &file, error, size);
	if (outcome != EVP_CONFIG_OK)
		return outcome;
	for (size_t i = 0; i < SETTING_COUNT; i++)
	{
		if (!apply(config, &settings[i], settings[i].dflt, why, sizeof(why)))
		{
			snprintf(error, size, "default of --%s %s", settings[i].flag, why);
			goto failed;
		}
	}
	if (file != NULL && file[0] != '\0' && !read_file(config, file, error, size))
		goto failed;
	if (!read_environment(config, error, size))
		goto failed;
	if (read_flags(config, argc, argv, NULL, error, size) != EVP_CONFIG_OK)
		goto failed;
	if (!check_whole(config, error, size) || !complete(config, error, size))
		goto failed;
	return EVP_CONFIG_OK;

failed:
	evp_config_free(config);
	return EVP_CONFIG_ERROR;
}

bool
evp_config_for_worker(evp_config_t *config, int number, char *error, size_t size)
{
	char		host[256];
	uint16_t	port;
	char		name[160];
	char		internal[300];
	char	   *copies[2];

	snprintf(name, sizeof(name), "%s-%d", config->name, number + 1);
	/* check_whole has seen to it that these are such pairs, and that the ports suffice. */
	evp_config_host_port(config->internal_advertised, host, sizeof(host), &port);
	snprintf(internal, sizeof(internal), strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host, port + number);
	copies[0] = strdup(name);
	copies[1] = strdup(internal);
	if (copies[0] == NULL || copies[1] == NULL)
	{
		free(copies[0]);
		free(copies[1]);
		snprintf(error, size, "no memory for the settings");
		return false;
	}
	free(config->name);
	free(config->internal_advertised);
	config->name = copies[0];
	config->internal_advertised = copies[1];
	config->internal_port += (uint64_t) number;
	config->http_port += (uint64_t) number;
	return true;
}

bool
evp_config_reload(evp_config_t *config, int argc, char **argv, int worker, evp_config_tell tell, char *error, size_t size)
{
	evp_config_t fresh;

	if (evp_config_read(&fresh, argc, argv, error, size) != EVP_CONFIG_OK)
		return false;
	if (worker >= 0 && !evp_config_for_worker(&fresh, worker, error, size))
	{
		evp_config_free(&fresh);
		return false;
	}
	for (size_t i = 0; i < SETTING_COUNT; i++)
	{
		char	   *before = (char *) config + settings[i].offset;
		const char *after = (const char *) &fresh + settings[i].offset;

		if (settings[i].kind == KIND_TEXT ? strcmp(*(char **) before, *(char *const *) after) == 0 :
			*(uint64_t *) before == *(const uint64_t *) after)
			continue;
		if (settings[i].reloaded)
			*(uint64_t *) before = *(const uint64_t *) after;
		tell(settings[i].flag, settings[i].reloaded);
	}
	evp_config_free(&fresh);
	return true;
}

void
evp_config_free(evp_config_t *config)
{
	for (size_t i = 0; i < SETTING_COUNT; i++)
	{
		if (settings[i].kind == KIND_TEXT)
			free(*(char **) ((char *) config + settings[i].offset));
	}
	memset(config, 0, sizeof(*config));
}

bool
evp_config_host_port(const char *text, char *host, size_t size, uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	const char *from = text;
	size_t		len;
	char	   *end;
	unsigned long n;

	if (colon == NULL || colon == text || colon[1] < '0' || colon[1] > '9')
		return false;
	len = (size_t) (colon - text);
	if (text[0] == '[')
	{
		if (len < 3 || colon[-1] != ']')
			return false;
		from++;
		len -= 2;
	}
	else if (memchr(text, ':', len) != NULL)
		return false;			/* an IPv6 address needs its brackets */
	if (len >= size)
		return false;
	errno = 0;
	n = strtoul(colon + 1, &end, 10);
	if (errno != 0 || *end != '\0' || n < 1 || n > 65535)
		return false;
	memcpy(host, from, len);
	host[len] = '\0';
	*port = (uint16_t) n;
	return true;
}
