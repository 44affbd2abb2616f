--
-- What a person sees who uses the store for the first time.
--
\pset null '(null)'
SELECT evento.append('order-1', 'OrderCreated', '{"orderId": "order-1", "total": 12.50}', expected => 0);
SELECT evento.append('order-1', 'OrderPaid', '{"amount": 12.50}', '{"by": "card"}', expected => 1);
SELECT evento.append_events('order-2', ARRAY[
  ROW('OrderCreated', '{"orderId": "order-2"}', NULL, NULL, NULL, NULL, NULL),
  ROW('OrderCancelled', '{}', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[]);
SELECT evento.append(NULL, 'NightlyRun', '{"took": "3 min"}', kind => 'service', context => 'jobs');
SELECT * FROM evento.last_append();
CALL evento.wait(NULL);
SELECT position, stream, version, type, context, kind, data, metadata FROM evento.events ORDER BY position;
SELECT version, type, data->>'amount' AS amount FROM evento.read_stream('order-1');
SELECT position, stream, type FROM evento.read_all(after => 2, categories => '{order}');
SELECT scanned, position, type FROM evento.scan_all(types => '{OrderPaid}');
SELECT stream, category, version, deleted_at, tombstone FROM evento.streams ORDER BY stream;
SELECT evento.save_snapshot('order-1', 1, '{"state": "created"}');
SELECT part, version, type, data FROM evento.load_stream('order-1');
SELECT evento.delete_stream('order-2');
SELECT position, stream FROM evento.events ORDER BY position;
SELECT evento.append('order-2', 'OrderCreated', '{}');
SELECT evento.watermark() >= 5 AS all_but_the_last;
SELECT * FROM evento.appending;
