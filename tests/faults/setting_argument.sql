-- A setting of the command line that is not known.
-- set flumen.max_row=5
SELECT 1 WHERE false;
