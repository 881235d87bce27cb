-- A kind of table that is not known.
CREATE EXTERNAL TABLE t STORED AS PARKET LOCATION 'x';
