-- Close of books: the day's call summaries, one for each call, and what each account owes for them. Records land in a
-- table as they come; a day is closed from it once, with everything accounted for.
--
--   flumen test queries/close_of_books.test.yaml
--   KAFKA_BROKERS=localhost:9092 flumen run queries/close_of_books.sql
--   KAFKA_BROKERS=localhost:9092 flumen close queries/close_of_books.sql --date 2026-11-22
--
-- `run` lands records and leaves the rest aside; `close` gives the file $date, $day_start and $day_end.

-- A business day is one of this zone, whatever its length.
SET flumen.close_zone = 'America/New_York';

CREATE EXTERNAL TABLE call_summaries
STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS:-localhost:9092}/call-summaries'
OPTIONS ('value.proto' 'proto/calls/v1/calls.proto', 'value.message' 'calls.v1.CallSummary');

-- Each record is a row: a close accounts for all of them, by the partition that they came from.
CREATE EXTERNAL TABLE landed_calls (
  call_id VARCHAR NOT NULL, account_id VARCHAR NOT NULL, started_at TIMESTAMP, ended_at TIMESTAMP NOT NULL,
  seconds BIGINT NOT NULL, cost_micros BIGINT NOT NULL, outcome VARCHAR,
  _partition INT NOT NULL, _offset BIGINT NOT NULL,
  CONSTRAINT a_call_takes_time CHECK (seconds >= 0))
STORED AS DELTA LOCATION 'tables/landed_calls'
OPTIONS ('on_violation' 'quarantine',
         'close.time' 'ended_at', 'close.key' 'call_id', 'close.sums' 'seconds, cost_micros');

INSERT INTO landed_calls
SELECT nullif(call_id, ''), nullif(account_id, ''), started_at, ended_at, seconds, cost_micros, outcome,
  _partition, _offset
FROM call_summaries;

-- The last summary of each call of the day.
CREATE EXTERNAL TABLE closed_calls (
  business_date DATE NOT NULL, call_id VARCHAR NOT NULL, account_id VARCHAR NOT NULL, started_at TIMESTAMP,
  ended_at TIMESTAMP NOT NULL, seconds BIGINT NOT NULL, cost_micros BIGINT NOT NULL, outcome VARCHAR,
  _partition INT NOT NULL, _offset BIGINT NOT NULL)
STORED AS DELTA PARTITIONED BY (business_date) LOCATION 'tables/closed_calls'
OPTIONS ('mode' 'replace_partitions', 'close.rows_of' 'landed_calls');

INSERT INTO closed_calls
SELECT $date, call_id, account_id, started_at, ended_at, seconds, cost_micros, outcome, _partition, _offset
FROM (
  SELECT *, row_number() OVER (PARTITION BY call_id ORDER BY ended_at DESC, _offset DESC, _partition DESC) AS place
  FROM landed_calls
  WHERE ended_at >= $day_start AND ended_at < $day_end)
WHERE place = 1;

-- What each account owes for the day.
CREATE EXTERNAL TABLE closed_accounts (
  business_date DATE NOT NULL, account_id VARCHAR NOT NULL, calls BIGINT NOT NULL, answered BIGINT NOT NULL,
  seconds BIGINT NOT NULL, cost_micros BIGINT NOT NULL)
STORED AS DELTA PARTITIONED BY (business_date) LOCATION 'tables/closed_accounts'
OPTIONS ('mode' 'replace_partitions');

INSERT INTO closed_accounts
SELECT business_date, account_id, count(*), count(*) FILTER (WHERE outcome = 'OUTCOME_ANSWERED'), sum(seconds),
  sum(cost_micros)
FROM closed_calls
WHERE business_date = $date
GROUP BY business_date, account_id;

-- Checks see the day as it would be: they must return no rows, or nothing is closed.
SELECT call_id, cost_micros FROM closed_calls WHERE business_date = $date AND cost_micros < 0;

SELECT account_id, a.cost_micros, c.cost_micros AS of_its_calls
FROM closed_accounts AS a
FULL JOIN (
  SELECT account_id, sum(cost_micros) AS cost_micros FROM closed_calls WHERE business_date = $date GROUP BY account_id
) AS c USING (account_id)
WHERE coalesce(a.business_date, $date) = $date AND a.cost_micros IS DISTINCT FROM c.cost_micros;
