-- An INSERT into a topic.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
INSERT INTO impressions SELECT * FROM impressions;
