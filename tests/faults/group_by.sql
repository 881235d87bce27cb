-- A column that is not grouped, in a batch job.
CREATE EXTERNAL TABLE categories (ad_id VARCHAR, category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'categories';
CREATE EXTERNAL TABLE report (ad_id VARCHAR, n BIGINT) STORED AS DELTA LOCATION 'report'
OPTIONS ('mode' 'replace');
INSERT INTO report SELECT ad_id, count(*) FROM categories GROUP BY category;
