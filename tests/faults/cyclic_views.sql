-- Two views that read each other.
CREATE VIEW a AS SELECT * FROM b;
CREATE VIEW b AS SELECT * FROM a;
SELECT * FROM a;
