-- librdkafka properties that would break exactly-once, that it does not know, or with a wrong value.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression',
  'kafka.enable.auto.commit' 'true');
