-- A fault in the .proto file, told at the proto's own line.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/broken.proto', 'value.message' 'ads.v1.AdImpression');
