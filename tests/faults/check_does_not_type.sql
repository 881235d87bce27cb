-- CHECKs that do not type.
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://localhost:9092/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
CREATE EXTERNAL TABLE scored (
  ad_id VARCHAR,
  bid DOUBLE CHECK (bid + 1),
  CONSTRAINT positive CHECK (bit > 0),
  CONSTRAINT fresh CHECK (random() < bid),
  CONSTRAINT few CHECK (ad_id IN (SELECT 'x')))
STORED AS DELTA LOCATION 'scored';
INSERT INTO scored SELECT ad_id, bid FROM impressions;
