/*
 * classes.h
 *    Tells the database which class bundles use for an event type, once for each
 *    in the life of the process.
 */
#ifndef EVP_CLASSES_H
#define EVP_CLASSES_H

#include "buf.h"
#include "db.h"

typedef struct evp_classes evp_classes_t;

/* NULL on lack of memory. */
evp_classes_t *evp_classes_new(evp_db_t *db);
void evp_classes_free(evp_classes_t *classes);

/* An event of that type was appended with that class. */
void evp_classes_seen(evp_classes_t *classes, evp_slice_t type, evp_slice_t klass);

#endif /* EVP_CLASSES_H */
