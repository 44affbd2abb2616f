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
#define EVP_LOG_LINE_MAX (EVP_LOG_TEXT_MAX + 700)

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const char *const format_names[] = {"text", "json"};
static evp_log_level_t log_level = EVP_LOG_INFO;
static evp_log_format_t log_format = EVP_LOG_TEXT;

void
evp_log_set_format(evp_log_format_t format)
{
	log_format = format;
}

bool
evp_log_format_parse(const char *name, evp_log_format_t *format)
{
	for (size_t i = 0; i < sizeof(format_names) / sizeof(format_names[0]); i++)
	{
		if (strcmp(name, format_names[i]) == 0)
		{
			*format = (evp_log_format_t) i;
			return true;
		}
	}
	return false;
}

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

/* The length of the UTF-8 character at p, 0 where there is none. */
static size_t
utf8_len(const unsigned char *p)
{
	size_t		len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	for (size_t i = 1; i < len; i++)
	{
		if ((p[i] & 0xc0) != 0x80)
			return 0;			/* the terminator among them */
	}
	/* Overlong forms, surrogates, beyond U+10FFFF. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return len;
}

/* Copies text as what stands between the quotes of a JSON string. */
static size_t
put_json(char *out, size_t size, const char *text)
{
	const unsigned char *p = (const unsigned char *) text;
	size_t		n = 0;

	while (*p != '\0' && n + 7 < size)
	{
		size_t		len = utf8_len(p);

		if (len == 0)
			out[n++] = '?';
		else if (*p == '"' || *p == '\\')
		{
			out[n++] = '\\';
			out[n++] = (char) *p;
		}
		else if (*p < 0x20 || *p == 0x7f)
			n += (size_t) snprintf(out + n, 7, "\\u%04x", *p);
		else
		{
			memcpy(out + n, p, len);
			n += len;
		}
		p += len > 0 ? len : 1;
	}
	return n;
}

static size_t
put_literal(char *out, const char *text)
{
	size_t		n = strlen(text);

	memcpy(out, text, n);
	return n;
}

static size_t
compose_text(char *line, size_t size, const char *when, const char *level, const char *module, const char *peer, const char *text)
{
	size_t		n = put_literal(line, when);

	line[n++] = ' ';
	n += put_literal(line + n, level);
	line[n++] = ' ';
	n += put_clean(line + n, 64, module);
	if (peer != NULL && peer[0] != '\0')
	{
		line[n++] = ' ';
		n += put_clean(line + n, 400, peer);
	}
	n += put_literal(line + n, ": ");
	n += put_clean(line + n, size - n - 1, text);
	line[n++] = '\n';
	return n;
}

static size_t
compose_json(char *line, size_t size, const char *when, const char *level, const char *module, const char *peer, const char *text)
{
	size_t		n = put_literal(line, "{\"time\":\"");

	n += put_literal(line + n, when);
	n += put_literal(line + n, "\",\"level\":\"");
	n += put_literal(line + n, level);
	n += put_literal(line + n, "\",\"module\":\"");
	n += put_json(line + n, 64, module);
	if (peer != NULL && peer[0] != '\0')
	{
		n += put_literal(line + n, "\",\"peer\":\"");
		n += put_json(line + n, 400, peer);
	}
	n += put_literal(line + n, "\",\"message\":\"");
	n += put_json(line + n, size - n - 3, text);
	n += put_literal(line + n, "\"}\n");
	return n;
}

void
evp_log(evp_log_level_t level, const char *module, const char *peer, const char *format, ...)
{
	char		text[EVP_LOG_TEXT_MAX];
	char		line[EVP_LOG_LINE_MAX];
	char		when[32];
	struct timespec now;
	struct tm	utc;
	size_t		n;
	va_list		args;

	if (!evp_log_enabled(level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	n = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(when + n, sizeof(when) - n, ".%03dZ", (int) (now.tv_nsec / 1000000));
	n = (log_format == EVP_LOG_JSON ? compose_json : compose_text) (line, sizeof(line), when, level_names[level], module, peer, text);

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
