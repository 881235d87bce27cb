package flumen.bench;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/**
 * The reference job in Flink SQL: Kafka, protobuf, a join with rows in memory, logistic regression, Parquet files.
 *
 * <p>Arguments: BROKERS TOPIC LOOKUP-FILE DIRECTORY CHECKPOINT-INTERVAL live|bounded SCORE, the last an expression.
 * Prints the time in nanoseconds and the number of records read every half second.
 */
public final class FlinkJob {
    private FlinkJob() {}

    public static void main(String[] args) throws Exception {
        String brokers = args[0];
        String topic = args[1];
        String lookup = args[2];
        String directory = args[3];
        String interval = args[4];
        String bounded = args[5].equals("bounded") ? "'scan.bounded.mode' = 'latest-offset'," : "";
        String score = args[6];

        Configuration configuration = new Configuration();
        configuration.setString("parallelism.default", "2");
        configuration.setString("taskmanager.numberOfTaskSlots", "2");
        configuration.setString("pipeline.object-reuse", "true");
        configuration.setString("execution.checkpointing.interval", interval);
        configuration.setString("table.local-time-zone", "UTC");
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment(configuration);
        StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
        tables.createTemporarySystemFunction("content", new Content(lookup));
        tables.executeSql(
                "CREATE TABLE ad_impressions (ad_id STRING, user_id STRING,"
                        + " impressed_at ROW<seconds BIGINT, nanos INT>, bid DOUBLE)"
                        + " WITH ('connector' = 'kafka', 'scan.startup.mode' = 'earliest-offset'," + bounded
                        + " 'properties.bootstrap.servers' = '" + brokers + "', 'topic' = '" + topic + "',"
                        + " 'format' = 'protobuf', 'protobuf.message-class-name' = 'ads.v1.Ads$AdImpression')");
        tables.executeSql(
                "CREATE TABLE scored (ad_id STRING, user_id STRING, category STRING, impressed_at TIMESTAMP_LTZ(3),"
                        + " score DOUBLE)"
                        + " WITH ('connector' = 'filesystem', 'path' = 'file://" + directory + "',"
                        + " 'format' = 'parquet', 'parquet.compression' = 'SNAPPY', 'parquet.utc-timezone' = 'true',"
                        + " 'parquet.write.int64.timestamp' = 'true', 'parquet.timestamp.time.unit' = 'micros')");
        Thread counter = new Thread(FlinkJob::count);
        counter.setDaemon(true);
        counter.start();
        tables.executeSql(
                "INSERT INTO scored SELECT ad_id, user_id, category, seen_at, " + score + " FROM ("
                        + " SELECT i.ad_id, i.user_id, c.category, c.`rank`, c.price, i.bid, i.seen_at,"
                        + " CAST(EXTRACT(HOUR FROM i.seen_at) AS DOUBLE) AS `hour`"
                        + " FROM (SELECT ad_id, user_id, bid, TO_TIMESTAMP_LTZ("
                        + " impressed_at.seconds * 1000 + impressed_at.nanos / 1000000, 3) AS seen_at"
                        + " FROM ad_impressions) AS i"
                        + " JOIN LATERAL TABLE(content(i.ad_id)) AS c(category, `rank`, price) ON TRUE)")
                .await();
    }

    private static void count() {
        try {
            while (true) {
                java.time.Instant now = java.time.Instant.now();
                System.out.println(now.getEpochSecond() * 1_000_000_000L + now.getNano() + " "
                        + Content.LOOKED_UP.get());
                Thread.sleep(500);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
