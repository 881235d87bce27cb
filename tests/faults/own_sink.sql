-- A streaming query that reads its own sink.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored';
INSERT INTO scored SELECT i.ad_id, s.bid FROM impressions i JOIN scored s ON i.ad_id = s.ad_id;
