-- Column types that Delta does not have, or nobody.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR, bid INT UNSIGNED, t TIME, g GEOMETRY, bid DOUBLE, k INT PRIMARY KEY)
STORED AS DELTA LOCATION 'scored';
INSERT INTO scored SELECT ad_id, bid FROM impressions;
