package flumen.bench;

import ads.v1.Ads.AdImpression;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Timestamp;
import java.time.Instant;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.api.java.UDF1;

/** The columns of an ad impression that the job uses, by the class that protoc generates. */
public final class DecodeImpression implements UDF1<byte[], Row> {
    private static final long serialVersionUID = 1L;

    @Override
    public Row call(byte[] value) throws InvalidProtocolBufferException {
        if (value == null) {
            return null;
        }
        AdImpression impression = AdImpression.parseFrom(value);
        Instant impressedAt = null;
        if (impression.hasImpressedAt()) {
            Timestamp time = impression.getImpressedAt();
            impressedAt = Instant.ofEpochSecond(time.getSeconds(), time.getNanos());
        }
        return RowFactory.create(impression.getAdId(), impression.getUserId(), impressedAt, impression.getBid());
    }
}
