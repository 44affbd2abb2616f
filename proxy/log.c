/*
 * log.c
 *    Writes log lines to standard error, one write a line.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EVP_LOG_TEXT_MAX 2000

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static evp_log_level_t log_level = EVP_LOG_INFO;

void
evp_log_set_level(evp_log_level_t level)
{
	log_level = level;
}

bool
evp_log_enabled(evp_log_level_t level)
{
	return level <= log_level;
}

bool
evp_log_level_parse(const char *name, evp_log_level_t *level)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
	{
		if (strcmp(name, level_names[i]) == 0)
		{
			*level = (evp_log_level_t) i;
			return true;
		}
	}
	return false;
}

const char *
evp_log_level_name(evp_log_level_t level)
{
	return level_names[level];
}

/* Copies text so that it can neither end the line nor reach a terminal's control sequences. */
static size_t
put_clean(char *out, size_t size, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	size_t		n = 0;

	for (const unsigned char *p = (const unsigned char *) text; *p != '\0' && n + 5 < size; p++)
	{
		if (*p < 0x20 || *p == 0x7f)
		{
			out[n++] = '\\';
			out[n++] = 'x';
			out[n++] = hex[*p >> 4];
			out[n++] = hex[*p & 15];
		}
		else
			out[n++] = (char) *p;
	}
	return n;
}

void
evp_log(evp_log_level_t level, const char *module, const char *peer, const char *format, ...)
{
	char		text[EVP_LOG_TEXT_MAX];
	char		line[EVP_LOG_TEXT_MAX + 600];
	struct timespec now;
	struct tm	utc;
	size_t		n;
	int			head;
	va_list		args;

	if (!evp_log_enabled(level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	head = snprintf(line, 64, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
					utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000, level_names[level]);
	n = (size_t) head;
	n += put_clean(line + n, 64, module);
	if (peer != NULL && peer[0] != '\0')
	{
		line[n++] = ' ';
		n += put_clean(line + n, 400, peer);
	}
	line[n++] = ':';
	line[n++] = ' ';
	n += put_clean(line + n, sizeof(line) - n - 1, text);
	line[n++] = '\n';

	/* A log that cannot be written must not stop the proxy: there is nowhere left to say so. */
	for (size_t done = 0; done < n;)
	{
		ssize_t		wrote = write(STDERR_FILENO, line + done, n - done);

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0)
			break;
		done += (size_t) wrote;
	}
}
