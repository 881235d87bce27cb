-- A lookup that is not there.
CREATE EXTERNAL TABLE c STORED AS DELTA LOCATION 'nowhere';
