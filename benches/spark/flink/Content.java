package flumen.bench;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.annotation.FunctionHint;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.TableFunction;

/**
 * What is known of an ad, from a file of tab-separated lines in memory: none of Flink's own connectors looks rows up
 * in files.
 */
@FunctionHint(output = @DataTypeHint(value = "ROW<category STRING, rank DOUBLE, price DOUBLE>",
        bridgedTo = RowData.class))
public final class Content extends TableFunction<RowData> {
    private static final long serialVersionUID = 1L;
    private static final int COUNTED_AT_ONCE = 1000;

    /** About how many ads were looked up, by all instances in this process. */
    static final AtomicLong LOOKED_UP = new AtomicLong();

    private final String file;
    private transient Map<StringData, RowData> rows;
    private transient int uncounted;

    Content(String file) {
        this.file = file;
    }

    @Override
    public void open(FunctionContext context) throws IOException {
        rows = new HashMap<>();
        for (String line : Files.readAllLines(Path.of(file), StandardCharsets.UTF_8)) {
            String[] cells = line.split("\t", -1);
            Double price = cells[3].isEmpty() ? null : Double.valueOf(cells[3]);
            RowData row = GenericRowData.of(StringData.fromString(cells[1]), Double.valueOf(cells[2]), price);
            rows.put(StringData.fromString(cells[0]), row);
        }
    }

    public void eval(@DataTypeHint(value = "STRING", bridgedTo = StringData.class) StringData adId) {
        RowData row = rows.get(adId);
        if (row != null) {
            collect(row);
        }
        uncounted++;
        if (uncounted == COUNTED_AT_ONCE) {
            LOOKED_UP.addAndGet(uncounted);
            uncounted = 0;
        }
    }
}
