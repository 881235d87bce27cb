package flumen.bench;

import java.util.Iterator;
import java.util.NoSuchElementException;
import ml.dmlc.xgboost4j.java.Booster;
import ml.dmlc.xgboost4j.java.XGBoost;
import ml.dmlc.xgboost4j.java.XGBoostError;
import org.apache.spark.api.java.function.MapPartitionsFunction;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.StructType;

/**
 * Scores rows with an XGBoost model, a block of rows at a time, in xgboost4j's native library. The last columns of a
 * row are the features, as doubles; the other columns are passed on, and the score comes after them.
 */
public final class TreeScores implements MapPartitionsFunction<Row, Row> {
    private static final long serialVersionUID = 1L;
    private static final int BLOCK = 4096;

    private final String model;
    private final int features;

    private TreeScores(String model, int features) {
        this.model = model;
        this.features = features;
    }

    /** `rows` with the features replaced by the score; `schema` is that of the result. */
    public static Dataset<Row> score(Dataset<Row> rows, String model, int features, StructType schema) {
        return rows.mapPartitions(new TreeScores(model, features), Encoders.row(schema));
    }

    @Override
    public Iterator<Row> call(Iterator<Row> rows) throws XGBoostError {
        Booster booster = XGBoost.loadModel(model);
        // Each of Spark's tasks has a core of its own.
        booster.setParam("nthread", 1);
        return new Blocks(rows, booster, features);
    }

    private static final class Blocks implements Iterator<Row> {
        private final Iterator<Row> rows;
        private final Booster booster;
        private final int features;
        private final Row[] block = new Row[BLOCK];
        private final float[] values;
        private float[][] scores;
        private int length;
        private int next;

        Blocks(Iterator<Row> rows, Booster booster, int features) {
            this.rows = rows;
            this.booster = booster;
            this.features = features;
            this.values = new float[BLOCK * features];
        }

        @Override
        public boolean hasNext() {
            if (next < length) {
                return true;
            }
            fill();
            return length > 0;
        }

        @Override
        public Row next() {
            if (!hasNext()) {
                throw new NoSuchElementException();
            }
            Row row = block[next];
            int kept = row.size() - features;
            Object[] columns = new Object[kept + 1];
            for (int column = 0; column < kept; column++) {
                columns[column] = row.get(column);
            }
            columns[kept] = (double) scores[next][0];
            next++;
            return RowFactory.create(columns);
        }

        private void fill() {
            length = 0;
            next = 0;
            while (length < BLOCK && rows.hasNext()) {
                Row row = rows.next();
                int first = row.size() - features;
                for (int feature = 0; feature < features; feature++) {
                    int column = first + feature;
                    values[length * features + feature] =
                            row.isNullAt(column) ? Float.NaN : (float) row.getDouble(column);
                }
                block[length] = row;
                length++;
            }
            if (length == 0) {
                booster.dispose();
                return;
            }
            try {
                float[] rowsOnly = length == BLOCK ? values : java.util.Arrays.copyOf(values, length * features);
                scores = booster.inplace_predict(rowsOnly, length, features, Float.NaN);
            } catch (XGBoostError e) {
                throw new IllegalStateException(e);
            }
        }
    }
}
