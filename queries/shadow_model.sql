-- One model shadows another: both score every impression, only the first one counts, and a check looks at how far they are
-- apart before somebody puts the second one into its place.
--
--   flumen check queries/shadow_model.sql
--   KAFKA_BROKERS=localhost:9092 flumen run queries/shadow_model.sql --available-now

CREATE EXTERNAL TABLE ad_impressions
STORED AS KAFKA LOCATION 'kafka://${env:KAFKA_BROKERS:-localhost:9092}/ad-impressions'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression');

CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';

-- The trees that queries/score_impressions.sql scores with, and a logistic regression that also knows the bid.
CREATE FUNCTION score_live(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE XGBOOST AS 'queries/data/click_probability.json';

CREATE FUNCTION score_shadow(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE XGBOOST AS 'queries/data/click_probability_linear.json';

CREATE EXTERNAL TABLE shadowed_impressions (
  ad_id VARCHAR NOT NULL,
  impressed_at TIMESTAMP NOT NULL,
  score DOUBLE NOT NULL,
  shadow_score DOUBLE NOT NULL,
  apart DOUBLE NOT NULL,
  day DATE NOT NULL,
  CONSTRAINT it_is_how_far_they_are_apart CHECK (apart BETWEEN 0 AND 1))
STORED AS DELTA PARTITIONED BY (day) LOCATION 'tables/shadowed_impressions';

INSERT INTO shadowed_impressions
SELECT ad_id, impressed_at, score, shadow_score, abs(score - shadow_score), CAST(impressed_at AS DATE)
FROM (
  SELECT i.ad_id, i.impressed_at,
         score_live(c.rank, c.price, date_part('hour', i.impressed_at)) AS score,
         score_shadow(c.rank, c.price, date_part('hour', i.impressed_at), i.bid) AS shadow_score
  FROM ad_impressions i JOIN content_with_categories c ON i.ad_id = c.ad_id);

-- Days on which they are further apart than 0.2 on average, with how often they would have answered otherwise.
SELECT day, avg(apart) AS apart, count(*) FILTER (WHERE (score > 0.5) <> (shadow_score > 0.5)) AS other_answers
FROM shadowed_impressions GROUP BY day HAVING avg(apart) > 0.2;
