-- A topic without a message.
CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION 'kafka://localhost:9092/t'
OPTIONS ('value.proto' 'proto/ads.proto');
