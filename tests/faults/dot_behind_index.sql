-- A field of a list's element, as other engines write it.
CREATE EXTERNAL TABLE t (id INT, parts ARRAY<STRUCT<units INT>>) STORED AS PARQUET LOCATION 't';
CREATE EXTERNAL TABLE s (units INT) STORED AS DELTA LOCATION 's' OPTIONS ('mode' 'replace');
INSERT INTO s SELECT parts[1].units FROM t;
