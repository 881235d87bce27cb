-- A model argument that is no number.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored';
CREATE FUNCTION click(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS 'click.json';
INSERT INTO scored SELECT ad_id, click(bid, labels, 1.0) FROM impressions;
