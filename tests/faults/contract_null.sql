-- NOT NULL fed by a nullable column: a warning.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, at TIMESTAMP NOT NULL) STORED AS DELTA LOCATION 'scored';
INSERT INTO scored SELECT ad_id, impressed_at FROM impressions;
