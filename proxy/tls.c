/*
 * tls.c
 *    Certificates and keys: read, checked, and replaced while connections stand.
 */
#include "tls.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include "log.h"
#include "tls_http.h"

#define MODULE "tls"

struct evp_tls
{
	evp_proxy_t *proxy;
	bool		on[3];			/* by port; as at the start, whatever the settings say since */
	SSL_CTX    *bundle;			/* NULL where no port needs it */
	SSL_CTX    *accept;			/* internal */
	SSL_CTX    *dial;
	time_t		ends;			/* the certificate, 0 where no port shows one */
	uv_signal_t hangup;
	bool		stopped;
};

bool
evp_tls_on(const evp_tls_t *tls, evp_tls_port_t port)
{
	return tls->on[port];
}

time_t
evp_tls_ends(const evp_tls_t *tls)
{
	return tls->ends;
}

/* ---- settings ---- */

/* The index of a text among some, -1 and a line in the log where it is none of them. */
static int
choose(const char *flag, const char *text, const char *const *from, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(text, from[i]) == 0)
			return i;
	}
	evp_log(EVP_LOG_ERROR, MODULE, NULL, "%s must be %s%s%s%s%s, not \"%.100s\"", flag, from[0], n > 2 ? ", " : " or ", from[1],
			n > 2 ? " or " : "", n > 2 ? from[2] : "", text);
	return -1;
}

static bool
choose_ports(evp_tls_t *tls)
{
	static const char *const switches[] = {"off", "on", "auto"};
	const evp_config_t *config = &tls->proxy->config;
	int			bundle = choose("--bundle-tls", config->bundle_tls, switches, 2);
	int			internal = choose("--internal-tls", config->internal_tls, switches, 3);
	int			http = choose("--http-tls", config->http_tls, switches, 2);

	if (bundle < 0 || internal < 0 || http < 0)
		return false;
	tls->on[EVP_TLS_BUNDLE] = bundle == 1;
	tls->on[EVP_TLS_INTERNAL] = internal == 1 || (internal == 2 && config->tls_cert[0] != '\0');
	tls->on[EVP_TLS_HTTP] = http == 1;
	return true;
}

/* What the settings lack for what they switch on. */
static bool
check_settings(const evp_tls_t *tls)
{
	const evp_config_t *config = &tls->proxy->config;
	bool		any = tls->on[EVP_TLS_BUNDLE] || tls->on[EVP_TLS_INTERNAL] || tls->on[EVP_TLS_HTTP];
	bool		need_ca = tls->on[EVP_TLS_INTERNAL] || (tls->on[EVP_TLS_BUNDLE] && strcmp(config->tls_client_cert, "none") != 0);

	if (any && (config->tls_cert[0] == '\0' || config->tls_key[0] == '\0'))
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "TLS needs --tls-cert and --tls-key");
	else if (need_ca && config->tls_ca[0] == '\0')
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "%s needs --tls-ca", tls->on[EVP_TLS_INTERNAL] ? "--internal-tls" : "--tls-client-cert");
	else
		return true;
	return false;
}

/* ---- contexts ---- */

/* No terminal is asked for a passphrase: the loop would stand still. */
static int
no_passphrase(char *buffer, int size, int writing, void *arg)
{
	(void) buffer;
	(void) size;
	(void) writing;
	(void) arg;
	return 0;
}

static bool
complain(const char *what, const char *file)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	evp_log(EVP_LOG_ERROR, MODULE, NULL, "%s %.500s: %s", what, file, reason == NULL ? "cannot be used" : reason);
	return false;
}

static void
warn_of_readers(const char *key)
{
	struct stat st;

	if (stat(key, &st) == 0 && (st.st_mode & S_IROTH) != 0)
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "--tls-key %.500s can be read by everybody", key);
}

static bool
load(SSL_CTX *ctx, const evp_config_t *config)
{
	STACK_OF(X509_NAME) *names;

	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (SSL_CTX_use_certificate_chain_file(ctx, config->tls_cert) != 1)
		return complain("--tls-cert", config->tls_cert);
	if (SSL_CTX_use_PrivateKey_file(ctx, config->tls_key, SSL_FILETYPE_PEM) != 1)
		return complain("--tls-key", config->tls_key);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return complain("--tls-key", "is not that of --tls-cert");
	if (config->tls_ca[0] == '\0')
		return true;
	if (SSL_CTX_load_verify_locations(ctx, config->tls_ca, NULL) != 1)
		return complain("--tls-ca", config->tls_ca);
	/* Tells clients which of their certificates to send. */
	names = SSL_load_client_CA_file(config->tls_ca);
	if (names == NULL)
		return complain("--tls-ca", config->tls_ca);
	SSL_CTX_set_client_CA_list(ctx, names);
	return true;
}

static SSL_CTX *
new_context(const evp_config_t *config, bool dial, int verify)
{
	SSL_CTX    *ctx;

	ERR_clear_error();
	ctx = SSL_CTX_new(dial ? TLS_client_method() : TLS_server_method());
	if (ctx == NULL)
	{
		complain("TLS", "");
		return NULL;
	}
	SSL_CTX_set_min_proto_version(ctx, strcmp(config->tls_min_version, "1.3") == 0 ? TLS1_3_VERSION : TLS1_2_VERSION);
	/* No session is resumed: each connection shows its certificate to the CA of today. */
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ctx, verify, NULL);
	if (load(ctx, config))
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

