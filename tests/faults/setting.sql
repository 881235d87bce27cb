-- Settings that are not known or wrong.
SET flumen.triger = '1 second';
SET flumen.memory_limit = 'much';
SET datafusion.execution.batch_sizes = 5;
SET datafusion.execution.batch_size = 'x';
