-- Two unknown tables in one query.
CREATE EXTERNAL TABLE categories (ad_id VARCHAR, category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'categories';
CREATE EXTERNAL TABLE report (ad_id VARCHAR, n BIGINT) STORED AS DELTA LOCATION 'report'
OPTIONS ('mode' 'replace');
INSERT INTO report SELECT c.ad_id, 1 FROM category c JOIN "Other" o ON c.ad_id = o.ad_id;
