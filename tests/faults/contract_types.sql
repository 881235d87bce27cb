-- Types that do not fit, column by column.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (ad_id BIGINT, bid REAL, at TIMESTAMP, day DATE, site VARCHAR)
STORED AS DELTA LOCATION 'scored';
INSERT INTO scored
SELECT ad_id,
       bid * 2 AS bid,
       impressed_at,
       impressed_at AS day,
       placement
FROM impressions;
