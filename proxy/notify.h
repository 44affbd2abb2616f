/*
 * notify.h
 *    Tells the service manager (systemd's protocol, sd_notify(3)) how the
 *    process is; does nothing where none has asked for it.
 */
#ifndef EVP_NOTIFY_H
#define EVP_NOTIFY_H

#include <stdint.h>

/* Sends "READY=1" and the like. */
void		evp_notify(const char *state);

/* That the settings are being read again; EVP_NOTIFY_READY follows. */
void		evp_notify_reloading(void);

#define EVP_NOTIFY_READY	"READY=1"
#define EVP_NOTIFY_STOPPING	"STOPPING=1"
#define EVP_NOTIFY_ALIVE	"WATCHDOG=1"

/* Milliseconds between two EVP_NOTIFY_ALIVE, half of what the manager waits for; 0: it wants none. */
uint64_t	evp_notify_watchdog(void);

#endif							/* EVP_NOTIFY_H */
