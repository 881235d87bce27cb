-- Locations that are no topics.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE b STORED AS KAFKA LOCATION 'kafka://localhost/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE c STORED AS KAFKA LOCATION 'kafka://localhost:9092/'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
