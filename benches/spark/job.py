"""The reference job in PySpark: Kafka -> protobuf -> join with a Delta table -> model -> Delta table.

Run by scripts/bench-spark with spark-submit. At the end prints the progress of each micro-batch as a line of JSON.
"""
import argparse
import json

from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession, functions as F
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType, TimestampType


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("--brokers", "--topic", "--lookup", "--table", "--checkpoint", "--model-file"):
        parser.add_argument(name, required=True)
    parser.add_argument("--model", required=True, choices=("logistic", "trees"))
    parser.add_argument("--max-rows", default="500010")
    parser.add_argument("--live", action="store_true", help="run until killed, a micro-batch as soon as the last ended")
    parser.add_argument("--explain", action="store_true", help="print the plan of the last micro-batch")
    return parser.parse_args()


def scored_by_logistic(spark, joined, path):
    # VectorAssembler refuses what is missing.
    features = joined.withColumn("price", F.coalesce("price", F.lit(0.0)))
    assembler, logistic = PipelineModel.load(path).stages
    # Only the probability is asked for, so only that is computed.
    model = PipelineModel([assembler, logistic.setRawPredictionCol("").setPredictionCol("")])
    return model.transform(features).select(
        "ad_id", "user_id", "category", "impressed_at", vector_to_array("probability")[1].alias("score"))


def scored_by_trees(spark, joined, path):
    rows = joined.select("ad_id", "user_id", "category", F.unix_micros("impressed_at").alias("micros"),
                         "rank", "price", "hour")
    schema = StructType([
        StructField("ad_id", StringType(), False), StructField("user_id", StringType()),
        StructField("category", StringType()), StructField("micros", LongType(), False),
        StructField("score", DoubleType(), False)])
    java_schema = spark._jsparkSession.parseDataType(schema.json())
    java_rows = spark._jvm.flumen.bench.TreeScores.score(rows._jdf, path, 3, java_schema)
    return DataFrame(java_rows, spark).select(
        "ad_id", "user_id", "category", F.timestamp_micros("micros").alias("impressed_at"), "score")


def main():
    args = arguments()
    spark = SparkSession.builder.appName("bench").getOrCreate()
    spark.udf.registerJavaFunction("decode", "flumen.bench.DecodeImpression", StructType([
        StructField("ad_id", StringType(), False), StructField("user_id", StringType(), False),
        StructField("impressed_at", TimestampType()), StructField("bid", DoubleType(), False)]))
    impressions = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", args.brokers)
        .option("subscribe", args.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", args.max_rows)
        .load()
        .select(F.expr("decode(value)").alias("i"))
        .select("i.*"))
    lookup = spark.read.format("delta").load(args.lookup).select("ad_id", "category", "rank", "price")
    joined = impressions.join(F.broadcast(lookup), "ad_id").withColumn("hour", F.hour("impressed_at").cast("double"))
    score = scored_by_logistic if args.model == "logistic" else scored_by_trees
    writer = (
        score(spark, joined, args.model_file).writeStream.format("delta")
        .outputMode("append")
        .option("checkpointLocation", args.checkpoint))
    query = (writer if args.live else writer.trigger(availableNow=True)).start(args.table)
    query.awaitTermination()
    if args.explain:
        query.explain(extended=True)
    for progress in query.recentProgress:
        print(progress.json if hasattr(progress, "json") else json.dumps(progress), flush=True)


main()
