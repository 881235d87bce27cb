-- A vacuum that would take files from under readers, and a log that is cut too short.
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored'
OPTIONS ('vacuum_retention' '23 hours', 'log_retention' '1 minute', 'max_small_files' '1', 'maintain' 'sometimes');
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
INSERT INTO scored SELECT ad_id, bid FROM impressions;
