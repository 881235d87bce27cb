-- A zone that there is not, and options of which one wants the other.
SET flumen.close_zone = 'America/Springfield';
CREATE EXTERNAL TABLE clicks STORED AS KAFKA LOCATION 'kafka://localhost:9092/clicks'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE landed (ad_id VARCHAR) STORED AS DELTA LOCATION 'tables/landed'
OPTIONS ('close.key' 'ad_id,');
CREATE EXTERNAL TABLE landed_2 (ad_id VARCHAR) STORED AS DELTA LOCATION 'tables/landed_2'
OPTIONS ('close.key' 'ad_id');
INSERT INTO landed SELECT ad_id FROM clicks;
INSERT INTO landed_2 SELECT ad_id FROM clicks;
