-- A size and a duration without a unit.
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored' OPTIONS ('target_file_size' '128');
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
INSERT INTO scored SELECT ad_id, bid FROM impressions;
SET flumen.trigger = '5';
