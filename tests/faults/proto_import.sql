-- An import that is not found.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/lonely.proto', 'value.message' 'ads.v1.AdImpression');
