/*
 * config_test.c
 *    Settings: defaults, flags, ini file, and what is said of bad ones.
 */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "log.h"

#define ARGS_MAX 16

static char error[1024];

/* Reads the settings from flags, which end with NULL. */
static evp_config_outcome_t
read_flags(evp_config_t *config, ...)
{
	char	   *argv[ARGS_MAX] = {"evento-proxy"};
	int			argc = 1;
	va_list		args;

	va_start(args, config);
	while (argc < ARGS_MAX - 1 && (argv[argc] = va_arg(args, char *)) != NULL)
		argc++;
	va_end(args);
	return evp_config_read(config, argc, argv, error, sizeof(error));
}

/* A file with this text; its name is static. */
static char *
file_with(const char *text)
{
	static char name[64];
	int			fd;

	strcpy(name, "/tmp/evento-config-test-XXXXXX");
	fd = mkstemp(name);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t) strlen(text));
	close(fd);
	return name;
}

static evp_config_outcome_t
read_ini(evp_config_t *config, const char *text)
{
	char	   *name = file_with(text);
	evp_config_outcome_t outcome = read_flags(config, "--config", name, NULL);

	unlink(name);
	return outcome;
}

static void
test_defaults(void **state)
{
	evp_config_t config;
	char		host[256] = "";

	(void) state;
	assert_int_equal(read_flags(&config, NULL), EVP_CONFIG_OK);
	gethostname(host, sizeof(host) - 1);
	assert_string_equal(config.name, host);
	assert_string_equal(config.database, "");
	assert_string_equal(config.bundle_address, "0.0.0.0");
	assert_int_equal(config.bundle_port, 3030);
	assert_string_equal(config.internal_advertised, "127.0.0.1:3031");
	assert_int_equal(config.hello_timeout, 10000);
	assert_int_equal(config.max_message, 256 * 1024 * 1024);
	assert_int_equal(config.max_timeout, 600000);
	assert_int_equal(config.log_level, EVP_LOG_INFO);
	evp_config_free(&config);
}

static void
test_flags(void **state)
{
	evp_config_t config;

	(void) state;
	assert_int_equal(read_flags(&config, "--bundle-port=4040", "--database", "dbname=x", "--hello-timeout", "250ms",
								"--frame-timeout", "2 min", "--output-bytes=1GB", "--log-level", "debug", "--bundle-address", "::1",
								NULL), EVP_CONFIG_OK);
	assert_int_equal(config.bundle_port, 4040);
	assert_string_equal(config.database, "dbname=x");
	assert_int_equal(config.hello_timeout, 250);
	assert_int_equal(config.frame_timeout, 120000);
	assert_int_equal(config.output_bytes, 1024 * 1024 * 1024);
	assert_int_equal(config.log_level, EVP_LOG_DEBUG);
	assert_string_equal(config.advertised, "[::1]:4040");
	evp_config_free(&config);
}

static void
test_file(void **state)
{
	evp_config_t config;

	(void) state;
	assert_int_equal(read_ini(&config, "; a comment\nname = p1\n[evento-proxy]\nhttp-port=1234\nping-interval = 5s\n"
							  "database = host=a,b ; the pair\n  dbname=x\n  user=y\n"), EVP_CONFIG_OK);
	assert_string_equal(config.name, "p1");
	assert_int_equal(config.http_port, 1234);
	assert_int_equal(config.ping_interval, 5000);
	assert_string_equal(config.database, "host=a,b dbname=x user=y");
	evp_config_free(&config);
}

static void
test_flags_win_over_file(void **state)
{
	evp_config_t config;
	char	   *name = file_with("name = of-the-file\nhttp-port = 1\n");
	evp_config_outcome_t outcome = read_flags(&config, "--name", "of-the-flag", "--config", name, NULL);

	(void) state;
	unlink(name);
	assert_int_equal(outcome, EVP_CONFIG_OK);
	assert_string_equal(config.name, "of-the-flag");
	assert_int_equal(config.http_port, 1);
	evp_config_free(&config);
}

