-- One name for two tables.
CREATE EXTERNAL TABLE categories (ad_id VARCHAR, category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'categories';
CREATE EXTERNAL TABLE categories (ad_id VARCHAR, category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'categories';
