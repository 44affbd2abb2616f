/*
 * errcodes.h
 *    SQLSTATEs of evento, shared by the extension that raises them and the
 *    proxy that reads them.  Class V0 lies in the range that the SQL standard
 *    leaves to implementations (classes that start with 5-9 or I-Z).
 */
#ifndef EVENTO_ERRCODES_H
#define EVENTO_ERRCODES_H

#define EVENTO_SQLSTATE_OK                "00000"
#define EVENTO_SQLSTATE_WRONG_VERSION     "V0001"  /* expected version does not match */
#define EVENTO_SQLSTATE_ID_CLASH          "V0002"  /* event id used for other content */
#define EVENTO_SQLSTATE_STREAM_DELETED    "V0003"  /* stream carries a tombstone */
#define EVENTO_SQLSTATE_NOT_PRELOADED     "V0004"  /* not in shared_preload_libraries */
#define EVENTO_SQLSTATE_READ_ONLY         "V0005"  /* hot standby */
#define EVENTO_SQLSTATE_MALFORMED_BATCH   "V0006"  /* packed batch cannot be decoded */
#define EVENTO_SQLSTATE_TWO_PHASE         "V0007"  /* PREPARE TRANSACTION after an append */
#define EVENTO_SQLSTATE_LOCK_LOST         "V0008"  /* lock or fence no longer held */

/* PostgreSQL's own that carry a meaning in batch outcomes. */
#define EVENTO_SQLSTATE_LOCK_NOT_AVAILABLE "55P03" /* stream busy: repeat this item alone */
#define EVENTO_SQLSTATE_SERIALIZATION      "40001" /* repeat the transaction */

#endif                          /* EVENTO_ERRCODES_H */
