-- A fault inside a view is told once, in the view.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored';
CREATE VIEW v AS SELECT adid AS ad_id, bid FROM impressions;
INSERT INTO scored SELECT ad_id, bid FROM v;
