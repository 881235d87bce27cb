-- An environment variable and a file that are not there.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://${env:BROKERS}/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression',
  'kafka.sasl.password' '${file:password}', 'kafka.sasl.username' '${vault:user}');
