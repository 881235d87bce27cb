-- A table that does not say how it is stored.
CREATE EXTERNAL TABLE t LOCATION 'x';
