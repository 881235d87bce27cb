-- The reference job of scripts/bench-main-job: decode, join with 10,000 ads, logistic regression over four features (a
-- Spark ML pipeline, in 64 bits), Delta, 500,000 records a micro-batch.

CREATE EXTERNAL TABLE ad_impressions
STORED AS KAFKA
LOCATION 'kafka://${env:KAFKA_BROKERS:-localhost:9092}/${env:FLUMEN_BENCH_TOPIC:-ad-impressions}'
OPTIONS ('value.proto' 'proto/ads/v1/ads.proto', 'value.message' 'ads.v1.AdImpression', 'max_rows' '500000');

CREATE EXTERNAL TABLE content_with_categories STORED AS DELTA LOCATION 'queries/data/content_with_categories';

CREATE FUNCTION click_probability(DOUBLE, DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE
LANGUAGE SPARK_ML AS 'queries/data/click_probability_spark';

CREATE EXTERNAL TABLE bench_scored_impressions (
  ad_id VARCHAR NOT NULL, user_id VARCHAR, category VARCHAR, impressed_at TIMESTAMP NOT NULL, score DOUBLE NOT NULL)
STORED AS DELTA LOCATION '${env:FLUMEN_BENCH_TABLE:-tables/bench_scored_impressions}';

INSERT INTO bench_scored_impressions
SELECT i.ad_id, i.user_id, c.category, i.impressed_at,
       -- VectorAssembler refuses what is missing.
       click_probability(c.rank, coalesce(c.price, 0.0), date_part('hour', i.impressed_at), i.bid) AS score
FROM ad_impressions i JOIN content_with_categories c ON i.ad_id = c.ad_id;
