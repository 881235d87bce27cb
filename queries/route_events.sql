-- One topic to several tables by rule: clicks, what was paid, and everything else, so that no event is lost. Each query
-- follows the topic by itself and is committed by itself.
--
--   flumen test queries/route_events.test.yaml
--   KAFKA_BROKERS=localhost:9092 flumen run queries/route_events.sql

CREATE EXTERNAL TABLE events
STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS:-localhost:9092}/events'
OPTIONS ('value.proto' 'proto/events/v1/events.proto', 'value.message' 'events.v1.Event');

-- The rule stands in one place; the tables below ask for one route each.
CREATE VIEW routed AS
SELECT *, CASE
    WHEN kind = 'KIND_CLICK' THEN 'click'
    WHEN kind IN ('KIND_PURCHASE', 'KIND_REFUND') AND cents IS NOT NULL THEN 'payment'
    ELSE 'other'
  END AS route
FROM events;

CREATE EXTERNAL TABLE clicks (
  event_id VARCHAR NOT NULL, user_id VARCHAR, subject VARCHAR NOT NULL, occurred_at TIMESTAMP NOT NULL,
  day DATE NOT NULL)
STORED AS DELTA PARTITIONED BY (day) LOCATION 'tables/clicks';

INSERT INTO clicks
SELECT event_id, nullif(user_id, ''), subject, occurred_at, CAST(occurred_at AS DATE)
FROM routed WHERE route = 'click';

-- A refund is paid back: its amount is negative.
CREATE EXTERNAL TABLE payments (
  event_id VARCHAR NOT NULL, user_id VARCHAR NOT NULL, cents BIGINT NOT NULL, occurred_at TIMESTAMP NOT NULL,
  CONSTRAINT something_was_paid CHECK (cents <> 0))
STORED AS DELTA LOCATION 'tables/payments'
OPTIONS ('on_violation' 'quarantine');

INSERT INTO payments
SELECT event_id, nullif(user_id, ''), CASE WHEN kind = 'KIND_REFUND' THEN -cents ELSE cents END, occurred_at
FROM routed WHERE route = 'payment';

CREATE EXTERNAL TABLE other_events (
  event_id VARCHAR NOT NULL, kind VARCHAR, occurred_at TIMESTAMP, properties MAP(VARCHAR, VARCHAR),
  _partition INT NOT NULL, _offset BIGINT NOT NULL)
STORED AS DELTA LOCATION 'tables/other_events';

INSERT INTO other_events
SELECT event_id, kind, occurred_at, properties, _partition, _offset
FROM routed WHERE route = 'other';
