-- For every ad impression the category of the ad that should be next, by a Spark ML pipeline: texts go in, a label and
-- probabilities come out. scripts/make-spark-data trained it.
--
--   flumen check queries/next_best_ad.sql
--   KAFKA_BROKERS=localhost:9092 flumen run queries/next_best_ad.sql

CREATE EXTERNAL TABLE ad_impressions
STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS:-localhost:9092}/ad-impressions'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');

CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';

-- The category of the ad that was shown, the page, the bid.
CREATE FUNCTION next_best_ad(VARCHAR, VARCHAR, DOUBLE)
RETURNS STRUCT<prediction VARCHAR, probability DOUBLE[]>
LANGUAGE SPARK_ML AS 'queries/data/next_best_ad';

CREATE EXTERNAL TABLE next_ads (
  ad_id VARCHAR NOT NULL,
  user_id VARCHAR,
  category VARCHAR,
  next_category VARCHAR NOT NULL,
  probability DOUBLE NOT NULL,
  impressed_at TIMESTAMP NOT NULL,
  CONSTRAINT it_is_a_probability CHECK (probability BETWEEN 0 AND 1))
STORED AS DELTA LOCATION 'tables/next_ads';

INSERT INTO next_ads
SELECT ad_id, user_id, category, next['prediction'], array_max(next['probability']), impressed_at
FROM (
  SELECT i.ad_id, i.user_id, c.category, i.impressed_at, next_best_ad(c.category, i.placement['page'], i.bid) AS next
  FROM ad_impressions i JOIN content_with_categories c ON i.ad_id = c.ad_id);
