//! What a streaming query may say: row by row in its topic, so that cutting the topic into micro-batches elsewhere
//! never changes the table.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan, Volatility};

/// Why a query cannot run over a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is refused, with the reason.
    pub message: String,
    /// The way out.
    pub remedy: &'static str,
    /// The words in the statement that say it; the first one found is marked.
    pub words: Vec<String>,
}

impl Refusal {
    fn new(message: impl Into<String>, remedy: &'static str, words: &[&str]) -> Self {
        Self { message: message.into(), remedy, words: words.iter().map(|w| (*w).to_string()).collect() }
    }
}

/// The way out for what needs all rows at once.
const WHOLE: &str = "write the rows as they are, and do this in a batch job or a view that reads the sink";
/// The reason against joins that keep the lookup's rows.
const NULLS: &str = "the topic is on the side that is filled with NULLs: the lookup's unmatched rows would come in \
                     each micro-batch";
/// The way out for joins.
const PRESERVED: &str = "put the topic on the side whose rows are all kept: FROM topic LEFT JOIN lookup";

/// Everything in a plan that a streaming query may not say; `is_topic` tells topics from other tables.
pub(super) fn refusals(plan: &LogicalPlan, is_topic: &dyn Fn(&str) -> bool) -> Vec<Refusal> {
    let mut walk = Walk { is_topic, refusals: Vec::new() };
    walk.plan(plan);
    walk.refusals.dedup();
    walk.refusals
}

struct Walk<'a> {
    is_topic: &'a dyn Fn(&str) -> bool,
    refusals: Vec<Refusal>,
}

