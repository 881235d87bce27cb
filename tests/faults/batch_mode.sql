-- A batch job that does not say how it replaces rows.
CREATE EXTERNAL TABLE categories (ad_id VARCHAR, category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'categories';
CREATE EXTERNAL TABLE scored (ad_id VARCHAR NOT NULL, bid DOUBLE) STORED AS DELTA LOCATION 'scored';
INSERT INTO scored SELECT ad_id, rank FROM categories;