/* How the certificates of bundles are looked at; -1 where the setting makes no sense. */
static int
verify_mode(const evp_config_t *config)
{
	static const char *const modes[] = {"none", "optional", "required"};
	static const int verify[] = {SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};
	int			chosen = choose("--tls-client-cert", config->tls_client_cert, modes, 3);

	return chosen < 0 ? -1 : verify[chosen];
}

/* When a context's certificate ends. */
static time_t
end_of(const SSL_CTX *ctx)
{
	struct tm	tm;

	return ASN1_TIME_to_tm(X509_get0_notAfter(SSL_CTX_get0_certificate(ctx)), &tm) == 1 ? timegm(&tm) : 0;
}

/* libmicrohttpd's TLS takes a key that is not the certificate's, and fails at each handshake: it is looked at here. */
static bool
load_http(const evp_config_t *config, time_t *ends)
{
	SSL_CTX    *ctx = new_context(config, false, SSL_VERIFY_NONE);

	if (ctx == NULL)
		return false;
	*ends = end_of(ctx);
	SSL_CTX_free(ctx);
	return evp_tls_http_load(config);
}

bool
evp_tls_reload(evp_tls_t *tls)
{
	static const char *const versions[] = {"1.2", "1.3"};
	const evp_config_t *config = &tls->proxy->config;
	const int	both = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX    *bundle = NULL;
	SSL_CTX    *accept = NULL;
	SSL_CTX    *dial = NULL;
	time_t		ends = 0;
	int			verify = verify_mode(config);
	bool		ok = verify >= 0 && choose("--tls-min-version", config->tls_min_version, versions, 2) >= 0 && check_settings(tls);

	if (ok && tls->on[EVP_TLS_BUNDLE])
		ok = (bundle = new_context(config, false, verify)) != NULL;
	if (ok && tls->on[EVP_TLS_INTERNAL])
	{
		ok = (accept = new_context(config, false, both)) != NULL && (dial = new_context(config, true, SSL_VERIFY_PEER)) != NULL;
		/* Both ends are proxies.  What older versions give to bind proofs to can be made the same on two connections. */
		ok = ok && SSL_CTX_set_min_proto_version(accept, TLS1_3_VERSION) == 1 && SSL_CTX_set_min_proto_version(dial, TLS1_3_VERSION) == 1;
	}
	if (ok && tls->on[EVP_TLS_HTTP])
		ok = load_http(config, &ends);
	if (!ok)
	{
		SSL_CTX_free(bundle);
		SSL_CTX_free(accept);
		SSL_CTX_free(dial);
		return false;
	}
	if (config->tls_key[0] != '\0')
		warn_of_readers(config->tls_key);
	/* Sessions hold references to those that they were made with. */
	SSL_CTX_free(tls->bundle);
	SSL_CTX_free(tls->accept);
	SSL_CTX_free(tls->dial);
	tls->bundle = bundle;
	tls->accept = accept;
	tls->dial = dial;
	/* All ports show the same one. */
	if (bundle != NULL || accept != NULL)
		ends = end_of(bundle != NULL ? bundle : accept);
	tls->ends = ends;
	return true;
}

SSL *
evp_tls_session(evp_tls_t *tls, evp_tls_port_t port, bool dial)
{
	SSL_CTX    *ctx = port == EVP_TLS_BUNDLE ? tls->bundle : dial ? tls->dial : tls->accept;

	return ctx == NULL ? NULL : SSL_new(ctx);
}

const struct MHD_OptionItem *
evp_tls_http_options(const evp_tls_t *tls)
{
	static const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

	return tls->on[EVP_TLS_HTTP] ? evp_tls_http_daemon(tls->proxy->config.tls_min_version) : none;
}

/* ---- life ---- */

static void
on_hangup(uv_signal_t *handle, int number)
{
	evp_tls_t  *tls = handle->data;

	(void) number;
	if (evp_tls_reload(tls))
		evp_log(EVP_LOG_INFO, MODULE, NULL, "certificates were read again");
	else
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "certificates stay what they were");
}

evp_tls_t *
evp_tls_new(evp_proxy_t *proxy)
{
	evp_tls_t  *tls = calloc(1, sizeof *tls);

	if (tls == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	tls->proxy = proxy;
	if (!choose_ports(tls) || !evp_tls_reload(tls))
	{
		free(tls);
		return NULL;
	}
	tls->hangup.data = tls;
	if (uv_signal_init(proxy->loop, &tls->hangup) < 0 || uv_signal_start(&tls->hangup, on_hangup, SIGHUP) < 0)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "SIGHUP cannot be caught");
		return NULL;			/* the process ends: nothing is taken down */
	}
	return tls;
}

void
evp_tls_stop(evp_tls_t *tls)
{
	if (tls->stopped)
		return;
	tls->stopped = true;
	uv_close((uv_handle_t *) &tls->hangup, NULL);
}

void
evp_tls_free(evp_tls_t *tls)
{
	SSL_CTX_free(tls->bundle);
	SSL_CTX_free(tls->accept);
	SSL_CTX_free(tls->dial);
	evp_tls_http_free();
	free(tls);
}
