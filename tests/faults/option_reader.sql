-- A CSV option that DataFusion does not know, and one with a wrong value.
CREATE EXTERNAL TABLE c (a INT) STORED AS CSV LOCATION 'c.csv'
OPTIONS ('format.has_headr' 'true', 'format.has_header' 'perhaps', format.delimiter ';');
