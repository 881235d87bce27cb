-- Faults in three statements, all told.
SELEC 1;
SELECT 1 FROM;
DROP TABLE t;
SELECT 1 WHERE false;
