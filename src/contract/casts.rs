//! Casts of a SELECT list that fail, as columns: a cast that fails ends the plan of a whole micro-batch, whoever's row
//! it was. Where rows that break the contract are set apart, such a cast gives NULL instead, and a column behind the
//! query's own says in which rows it did, with the value.
//!
//! What is only evaluated for some rows (`CASE`, `AND`, `coalesce`) is left as it is: there a failing cast may be one
//! that would never have been evaluated.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, Union, cast, lit, when};

use super::is_lossless;
use crate::error::{Error, Result};

/// What the columns are called: this, and the position of the column that they are about.
const UNFIT: &str = "__unfit_";

/// The plan with such columns; the same plan when no cast of its SELECT list can fail.
///
/// # Errors
/// `Invalid` when the changed plan does not type, which no plan does that typed before.
pub fn watch_casts(plan: LogicalPlan) -> Result<LogicalPlan> {
    let watched = watch(&plan).map_err(|e| Error::invalid(e.strip_backtrace()))?;
    Ok(watched.unwrap_or(plan))
}

/// The column of the query that a column of the plan says something about.
pub(super) fn watched_column(name: &str) -> Option<usize> {
    name.strip_prefix(UNFIT)?.parse().ok()
}

fn watch(plan: &LogicalPlan) -> DfResult<Option<LogicalPlan>> {
    let branches: Vec<&LogicalPlan> = match plan {
        LogicalPlan::Projection(_) => vec![plan],
        LogicalPlan::Union(union) => union.inputs.iter().map(AsRef::as_ref).collect(),
        _ => return Ok(None),
    };
    let mut rewritten = Vec::new();
    for branch in &branches {
        // The SELECT list of a branch of a UNION may have a projection above it that only renames.
        let LogicalPlan::Projection(projection) = branch else { return Ok(None) };
        let columns: DfResult<Vec<Watched>> =
            projection.expr.iter().map(|expr| Watched::of(expr, projection.input.schema())).collect();
        rewritten.push((projection, columns?));
    }
    let width = rewritten.first().map_or(0, |(_, columns)| columns.len());
    let is_watched = |at: &usize| rewritten.iter().any(|(_, columns)| columns[*at].text.is_some());
    let positions: Vec<usize> = (0..width).filter(is_watched).collect();
    if positions.is_empty() {
        return Ok(None);
    }
    let mut inputs = Vec::new();
    for (projection, columns) in rewritten {
        let nothing = || lit(datafusion::scalar::ScalarValue::Utf8(None));
        let text = |at: &usize| columns[*at].text.clone().unwrap_or_else(nothing).alias(format!("{UNFIT}{at}"));
        let added: Vec<Expr> = positions.iter().map(text).collect();
        let exprs = columns.into_iter().map(|column| column.expr).chain(added).collect();
        inputs.push(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?)));
    }
    match (plan, inputs.pop()) {
        (LogicalPlan::Projection(_), Some(only)) => Ok(Some(Arc::unwrap_or_clone(only))),
        (_, Some(last)) => {
            inputs.push(last);
            Ok(Some(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
        }
        (_, None) => Ok(None),
    }
}

/// An expression of a SELECT list.
struct Watched {
    /// The expression, in which no cast fails.
    expr: Expr,
    /// The value that a cast in it could not keep, as text; `None` when no cast can fail.
    text: Option<Expr>,
}

impl Watched {
    fn of(expr: &Expr, schema: &DFSchema) -> DfResult<Self> {
        let mut texts = Vec::new();
        let rewritten = rewrite(expr.clone(), schema, &mut texts)?;
        let text = match texts.len() {
            0 => return Ok(Self { expr: expr.clone(), text: None }),
            1 => texts.pop(),
            _ => Some(coalesce(texts)),
        };
        let (_, name) = expr.qualified_name();
        Ok(Self { expr: rewritten.unalias().alias(name), text })
    }
}

fn rewrite(expr: Expr, schema: &DFSchema, texts: &mut Vec<Expr>) -> DfResult<Expr> {
    let rewritten = expr.transform_down(|expr| {
        if expr.short_circuits() {
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        }
        match expr {
            Expr::Cast(Cast { expr: inner, field }) => {
                let from = inner.get_type(schema)?;
                let inner = rewrite(*inner, schema, texts)?;
                if is_lossless(&from, field.data_type()) {
                    let kept = Expr::Cast(Cast::new_from_field(Box::new(inner), field));
                    return Ok(Transformed::new(kept, true, TreeNodeRecursion::Jump));
                }
                let attempt = Expr::TryCast(TryCast::new_from_field(Box::new(inner.clone()), field));
                let failed = inner.clone().is_not_null().and(attempt.clone().is_null());
                texts.push(when(failed, as_text(inner, &from)).end()?);
                Ok(Transformed::new(attempt, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        }
    })?;
    Ok(rewritten.data)
}

fn as_text(expr: Expr, data_type: &DataType) -> Expr {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    match data_type {
        Binary | BinaryView | LargeBinary | FixedSizeBinary(_) => lit("bytes"),
        nested if nested.is_nested() => lit("a nested value"),
        _ => cast(expr, DataType::Utf8),
    }
}
