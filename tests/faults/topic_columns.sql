-- A topic that declares columns.
CREATE EXTERNAL TABLE impressions (ad_id VARCHAR) STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
