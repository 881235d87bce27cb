-- Wrong numbers of model arguments: in the declaration and in a call.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored';
CREATE FUNCTION click(DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS 'click.json';
CREATE FUNCTION click3(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS 'click.json';
INSERT INTO scored SELECT ad_id, click3(bid, 1.0) FROM impressions;
