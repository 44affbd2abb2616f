/*
 * secrets.h
 *    Keeps passwords out of what others can read of this process.
 */
#ifndef EVP_SECRETS_H
#define EVP_SECRETS_H

#include <stdbool.h>

/* Does a connection string hold a password, or cannot be told not to? */
bool		evp_secrets_in(const char *conninfo);

/*
 * Overwrites the arguments that hold a password, so that ps does not show them,
 * with a line in the log.  Gives what the process goes on with: argv, or a copy
 * of it as it was, which stays until the end.
 */
char	  **evp_secrets_hide(int argc, char **argv);

#endif							/* EVP_SECRETS_H */
