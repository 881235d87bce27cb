-- Options that nobody knows.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression', 'strat' 'latest', 'colour' 'red');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored' OPTIONS ('target_size' '1 MB');
INSERT INTO scored SELECT ad_id, bid FROM impressions;