static void
test_environment_between(void **state)
{
	evp_config_t config;
	char	   *name = file_with("name = of-the-file\nhttp-port = 1\nbundle-port = 2\n");
	evp_config_outcome_t outcome;

	(void) state;
	setenv("EVENTO_PROXY_NAME", "of-the-environment", 1);
	setenv("EVENTO_PROXY_HTTP_PORT", "4", 1);
	setenv("EVENTO_PROXY_BUNDLE_PORT", "", 1);
	setenv("EVENTO_PROXY_LOG_FORMAT", "json", 1);
	setenv("EVENTO_PROXY_CONFIG", name, 1);
	outcome = read_flags(&config, "--name", "of-the-flag", NULL);
	unlink(name);
	assert_int_equal(outcome, EVP_CONFIG_OK);
	assert_string_equal(config.name, "of-the-flag");
	assert_int_equal(config.http_port, 4);
	assert_int_equal(config.bundle_port, 2);
	assert_int_equal(config.log_format, EVP_LOG_JSON);
	evp_config_free(&config);
	unsetenv("EVENTO_PROXY_CONFIG");
	setenv("EVENTO_PROXY_HTTP_PORT", "http", 1);
	assert_int_equal(read_flags(&config, NULL), EVP_CONFIG_ERROR);
	assert_string_equal(error, "EVENTO_PROXY_HTTP_PORT must be a whole number, not \"http\"");
	unsetenv("EVENTO_PROXY_HTTP_PORT");
	unsetenv("EVENTO_PROXY_NAME");
	unsetenv("EVENTO_PROXY_BUNDLE_PORT");
	unsetenv("EVENTO_PROXY_LOG_FORMAT");
}

static char told[200];

static void
tell(const char *flag, bool taken)
{
	size_t		n = strlen(told);

	snprintf(told + n, sizeof(told) - n, "%s%s;", flag, taken ? "" : " stays");
}

static void
test_reload(void **state)
{
	evp_config_t config;
	char	   *name = file_with("max-names = 5\nname = a\nfeed-bytes = 2MB\n");
	char	   *argv[] = {"evento-proxy", "--config", name, "--max-calls", "9", NULL};
	FILE	   *file;

	(void) state;
	assert_int_equal(evp_config_read(&config, 5, argv, error, sizeof(error)), EVP_CONFIG_OK);
	file = fopen(name, "w");
	assert_non_null(file);
	fputs("max-names = 6\nname = b\nfeed-bytes = 3MB\nmax-calls = 10\n", file);
	fclose(file);
	told[0] = '\0';
	assert_true(evp_config_reload(&config, 5, argv, -1, tell, error, sizeof(error)));
	assert_string_equal(told, "name stays;max-names;feed-bytes stays;");
	assert_int_equal(config.max_names, 6);
	assert_int_equal(config.max_calls, 9);
	assert_int_equal(config.feed_bytes, 2 * 1024 * 1024);
	assert_string_equal(config.name, "a");
	file = fopen(name, "w");
	assert_non_null(file);
	fputs("max-names = 7\nname\n", file);
	fclose(file);
	assert_false(evp_config_reload(&config, 5, argv, -1, tell, error, sizeof(error)));
	assert_int_equal(config.max_names, 6);
	unlink(name);
	evp_config_free(&config);
}

/* A bad flag is refused, and the message says which and why. */
static void
bad_flag(char *flag, char *value, const char *message)
{
	evp_config_t config;

	assert_int_equal(read_flags(&config, flag, value, NULL), EVP_CONFIG_ERROR);
	assert_string_equal(error, message);
}

