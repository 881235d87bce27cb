-- A sink that is neither a Delta table nor a Parquet file.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS CSV LOCATION 'scored.csv';
INSERT INTO scored SELECT ad_id, bid FROM impressions;
