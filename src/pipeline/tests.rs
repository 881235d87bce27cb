//! Whole files: what they declare, what a streaming query may say, and plans over real tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;

use super::*;
use crate::offsets::Start;

struct Known;

impl Facts for Known {
    fn lookup_schema(&self, lookup: &LookupSpec) -> Result<SchemaRef> {
        assert!(lookup.declared.is_none());
        let text = |name: &str| Field::new(name, DataType::Utf8View, true);
        Ok(Arc::new(Schema::new(vec![text("ad_id"), text("category"), Field::new("rank", DataType::Float64, true)])))
    }

    fn check_model(&self, model: &ModelSpec) -> Result<Fit> {
        let count = model.arguments.len();
        let differs =
            format!("`{}` is declared with {count} arguments, and the model has 2 features; declare 2", model.name);
        Ok(if count == 2 { Fit::Fits } else { Fit::Differs(differs) })
    }

    fn check_kafka_property(&self, _name: &str, _value: &str) -> Result<(), String> {
        Ok(())
    }
}

fn environment(params: &[(&str, &str)]) -> Environment {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let variables: BTreeMap<String, String> = pairs(&[("PASSWORD", "s3cret"), ("SIZE", "tiny")]);
    Environment { root: "tests/faults".into(), params: pairs(params), variables, ..Environment::default() }
}

fn load(text: &str) -> Result<Pipeline, Faults> {
    load_with(text, &[])
}

fn load_with(text: &str, params: &[(&str, &str)]) -> Result<Pipeline, Faults> {
    Pipeline::load(text, Path::new("queries/job.sql"), &environment(params), &Known)
}

const THREE_QUERIES: &str = "
SET flumen.trigger = '200 milliseconds';
SET datafusion.execution.batch_size = 4096;
CREATE EXTERNAL TABLE impressions STORED AS KAFKA LOCATION 'kafka://${env:BROKERS:-localhost:9092}/impressions'
OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression', 'start' '0:12,1:40',
         'kafka.sasl.password' '${env:PASSWORD}', 'max_rows' '5000', 'on_null_value' 'row');
