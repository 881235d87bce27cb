-- Tables that a close could not account for, and a date that there is not.
-- param date=2026-02-29
SET flumen.close_zone = 'America/New_York';
CREATE EXTERNAL TABLE clicks STORED AS KAFKA LOCATION 'kafka://localhost:9092/clicks'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE landed (ad_id VARCHAR, at VARCHAR, price DOUBLE, _partition INT, _offset INT)
STORED AS DELTA LOCATION 'tables/landed'
OPTIONS ('on_violation' 'drop', 'close.time' 'at', 'close.key' 'id', 'close.sums' 'price');
INSERT INTO landed
SELECT ad_id, CAST($day_start AS VARCHAR), CAST(1 AS DOUBLE), _partition, CAST(_offset AS INT) FROM clicks;
CREATE EXTERNAL TABLE kept (day VARCHAR, ad_id VARCHAR) STORED AS DELTA PARTITIONED BY (day) LOCATION 'tables/kept'
OPTIONS ('mode' 'replace_partitions', 'close.rows_of' 'landed', 'on_violation' 'drop');
INSERT INTO kept SELECT at, ad_id FROM landed;
CREATE EXTERNAL TABLE totals (day DATE, rows BIGINT) STORED AS DELTA LOCATION 'tables/totals'
OPTIONS ('mode' 'replace', 'close.rows_of' 'lnded', 'close.time' 'day', 'close.key' 'day');
INSERT INTO totals SELECT $date, count(*) FROM kept;
