/*
 * tls_http.c
 *    See tls_http.h.
 */
#include "tls_http.h"

#include <string.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include "log.h"

#define MODULE		"tls"
#define CHAIN_MAX	16			/* certificates */

static gnutls_datum_t cert_pem;
static gnutls_datum_t key_pem;

/* Makes what a handshake needs of the PEM; gnutls frees it. */
static int
parse(const gnutls_datum_t *cert, const gnutls_datum_t *key, gnutls_pcert_st **chain, unsigned *count, gnutls_privkey_t *private)
{
	int			rc;

	*count = CHAIN_MAX;
	*chain = gnutls_calloc(CHAIN_MAX, sizeof **chain);
	if (*chain == NULL)
		return GNUTLS_E_MEMORY_ERROR;
	rc = gnutls_pcert_list_import_x509_raw(*chain, count, cert, GNUTLS_X509_FMT_PEM, 0);
	if (rc < 0)
	{
		gnutls_free(*chain);
		return rc;
	}
	rc = gnutls_privkey_init(private);
	if (rc >= 0)
	{
		rc = gnutls_privkey_import_x509_raw(*private, key, GNUTLS_X509_FMT_PEM, NULL, 0);
		if (rc < 0)
			gnutls_privkey_deinit(*private);
	}
	if (rc >= 0)
		return 0;
	for (unsigned i = 0; i < *count; i++)
		gnutls_pcert_deinit(&(*chain)[i]);
	gnutls_free(*chain);
	return rc;
}

static int
on_handshake(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **chain, unsigned *count,
			 gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count, gnutls_privkey_t *private, unsigned *flags)
{
	(void) session;
	(void) info;
	*ocsp = NULL;
	*ocsp_count = 0;
	*flags |= GNUTLS_CERT_RETR_DEINIT_ALL;
	return parse(&cert_pem, &key_pem, chain, count, private) == 0 ? 0 : -1;
}

static void
free_pem(gnutls_datum_t *pem)
{
	if (pem->data != NULL)
		gnutls_memset(pem->data, 0, pem->size);
	gnutls_free(pem->data);
	pem->size = 0;
}

bool
evp_tls_http_load(const evp_config_t *config)
{
	gnutls_datum_t cert = {0};
	gnutls_datum_t key = {0};
	gnutls_pcert_st *chain;
	gnutls_privkey_t private;
	unsigned	count;
	int			rc = gnutls_load_file(config->tls_cert, &cert);

	if (rc >= 0)
		rc = gnutls_load_file(config->tls_key, &key);
	if (rc >= 0)
		rc = parse(&cert, &key, &chain, &count, &private);
	if (rc < 0)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "--http-tls: --tls-cert or --tls-key is of no use: %s", gnutls_strerror(rc));
		free_pem(&cert);
		free_pem(&key);
		return false;
	}
	for (unsigned i = 0; i < count; i++)
		gnutls_pcert_deinit(&chain[i]);
	gnutls_free(chain);
	gnutls_privkey_deinit(private);
	evp_tls_http_free();
	cert_pem = cert;
	key_pem = key;
	return true;
}

void
evp_tls_http_free(void)
{
	free_pem(&cert_pem);
	free_pem(&key_pem);
}

const struct MHD_OptionItem *
evp_tls_http_daemon(const char *min_version)
{
	static struct MHD_OptionItem options[] = {
		{MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *) on_handshake},
		{MHD_OPTION_HTTPS_PRIORITIES, 0, NULL},
		{MHD_OPTION_END, 0, NULL}};

	options[1].ptr_value = strcmp(min_version, "1.3") == 0 ? "NORMAL:-VERS-ALL:+VERS-TLS1.3" :
		"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";
	return options;
}
