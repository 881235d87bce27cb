-- A close of books without the zone of its days.
-- param date=2026-11-22
CREATE EXTERNAL TABLE clicks STORED AS KAFKA LOCATION 'kafka://localhost:9092/clicks'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE landed (ad_id VARCHAR) STORED AS DELTA LOCATION 'tables/landed'
OPTIONS ('close.time' 'at', 'close.key' 'ad_id');
INSERT INTO landed SELECT ad_id FROM clicks;
