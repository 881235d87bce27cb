-- A Parquet file has no commit that could hold the offsets of a stream.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS PARQUET LOCATION 'scored.parquet';
INSERT INTO scored SELECT ad_id, bid FROM impressions;
