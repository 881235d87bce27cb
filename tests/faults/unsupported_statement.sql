-- Statements that a pipeline file cannot say.
UPDATE t SET a = 1;
CREATE TABLE t (a INT);
DELETE FROM t;
EXPLAIN SELECT 1;
