-- A .proto file that does not exist.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/adds.proto', 'value.message' 'ads.v1.AdImpression');
