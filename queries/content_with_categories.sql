-- Builds the lookup of queries/score_impressions.sql: each ad with the name of its category. A batch job, which reads no
-- topic: it runs once and replaces the table in one commit, so it may be run again at any time.
--
--   flumen run queries/content_with_categories.sql --available-now

CREATE EXTERNAL TABLE contents (
  ad_id VARCHAR NOT NULL, advertiser VARCHAR NOT NULL, category_id INT NOT NULL, rank DOUBLE NOT NULL, price DOUBLE)
STORED AS CSV LOCATION 'queries/data/contents.csv' OPTIONS ('format.has_header' 'true');

CREATE EXTERNAL TABLE categories (category_id INT NOT NULL, category VARCHAR NOT NULL)
STORED AS CSV LOCATION 'queries/data/categories.csv' OPTIONS ('format.has_header' 'true');

CREATE EXTERNAL TABLE content_with_categories (
  ad_id VARCHAR NOT NULL,
  advertiser VARCHAR NOT NULL,
  category VARCHAR NOT NULL,
  rank DOUBLE NOT NULL,
  price DOUBLE,                                     -- unknown for some ads
  CONSTRAINT rank_is_a_share CHECK (rank BETWEEN 0 AND 1),
  CONSTRAINT price_is_positive CHECK (price > 0))
STORED AS DELTA LOCATION 'tables/content_with_categories'
OPTIONS ('mode' 'replace');

INSERT INTO content_with_categories
SELECT o.ad_id, o.advertiser, c.category, o.rank, o.price
FROM contents o JOIN categories c ON o.category_id = c.category_id;

-- A check: the ads whose category is unknown, or that are there twice. It must return no rows.
SELECT ad_id FROM contents WHERE category_id NOT IN (SELECT category_id FROM categories)
UNION ALL
SELECT ad_id FROM contents GROUP BY ad_id HAVING count(*) > 1;