impl Walk<'_> {
    fn refuse(&mut self, message: impl Into<String>, remedy: &'static str, words: &[&str]) {
        self.refusals.push(Refusal::new(message, remedy, words));
    }

    /// Whether a plan reads a topic; on the way what is refused is collected.
    fn plan(&mut self, plan: &LogicalPlan) -> bool {
        let subquery_reads = self.expressions(plan);
        let reads = match plan {
            LogicalPlan::TableScan(scan) => (self.is_topic)(scan.table_name.table()),
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => {
                let reads: Vec<bool> = union.inputs.iter().map(|input| self.plan(input)).collect();
                if reads.contains(&true) && reads.contains(&false) {
                    self.refuse(
                        "a branch of UNION ALL reads no topic, and each micro-batch would repeat its rows",
                        "write that branch with a batch job into a sink of its own",
                        &["UNION"],
                    );
                }
                reads.contains(&true)
            }
            other => {
                let mut reads = false;
                for input in other.inputs() {
                    reads |= self.plan(input);
                }
                if reads {
                    self.operator(other);
                }
                reads
            }
        };
        reads || subquery_reads
    }

    /// Refuses what cannot be done row by row to the rows of a topic.
    fn operator(&mut self, plan: &LogicalPlan) {
        match plan {
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_) => {}
            LogicalPlan::Aggregate(aggregate) => {
                let mut words = vec!["GROUP".to_string()];
                for expr in &aggregate.aggr_expr {
                    if let Expr::AggregateFunction(f) = strip_alias(expr) {
                        words.insert(0, f.func.name().to_string());
                    }
                }
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let why = "an aggregation over a topic would be one of each micro-batch, not of the topic";
                self.refuse(why, WHOLE, &words);
            }
            LogicalPlan::Distinct(distinct) => match distinct {
                Distinct::All(input) if matches!(input.as_ref(), LogicalPlan::Union(_)) => {
                    let why = "UNION drops equal rows, but only those of the same micro-batch";
                    self.refuse(why, "write UNION ALL", &["UNION"]);
                }
                _ => {
                    let why = "DISTINCT over a topic would drop equal rows of the same micro-batch only";
                    self.refuse(why, WHOLE, &["DISTINCT", "EXCEPT", "INTERSECT"]);
                }
            },
            LogicalPlan::Sort(_) => {
                let why = "ORDER BY over a topic would sort each micro-batch by itself, and a table has no order";
                self.refuse(why, "leave it out, and sort when you read the table", &["ORDER"]);
            }
            LogicalPlan::Limit(_) => {
                let why = "LIMIT over a topic would hold for each micro-batch by itself";
                self.refuse(why, "leave it out; `max_rows` bounds a micro-batch", &["LIMIT", "OFFSET", "FETCH"]);
            }
            LogicalPlan::Window(_) => {
                let why = "a window function over a topic would see the rows of one micro-batch only";
                self.refuse(why, WHOLE, &["OVER"]);
            }
            LogicalPlan::RecursiveQuery(_) => {
                self.refuse("a recursive query cannot read a topic", "read a lookup in it", &["RECURSIVE"]);
            }
            other => {
                let message = format!("{} cannot be done row by row over a topic", other.display());
                self.refuse(message, WHOLE, &[]);
            }
        }
    }

    fn join(&mut self, join: &Join) -> bool {
        let left = self.plan(&join.left);
        let right = self.plan(&join.right);
        if !left && !right {
            return false;
        }
        if join.null_equality == NullEquality::NullEqualsNull && join.filter.is_none() {
            let (why, words) = match join.join_type {
                JoinType::LeftAnti | JoinType::RightAnti => {
                    ("EXCEPT compares whole tables, not rows", ["EXCEPT", "MINUS"])
                }
                _ => ("INTERSECT compares whole tables, not rows", ["INTERSECT", "INTERSECT"]),
            };
            self.refuse(format!("{why}: over a topic it would be another one in each micro-batch"), WHERE, &words);
            return true;
        }
        if left && right {
            let why =
                "a topic cannot be joined with a topic: rows that belong together may come in different micro-batches";
            let remedy = "write one of them to a sink with a pipeline of its own, and read that table as a lookup";
            self.refuse(why, remedy, &["JOIN", ",", "IN", "EXISTS"]);
            return true;
        }
        match join.join_type {
            JoinType::Inner => {}
            JoinType::Full => {
                self.refuse("a FULL join repeats the lookup's unmatched rows in each micro-batch", PRESERVED, &["FULL"])
            }
            JoinType::Left if right => {
                self.refuse(NULLS, PRESERVED, &["LEFT"]);
            }
            JoinType::Right if left => {
                self.refuse(NULLS, PRESERVED, &["RIGHT"]);
            }
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark if right => self.topic_in_subquery(),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark if left => self.topic_in_subquery(),
            _ => {}
        }
        true
    }

    fn topic_in_subquery(&mut self) {
        self.refuse(
            "a sub-query cannot read a topic: its answer would be another one in each micro-batch",
            "read a lookup there, or write the topic to a sink first and read that table",
            &["IN", "EXISTS", "SEMI", "ANTI", "SELECT"],
        );
    }

    /// The expressions of one node: sub-queries over a topic and volatile functions. Whether a sub-query reads a topic.
    fn expressions(&mut self, plan: &LogicalPlan) -> bool {
        let mut reads = false;
        let mut volatile: Vec<String> = Vec::new();
        let mut subqueries = Vec::new();
        // The closure never fails, so neither does the walk.
        let _ = plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::ScalarFunction(f) if f.func.signature().volatility == Volatility::Volatile => {
                        volatile.push(f.func.name().to_string());
                    }
                    Expr::ScalarSubquery(s) => subqueries.push((s.subquery.clone(), "SELECT")),
                    Expr::Exists(e) => subqueries.push((e.subquery.subquery.clone(), "EXISTS")),
                    Expr::InSubquery(i) => subqueries.push((i.subquery.subquery.clone(), "IN")),
                    Expr::SetComparison(c) => subqueries.push((c.subquery.subquery.clone(), "SELECT")),
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        for name in volatile {
            let why = format!(
                "{name}() gives another value each time, so running a micro-batch again would change the table"
            );
            let remedy =
                "compute it from the row, such as from _partition and _offset; now() is allowed: it is recorded";
            self.refuse(why, remedy, &[&name]);
        }
        for (subquery, _) in subqueries {
            if self.plan(&subquery) {
                reads = true;
                self.topic_in_subquery();
            }
        }
        reads
    }
}

/// The way out for set operations.
const WHERE: &str = "write a condition on the row: WHERE EXISTS / NOT EXISTS over a lookup";

fn strip_alias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => strip_alias(&alias.expr),
        other => other,
    }
}
