/*
 * packed.h
 *    The packed form in which appends travel in evento.append_batch(bytea).
 *
 * All integers are in network byte order.  Texts are UTF-8 without a
 * terminator.  Nothing is aligned or padded.
 *
 *    batch    := u32 magic (EVENTO_PACKED_MAGIC)
 *                u32 number of items, 1 .. EVENTO_PACKED_MAX_ITEMS
 *                item ...                  and nothing behind the last one
 *
 *    item     := u32 length of what follows in this item
 *                u16 item flags (EVENTO_ITEM_*)
 *                i64 expected version      EVENTO_EXPECTED_* or n
 *                u16 length of stream, stream   0: no stream
 *                [ u16 length of lock, lock
 *                  i64 fence ]             with EVENTO_ITEM_LOCK
 *                [ i64 since ]             with EVENTO_ITEM_SINCE: the watermark
 *                                          known before the first try of an
 *                                          append without stream; its id is
 *                                          looked for among later positions
 *                                          (INT64_MAX: nowhere)
 *                [ u16 length of class, class   (0: NULL)
 *                  u32 length of state, state ]  with EVENTO_ITEM_SNAPSHOT: saved
 *                                          at the version of the last event
 *                u16 number of events, 1 ..
 *                event ...
 *
 *    event    := u8  event flags (EVENTO_EVENT_*)
 *                [ 16 bytes id ]           with EVENTO_EVENT_ID
 *                [ i64 timestamp ]         with EVENTO_EVENT_TIMESTAMP: the
 *                                          message's own, ms since 1970; without
 *                                          it the time of the append
 *                u16 length of type, type       1 .. 255
 *                u16 length of context, context 0: 'default'
 *                u16 length of class, class     0: NULL
 *                u32 length of data, data       JSON text
 *                [ u32 length of metadata, metadata ]  with EVENTO_EVENT_METADATA
 */
#ifndef EVENTO_PACKED_H
#define EVENTO_PACKED_H

#include <stdint.h>

#define EVENTO_PACKED_MAGIC        0x45564231u  /* "EVB1" */
#define EVENTO_PACKED_MAX_ITEMS    10000

/* Expected versions; any n >= 0 means "exactly n", 0 being "no stream yet". */
#define EVENTO_EXPECTED_ANY        INT64_MIN
#define EVENTO_EXPECTED_EXISTS     (-4)

/* Item flags. */
#define EVENTO_ITEM_SAME_ID_WINS   0x0001  /* an id that is there already is a success
                                            * whatever its content: a repeat of the
                                            * same request may bring another event */
#define EVENTO_ITEM_LOCK           0x0002  /* lock and fence follow; V0008 when not held */
#define EVENTO_ITEM_UNLOCKED       0x0004  /* 55P03 while a lock row has the stream's name */
#define EVENTO_ITEM_SINCE          0x0008
#define EVENTO_ITEM_SNAPSHOT       0x0010
#define EVENTO_ITEM_DROP_SNAPSHOTS 0x0020  /* drop every snapshot of the stream instead */
#define EVENTO_ITEM_IDS_KNOWN      0x0040  /* with an exact expected version: the caller has
                                            * looked for the ids up to that version
                                            * (load_stream), they are none of those */
#define EVENTO_ITEM_CHAINED        0x0080  /* V0001 unless the item right before it in the
                                            * batch has appended to the same stream, in
                                            * this very call: its expected version is that
                                            * item's, and no other event's of that number */
#define EVENTO_ITEM_NOT_DELETED    0x0100  /* V0001 too where the stream is deleted, with all
                                            * events, at the expected version: the caller
                                            * knows it as it was before */
#define EVENTO_ITEM_FLAGS          0x01ff

/* Event flags. */
#define EVENTO_EVENT_ID              0x01
#define EVENTO_EVENT_TIMESTAMP       0x02
#define EVENTO_EVENT_METADATA        0x04
#define EVENTO_EVENT_SERVICE         0x08  /* kind 'service', else 'domain' */
#define EVENTO_EVENT_FORCE_TELEMETRY 0x10
#define EVENTO_EVENT_FLAGS           0x1f

/* Lengths that both sides check, in bytes. */
#define EVENTO_MAX_STREAM_LEN      512
#define EVENTO_MAX_CONTEXT_LEN     512
#define EVENTO_MAX_TYPE_LEN        255
#define EVENTO_MAX_CLASS_LEN       1024

#endif                          /* EVENTO_PACKED_H */