static void
test_bad_flags(void **state)
{
	char		long_name[200];

	(void) state;
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	bad_flag("--bundle-port", "65536", "--bundle-port must be 1 to 65535, not \"65536\"");
	bad_flag("--bundle-port", "0", "--bundle-port must be 1 to 65535, not \"0\"");
	bad_flag("--bundle-port", "-1", "--bundle-port must be a whole number, not \"-1\"");
	bad_flag("--bundle-port", "3030x", "--bundle-port must be a whole number, not \"3030x\"");
	bad_flag("--bundle-port", "99999999999999999999", "--bundle-port must be a whole number, not \"99999999999999999999\"");
	bad_flag("--bundle-port", "", "--bundle-port must be a whole number, not \"\"");
	bad_flag("--hello-timeout", "10h", "--hello-timeout must be a time such as 500ms, 10s or 2min, not \"10h\"");
	bad_flag("--hello-timeout", "0", "--hello-timeout must be 1 to 600000 ms, not \"0\"");
	bad_flag("--max-message", "1TB", "--max-message must be a size such as 64kB, 16MB or 1GB, not \"1TB\"");
	bad_flag("--max-message", "18446744073709551615GB",
			 "--max-message must be a size such as 64kB, 16MB or 1GB, not \"18446744073709551615GB\"");
	bad_flag("--log-level", "loud", "--log-level must be error, warning, info or debug, not \"loud\"");
	bad_flag("--name", long_name, "--name must be 0 to 128 bytes long");
	bad_flag("--advertised", "nohost", "--advertised must be host:port, not \"nohost\"");
	bad_flag("--ping-interval", "45s", "--ping-interval (45000 ms) must be less than --idle-timeout (45000 ms)");
	bad_flag("--bundle-port", NULL, "--bundle-port needs a value");
	bad_flag("--no-such", NULL, "unknown or ambiguous flag --no-such (--help lists all)");
	bad_flag("stray", NULL, "unexpected argument \"stray\" (--help lists the flags)");
	bad_flag("--config", "/nonexistent/x.ini", "--config /nonexistent/x.ini: No such file or directory");
}

/* A bad file is refused, and the message names the line. */
static void
bad_file(const char *text, const char *message)
{
	evp_config_t config;

	assert_int_equal(read_ini(&config, text), EVP_CONFIG_ERROR);
	assert_non_null(strstr(error, message));
	assert_non_null(strstr(error, "/tmp/evento-config-test-"));
}

static void
test_bad_files(void **state)
{
	char		line[400];

	(void) state;
	bad_file("name = a\n\nhttp-port = x\nbundle-port = 0\n", " line 3: http-port must be a whole number, not \"x\"");
	bad_file("no-such = 1\n", " line 1: unknown setting \"no-such\"");
	bad_file("name = a\njust words\nhttp-port = x\n", " line 2: not of the form \"setting = value\"");
	bad_file("[other]\nname = a\n", " line 2: unknown section [other]");
	snprintf(line, sizeof(line), "name = a\ndatabase = %0300d\n", 0);
	bad_file(line, " line 2: longer than ");
}

static void
test_host_port(void **state)
{
	char		host[16];
	uint16_t	port;

	(void) state;
	assert_true(evp_config_host_port("a.b:1", host, sizeof(host), &port));
	assert_string_equal(host, "a.b");
	assert_int_equal(port, 1);
	assert_true(evp_config_host_port("[::1]:65535", host, sizeof(host), &port));
	assert_string_equal(host, "::1");
	assert_int_equal(port, 65535);
	assert_false(evp_config_host_port("a", host, sizeof(host), &port));
	assert_false(evp_config_host_port(":1", host, sizeof(host), &port));
	assert_false(evp_config_host_port("a:", host, sizeof(host), &port));
	assert_false(evp_config_host_port("a:0", host, sizeof(host), &port));
	assert_false(evp_config_host_port("a:65536", host, sizeof(host), &port));
	assert_false(evp_config_host_port("::1:80", host, sizeof(host), &port));
	assert_false(evp_config_host_port("[]:80", host, sizeof(host), &port));
	assert_false(evp_config_host_port("sixteen-bytes-xx:1", host, sizeof(host), &port));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_flags_win_over_file),
		cmocka_unit_test(test_environment_between),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_bad_flags),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_host_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
