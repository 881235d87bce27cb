-- Scores every ad impression with the probability that it is clicked.
--
--   flumen check queries/score_impressions.sql
--   KAFKA_BROKERS=localhost:9092 flumen run queries/score_impressions.sql

CREATE EXTERNAL TABLE ad_impressions
STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS:-localhost:9092}/ad-impressions'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');

-- Made by queries/content_with_categories.sql; a copy is shipped.
CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';

CREATE FUNCTION click_probability(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE XGBOOST AS 'queries/data/click_probability.json';

-- The columns are the contract.
CREATE EXTERNAL TABLE scored_impressions (
  ad_id VARCHAR NOT NULL,
  user_id VARCHAR,
  category VARCHAR,
  impressed_at TIMESTAMP NOT NULL,
  score DOUBLE NOT NULL,
  day DATE NOT NULL,
  CONSTRAINT score_is_a_probability CHECK (score BETWEEN 0 AND 1))
STORED AS DELTA PARTITIONED BY (day) LOCATION 'tables/scored_impressions';

INSERT INTO scored_impressions
SELECT i.ad_id, i.user_id, c.category, i.impressed_at,
       click_probability(c.rank, c.price, date_part('hour', i.impressed_at)) AS score,
       CAST(i.impressed_at AS DATE) AS day
FROM ad_impressions i JOIN content_with_categories c ON i.ad_id = c.ad_id;
