-- A model file that does not exist.
CREATE FUNCTION click(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOOST AS 'clack.json';
