-- A language that does not exist, and one that comes later.
CREATE FUNCTION click(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE XGBOST AS 'click.json';
CREATE FUNCTION c(DOUBLE, DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE ONNX AS 'click.json';
