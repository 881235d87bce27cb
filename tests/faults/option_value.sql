-- Values that an option cannot have.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression',
  'start' 'yesterday', 'max_rows' 'many', 'on_null_value' 'drop');