CREATE EXTERNAL TABLE categories STORED AS DELTA LOCATION 'categories';
CREATE EXTERNAL TABLE labels (ad_id VARCHAR, label VARCHAR) STORED AS CSV LOCATION 's3://bucket/labels.csv'
OPTIONS (format.has_header true);
CREATE FUNCTION click(DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE xgboost AS 'click.json';
CREATE VIEW ranked (ad, category, rank) AS SELECT ad_id, category, rank FROM categories WHERE rank >= $least;
CREATE EXTERNAL TABLE scored (
  ad_id VARCHAR NOT NULL, site VARCHAR, at TIMESTAMP, score DOUBLE, day DATE, slots ARRAY<INT>,
  CONSTRAINT score_is_a_probability CHECK (score BETWEEN 0 AND 1), CHECK (length(ad_id) > 0))
STORED AS DELTA PARTITIONED BY (day) LOCATION 'scored' OPTIONS ('target_file_size' '64 MB', 'schema_mode' 'merge');
CREATE EXTERNAL TABLE labelled (label VARCHAR) STORED AS DELTA LOCATION 'labelled';
CREATE EXTERNAL TABLE best (category VARCHAR, rank DOUBLE) STORED AS DELTA LOCATION 'best' OPTIONS ('mode' 'replace');
INSERT INTO scored
SELECT i.ad_id, i.placement.site, i.impressed_at, click(r.rank, i.bid), CAST(i.impressed_at AS DATE), [i.placement.slot]
FROM impressions i JOIN ranked r ON i.ad_id = r.ad;
INSERT INTO labelled SELECT unnest(labels) FROM impressions WHERE _offset >= 0;
INSERT INTO best SELECT category, max(rank) FROM ranked GROUP BY category;
SELECT * FROM scored WHERE score > 1;
";

#[test]
fn a_file_is_read_whole() {
    let pipeline = load_with(THREE_QUERIES, &[("least", "0.5")]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(pipeline.name, "job");
    assert_eq!(pipeline.sha256.len(), 64);
    assert_eq!(pipeline.settings.trigger, Duration::from_millis(200));
    assert_eq!(pipeline.session, [("datafusion.execution.batch_size".to_string(), "4096".to_string())]);

    let topic = pipeline.source("impressions").unwrap();
    assert_eq!((topic.brokers.as_str(), topic.topic.as_str()), ("localhost:9092", "impressions"));
    assert_eq!(topic.start, Start::Offsets(BTreeMap::from([(0, 12), (1, 40)])));
    assert_eq!((topic.max_rows, topic.on_null_value), (Some(5000), NullValue::Row));
    assert_eq!(topic.kafka, BTreeMap::from([("sasl.password".to_string(), "s3cret".to_string())]));
    assert_eq!(topic.schema.fields().len(), 6 + META_COLUMNS.len());

    let labels = pipeline.lookup("labels").unwrap();
    assert_eq!((labels.format, labels.location.as_str()), (LookupFormat::Csv, "s3://bucket/labels.csv"));
    assert_eq!(labels.options["format.has_header"], "true");
    assert_eq!(labels.declared.as_ref().unwrap().fields().len(), 2);
    assert_eq!(pipeline.lookup("categories").unwrap().location, "tests/faults/categories");
    assert_eq!(pipeline.model("click").unwrap().language, Language::Xgboost);

    let sink = pipeline.sink("scored").unwrap();
    let types: Vec<_> = sink.contract.columns.iter().map(|c| c.data_type.clone()).collect();
    assert_eq!(types[0], DataType::Utf8);
    assert_eq!(types[2], DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let checks: Vec<_> = sink.contract.checks.iter().map(|c| (c.name.as_str(), c.sql.as_str())).collect();
    assert_eq!(checks, [("score_is_a_probability", "score BETWEEN 0 AND 1"), ("scored_check_2", "length(ad_id) > 0")]);
    assert_eq!(sink.partition_by, ["day"]);
    assert_eq!((sink.mode, sink.merge_schema, sink.target_file_size), (SinkMode::Append, true, 64_000_000));

    let kinds: Vec<_> = pipeline.queries.iter().map(|q| (q.name.as_str(), q.kind)).collect();
    use QueryKind::{Batch, Streaming};
    assert_eq!(kinds, [("scored", Streaming), ("labelled", Streaming), ("best", Batch)]);
    let scored = pipeline.query("scored").unwrap();
    assert_eq!(
        (&scored.sources[..], &scored.lookups[..]),
        (&["impressions".to_string()][..], &["categories".to_string()][..])
    );
    assert_eq!(scored.models, ["click"]);
    assert_eq!(
        (pipeline.checks[0].name.as_str(), pipeline.checks[0].lookups.as_slice()),
        ("check_1", &["scored".to_string()][..])
    );
    // A tombstone is a row of NULLs here, so even a proto3 field may be NULL.
    let warnings: Vec<&str> = pipeline.warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(warnings, ["column `ad_id` of `scored` is NOT NULL, and the SELECT may give NULL"]);
}

#[test]
fn secrets_are_not_told() {
    let text = "CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION 'kafka://h:1/t'
                OPTIONS ('value.format' 'raw', 'max_rows' '${env:SIZE}', 'start' '${env:PASSWORD}')";
    let told = load(text).unwrap_err().render(false);
    assert!(told.contains("`${env:SIZE}` is no count") && !told.contains("tiny") && !told.contains("s3cret"), "{told}");
    let text = "CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION 'kafka://h:1/t'
                OPTIONS ('value.proto' '${env:PASSWORD}.proto', 'value.message' 'x.Y')";
    let told = load(text).unwrap_err().render(false);
    assert!(told.contains("${env:PASSWORD}.proto` does not exist") && !told.contains("s3cret"), "{told}");
    let pipeline = load_with(THREE_QUERIES, &[("least", "0.5")]).unwrap();
    assert!(!format!("{pipeline:?}").contains("s3cret"));
}

#[test]
fn a_raw_topic_has_one_value_column() {
    let text = "CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION 'kafka://h:1/t' OPTIONS ('value.format' 'raw');
                CREATE EXTERNAL TABLE s (v VARBINARY, at TIMESTAMP) STORED AS DELTA LOCATION 's';
                SET flumen.pipeline = 'renamed';
                INSERT INTO s SELECT value, _timestamp FROM t";
    let pipeline = load(text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(pipeline.name, "renamed");
    assert_eq!(pipeline.sources[0].schema.field(0).data_type(), &DataType::Binary);
}

/// Two topics, three lookups, a batch sink and a streaming sink around `query`.
fn streaming(query: &str) -> Result<Pipeline, Faults> {
    load(&format!(
        "CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION 'kafka://h:1/t'
         OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE u STORED AS KAFKA LOCATION 'kafka://h:1/u'
         OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE again STORED AS KAFKA LOCATION 'kafka://h:1/t'
         OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE later STORED AS KAFKA LOCATION 'kafka://h:1/t'
         OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression', 'start' 'latest');
         CREATE EXTERNAL TABLE elsewhere STORED AS KAFKA LOCATION 'kafka://g:1/t'
         OPTIONS ('value.proto' 'proto/ads.proto', 'value.message' 'ads.v1.AdImpression');
         CREATE EXTERNAL TABLE l (ad_id VARCHAR, n BIGINT) STORED AS DELTA LOCATION 'l';
         CREATE EXTERNAL TABLE best (ad_id VARCHAR) STORED AS DELTA LOCATION 'best' OPTIONS ('mode' 'replace');
         CREATE EXTERNAL TABLE other (ad_id VARCHAR) STORED AS DELTA LOCATION 'other';
         CREATE EXTERNAL TABLE s (ad_id VARCHAR) STORED AS DELTA LOCATION 's';
         CREATE VIEW busy AS SELECT ad_id FROM t WHERE bid > 1;
         CREATE VIEW known AS SELECT DISTINCT ad_id FROM l ORDER BY 1 LIMIT 5;
         INSERT INTO best SELECT max(ad_id) FROM l;
         INSERT INTO other SELECT ad_id FROM u;
         INSERT INTO s {query};"
    ))
}

#[test]
fn a_streaming_query_may_say_what_is_row_wise() {
    for query in [
        "SELECT ad_id FROM t",
        "SELECT upper(ad_id) || '!' FROM t WHERE bid > 1 AND length(ad_id) < 9",
        "SELECT CAST(now() AS VARCHAR) FROM t WHERE impressed_at < now() AND CAST(impressed_at AS DATE) = current_date",
        "SELECT ad_id FROM t UNION ALL SELECT ad_id FROM u",
        "SELECT ad_id FROM t UNION ALL SELECT user_id FROM t",
        "SELECT ad_id FROM t UNION ALL SELECT ad_id FROM again",
        "SELECT unnest(labels) FROM t",
        "SELECT t.ad_id FROM t JOIN l ON t.ad_id = l.ad_id",
        "SELECT t.ad_id FROM l JOIN t ON t.ad_id = l.ad_id AND l.n > t.bid",
        "SELECT t.ad_id FROM t CROSS JOIN l",
        "SELECT t.ad_id FROM t, l WHERE t.ad_id = l.ad_id",
        "SELECT t.ad_id FROM t LEFT JOIN l ON t.ad_id = l.ad_id",
        "SELECT t.ad_id FROM l RIGHT JOIN t ON t.ad_id = l.ad_id",
        "SELECT t.ad_id FROM t LEFT SEMI JOIN l ON t.ad_id = l.ad_id",
        "SELECT t.ad_id FROM t LEFT ANTI JOIN l ON t.ad_id = l.ad_id",
        "SELECT ad_id FROM t WHERE EXISTS (SELECT 1 FROM l WHERE l.ad_id = t.ad_id)",
        "SELECT ad_id FROM t WHERE NOT EXISTS (SELECT 1 FROM l WHERE l.ad_id = t.ad_id)",
        "SELECT ad_id FROM t WHERE ad_id IN (SELECT ad_id FROM l)",
        "SELECT ad_id FROM t WHERE ad_id NOT IN (SELECT ad_id FROM l WHERE ad_id IS NOT NULL)",
        "SELECT ad_id FROM t WHERE bid > (SELECT avg(n) FROM l)",
        "SELECT (SELECT max(l.ad_id) FROM l WHERE l.ad_id = t.ad_id) FROM t",
        "SELECT t.ad_id FROM t JOIN (SELECT ad_id, max(n) AS n FROM l GROUP BY 1 ORDER BY 2 LIMIT 9) m USING (ad_id)",
        "SELECT t.ad_id FROM t JOIN (SELECT ad_id FROM l UNION SELECT 'x') m ON t.ad_id = m.ad_id",
        "SELECT t.ad_id FROM t JOIN (SELECT ad_id, row_number() OVER (ORDER BY n) AS r FROM l) m ON t.ad_id = m.ad_id",
        "SELECT ad_id FROM busy",
        "SELECT busy.ad_id FROM busy JOIN known ON busy.ad_id = known.ad_id",
        "WITH x AS (SELECT ad_id FROM t) SELECT ad_id FROM x",
        "SELECT t.ad_id FROM t JOIN best ON t.ad_id = best.ad_id",
        "SELECT ad_id FROM later",
        "SELECT t.ad_id FROM t JOIN (VALUES ('a'), ('b')) AS v(ad_id) ON t.ad_id = v.ad_id",
    ] {
        if let Err(faults) = streaming(query) {
            panic!("{query}\n{faults}");
        }
    }
}

#[test]
fn a_streaming_query_may_not_say_what_looks_at_more_than_a_row() {
    for (query, reason) in [
        ("SELECT max(ad_id) FROM t", "an aggregation over a topic"),
        ("SELECT ad_id FROM t GROUP BY ad_id", "an aggregation over a topic"),
        ("SELECT ad_id FROM t GROUP BY ad_id HAVING count(*) > 1", "an aggregation over a topic"),
        ("SELECT DISTINCT ad_id FROM t", "DISTINCT over a topic"),
        ("SELECT DISTINCT ON (ad_id) ad_id FROM t", "DISTINCT over a topic"),
        ("SELECT ad_id FROM t ORDER BY ad_id", "ORDER BY over a topic"),
        ("SELECT ad_id FROM t LIMIT 3", "LIMIT over a topic"),
        ("SELECT ad_id FROM t OFFSET 3", "LIMIT over a topic"),
        ("SELECT max(ad_id) OVER (PARTITION BY user_id) FROM t", "a window function over a topic"),
        ("SELECT ad_id FROM t UNION SELECT ad_id FROM u", "UNION drops equal rows"),
        ("SELECT ad_id FROM t EXCEPT SELECT ad_id FROM l", "EXCEPT compares whole tables"),
        ("SELECT ad_id FROM t EXCEPT ALL SELECT ad_id FROM l", "EXCEPT compares whole tables"),
        ("SELECT ad_id FROM t INTERSECT SELECT ad_id FROM l", "INTERSECT compares whole tables"),
        ("SELECT ad_id FROM l INTERSECT SELECT ad_id FROM t", "INTERSECT compares whole tables"),
        ("SELECT l.ad_id FROM t RIGHT JOIN l ON t.ad_id = l.ad_id", "filled with NULLs"),
        ("SELECT l.ad_id FROM l LEFT JOIN t ON t.ad_id = l.ad_id", "filled with NULLs"),
        ("SELECT t.ad_id FROM t FULL JOIN l ON t.ad_id = l.ad_id", "a FULL join"),
        ("SELECT l.ad_id FROM l LEFT SEMI JOIN t ON t.ad_id = l.ad_id", "a sub-query cannot read a topic"),
        ("SELECT l.ad_id FROM l WHERE ad_id IN (SELECT ad_id FROM t)", "a sub-query cannot read a topic"),
        ("SELECT ad_id FROM t WHERE ad_id IN (SELECT ad_id FROM u)", "a sub-query cannot read a topic"),
        (
            "SELECT ad_id FROM l WHERE EXISTS (SELECT 1 FROM t WHERE t.ad_id = l.ad_id)",
            "a sub-query cannot read a topic",
        ),
        ("SELECT ad_id FROM t WHERE bid > (SELECT avg(bid) FROM u)", "a sub-query cannot read a topic"),
        ("SELECT (SELECT max(ad_id) FROM t)", "a sub-query cannot read a topic"),
        ("SELECT t.ad_id FROM t JOIN u ON t.ad_id = u.ad_id", "a topic cannot be joined with a topic"),
        ("SELECT t.ad_id FROM t, t AS t2", "a topic cannot be joined with a topic"),
        ("SELECT CAST(random() AS VARCHAR) FROM t", "random() gives another value each time"),
        ("SELECT uuid() FROM t", "uuid() gives another value each time"),
        ("SELECT ad_id FROM t WHERE random() < 0.1", "random() gives another value each time"),
        ("SELECT ad_id FROM t UNION ALL SELECT ad_id FROM l", "a branch of UNION ALL reads no topic"),
        ("SELECT ad_id FROM t UNION ALL SELECT 'x'", "a branch of UNION ALL reads no topic"),
        ("SELECT t.ad_id FROM t JOIN s ON t.ad_id = s.ad_id", "reads its own sink"),
        (
            "SELECT t.ad_id FROM t WHERE ad_id IN (SELECT ad_id FROM other)",
            "another streaming query of this file writes",
        ),
        ("SELECT ad_id FROM t UNION ALL SELECT ad_id FROM later", "with different `start`"),
        ("SELECT ad_id FROM t UNION ALL SELECT ad_id FROM elsewhere", "with different brokers"),
        ("SELECT max(ad_id) FROM busy", "an aggregation over a topic"),
        ("WITH x AS (SELECT ad_id FROM t LIMIT 5) SELECT ad_id FROM x", "LIMIT over a topic"),
        (
            "WITH RECURSIVE x AS (SELECT ad_id FROM t UNION ALL SELECT ad_id FROM x) SELECT ad_id FROM x",
            "a recursive query cannot read a topic",
        ),
    ] {
        let Err(faults) = streaming(query) else { panic!("{query} is allowed") };
        let told = faults.render(false);
        assert!(told.contains(reason), "{query}\n{told}");
        assert!(faults.iter().all(|f| f.remedy.is_some()), "{query}\n{told}");
    }
}

#[test]
fn a_batch_job_may_say_everything_but_must_say_its_mode() {
    let batch = |options: &str, query: &str| {
        load(&format!(
            "CREATE EXTERNAL TABLE l (ad_id VARCHAR, n BIGINT) STORED AS DELTA LOCATION 'l';
             CREATE EXTERNAL TABLE s (ad_id VARCHAR, n BIGINT) STORED AS DELTA {options};
             INSERT INTO s {query};"
        ))
    };
    for query in [
        "SELECT ad_id, sum(n) FROM l GROUP BY ad_id ORDER BY 2 LIMIT 5",
        "SELECT DISTINCT ad_id, n FROM l UNION SELECT 'x', 1",
        "SELECT ad_id, CAST(row_number() OVER (ORDER BY n) AS BIGINT) FROM l",
        "SELECT l.ad_id, m.n FROM l FULL JOIN l AS m ON l.n = m.n + 1",
        "SELECT CAST(random() AS VARCHAR), value FROM generate_series(1, 10)",
        "VALUES ('a', 1), ('b', 2)",
    ] {
        if let Err(faults) = batch("LOCATION 's' OPTIONS ('mode' 'replace')", query) {
            panic!("{query}\n{faults}");
        }
    }
    let query = "SELECT ad_id, n FROM l";
    assert!(batch("PARTITIONED BY (n) LOCATION 's' OPTIONS ('mode' 'replace_partitions')", query).is_ok());
    for (options, reason) in [
        ("LOCATION 's'", "must"),
        ("LOCATION 's' OPTIONS ('mode' 'append')", "repeat all rows"),
        ("LOCATION 's' OPTIONS ('mode' 'replace_partitions')", "no partitions to replace"),
    ] {
        let Err(faults) = batch(options, query) else { panic!("{options} is allowed") };
        assert!(faults.render(false).contains(reason) || reason == "must", "{options}\n{faults}");
    }
}

#[tokio::test]
async fn plans_run_over_what_is_registered() {
    let text = "CREATE EXTERNAL TABLE l (ad_id VARCHAR, score DOUBLE) STORED AS DELTA LOCATION 'l';
                CREATE VIEW low AS SELECT ad_id, score FROM l WHERE score < $most;
                CREATE VIEW lower AS SELECT * FROM low WHERE ad_id <> $name;
                CREATE EXTERNAL TABLE s (ad_id VARCHAR) STORED AS DELTA LOCATION 's' OPTIONS ('mode' 'replace');
                INSERT INTO s SELECT ad_id FROM lower;
                SELECT * FROM low WHERE score > 0.4";
    let params = [("most", "0.5"), ("name", "7")];
    let pipeline = load_with(text, &params).unwrap_or_else(|faults| panic!("{faults}"));
    let context = SessionContext::new();
    let ids = StringArray::from(vec!["1", "7", "8"]);
    let batch = RecordBatch::try_from_iter([
        ("ad_id", Arc::new(ids) as arrow::array::ArrayRef),
        ("score", Arc::new(Float64Array::from(vec![0.1, 0.2, 0.9]))),
    ])
    .unwrap();
    context.register_batch("l", batch).unwrap();
    let state = context.state();
    let plan = pipeline.plan_query(&pipeline.queries[0], &state).await.unwrap();
    let rows = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "only ad 1 is low and not 7");
    let plan = pipeline.plan_check(&pipeline.checks[0], &state).await.unwrap();
    assert_eq!(context.execute_logical_plan(plan).await.unwrap().count().await.unwrap(), 0);
    let sql = "SELECT count(*) FROM lower";
    assert_eq!(pipeline.tables_of(sql).unwrap().into_iter().collect::<Vec<_>>(), ["l"]);
    assert!(pipeline.plan_sql(sql, &state).await.is_ok());
    assert_eq!(pipeline.plan_sql("DROP TABLE l", &state).await.unwrap_err().kind(), crate::error::ErrorKind::Invalid);
}

#[test]
fn the_right_one_of_two_alike_names_is_marked() {
    let told = streaming("SELECT concat(CAST(t.bid AS VARCHAR), CAST(x.bid AS VARCHAR)) FROM t").unwrap_err();
    let places: Vec<_> = told.iter().map(|f| (f.message.clone(), f.column)).collect();
    assert_eq!(
        places,
        [(
            "there is no table `x` here".to_string(),
            Some("         INSERT INTO s SELECT concat(CAST(t.bid AS VARCHAR), CAST(x".len())
        )]
    );
}

#[test]
fn nothing_panics_on_broken_texts() {
    let whole: Vec<char> = THREE_QUERIES.chars().collect();
    for cut in (0..whole.len()).step_by(97) {
        let text: String = whole[..cut].iter().collect();
        let _ = load(&text);
        let text: String = whole[cut..].iter().collect();
        let _ = load(&text);
    }
    for text in ["", ";", "'", "\"", "/*", "--", "$", "${", "SELECT $$", "INSERT INTO", "é;é", "SELECT 'é' é é é"]
    {
        let _ = load(text);
    }
}

#[test]
fn a_parameter_that_is_a_column_has_the_columns_type() {
    let text = "CREATE EXTERNAL TABLE l (ad_id VARCHAR) STORED AS DELTA LOCATION 'l';
                CREATE EXTERNAL TABLE s (c VARCHAR, d DOUBLE, n DECIMAL(10, 2), day DATE) STORED AS DELTA LOCATION 's'
                OPTIONS ('mode' 'replace');
                INSERT INTO s SELECT $c, $d AS d, $n, $day FROM l;";
    for c in ["abc", "007", "true", "2026-01-31"] {
        let given = [("c", c), ("d", "1"), ("n", "3.5"), ("day", "2026-01-31")];
        load_with(text, &given).unwrap_or_else(|faults| panic!("{c}: {faults}"));
    }
    let given = [("c", "x"), ("d", "1"), ("n", "3"), ("day", "tomorrow")];
    let told = load_with(text, &given).unwrap_err().render(false);
    assert!(told.contains("--param day: the value is no DATE"), "{told}");
}
