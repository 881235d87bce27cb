-- A function that gives another value each time.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE categories (ad_id VARCHAR, category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'categories';
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored';
INSERT INTO scored
SELECT ad_id, random() FROM impressions;
