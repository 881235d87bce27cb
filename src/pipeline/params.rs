//! `$name`: parameters with the type that the query wants of them.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::DataType;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::contract::sql_type;

/// Why a parameter cannot be filled in.
#[derive(Debug)]
pub(super) enum ParamFault {
    /// The value is not of the type that is wanted.
    Type { name: String, wanted: String },
    /// The plan does not take the values.
    Plan(DataFusionError),
}

/// Fills in the parameters of a plan. `columns` are the types of the columns that it fills, if it fills any: there a
/// parameter that is a column by itself is of that type.
pub(super) fn fill(
    plan: LogicalPlan,
    given: &BTreeMap<String, String>,
    columns: &[DataType],
) -> Result<LogicalPlan, ParamFault> {
    let mut wanted = wanted_types(&plan).map_err(ParamFault::Plan)?;
    for (index, name) in bare_columns(&plan) {
        if let (Some(None), Some(data_type)) = (wanted.get(&name), columns.get(index)) {
            wanted.insert(name, Some(data_type.clone()));
        }
    }
    if wanted.is_empty() {
        return Ok(plan);
    }
    let mut values: HashMap<String, ScalarAndMetadata> = HashMap::new();
    for (name, data_type) in &wanted {
        let Some(text) = given.get(name) else { continue };
        let value = match data_type {
            Some(data_type) => ScalarValue::try_from_string(text.clone(), data_type)
                .map_err(|_| ParamFault::Type { name: name.clone(), wanted: sql_type(data_type) })?,
            None => literal(text),
        };
        values.insert(name.clone(), value.into());
    }
    plan.with_param_values(ParamValues::Map(values)).map_err(ParamFault::Plan)
}

/// The parameters of a plan, each with the type of what it stands beside, if anything.
fn wanted_types(plan: &LogicalPlan) -> Result<BTreeMap<String, Option<DataType>>, DataFusionError> {
    let mut wanted: BTreeMap<String, Option<DataType>> = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Placeholder(placeholder) = expr {
                    let name = placeholder.id.trim_start_matches('$').to_string();
                    let data_type = placeholder.field.as_ref().map(|f| f.data_type().clone());
                    let known = wanted.entry(name).or_default();
                    *known = known.take().or(data_type.filter(|t| !t.is_null()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(wanted)
}

/// The columns of a plan's result that are a parameter by themselves.
fn bare_columns(plan: &LogicalPlan) -> Vec<(usize, String)> {
    let LogicalPlan::Projection(projection) = plan else {
        return plan.inputs().into_iter().flat_map(bare_columns).collect();
    };
    let bare = projection.expr.iter().enumerate().filter_map(|(index, expr)| match expr.clone().unalias() {
        Expr::Placeholder(placeholder) => Some((index, placeholder.id.trim_start_matches('$').to_string())),
        _ => None,
    });
    bare.collect()
}

/// The value that a text looks like: a number, a truth value, a date, a time, or itself.
fn literal(text: &str) -> ScalarValue {
    let as_type = |data_type: DataType| ScalarValue::try_from_string(text.to_string(), &data_type).ok();
    if let Ok(number) = text.parse::<i64>() {
        return ScalarValue::Int64(Some(number));
    }
    let numeric = text.chars().any(|c| c.is_ascii_digit()) && text.parse::<f64>().is_ok();
    let dated = text.len() >= 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    match text {
        "true" => ScalarValue::Boolean(Some(true)),
        "false" => ScalarValue::Boolean(Some(false)),
        _ if numeric => ScalarValue::Float64(text.parse().ok()),
        _ if dated && text.len() == 10 => as_type(DataType::Date32).unwrap_or_else(|| ScalarValue::from(text)),
        _ if dated => {
            let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
            as_type(micros).unwrap_or_else(|| ScalarValue::from(text))
        }
        _ => ScalarValue::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_looks_like() {
        for (text, expected) in [
            ("12", DataType::Int64),
            ("-1.5", DataType::Float64),
            ("true", DataType::Boolean),
            ("2026-01-31", DataType::Date32),
            ("2026-99-99", DataType::Utf8),
            ("nan", DataType::Utf8),
            ("de", DataType::Utf8),
            ("ääääääääää", DataType::Utf8),
        ] {
            assert_eq!(literal(text).data_type(), expected, "{text}");
        }
        assert!(matches!(literal("2026-01-31T12:00:00Z").data_type(), DataType::Timestamp(_, Some(_))));
    }
}
