//! Which nested fields of a topic a plan really reads: only those are decoded.
//!
//! A column that is only ever used as `column.field…` is decoded for these fields alone. A column passed on whole under
//! its own name (a projection between a join and the scan) is followed by that name; any other use of it, and a column
//! of the result, is a use of the whole message.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::decode::Selection;
use crate::error::Result;

/// The fields that the optimised `plan` uses, by column name over all of its topics.
///
/// # Errors
/// None of its own: what the walk over the plan returns.
pub(crate) fn used_fields(plan: &LogicalPlan) -> Result<Selection> {
    let mut uses = Uses(Selection::none());
    for field in plan.schema().fields() {
        uses.0.add(&[field.name()]);
    }
    plan.apply_with_subqueries(|node| {
        let passes = matches!(node, LogicalPlan::Projection(_));
        node.apply_expressions(|expr| {
            if !(passes && matches!(expr, Expr::Column(_))) {
                uses.expression(expr)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(uses.0)
}

/// How often the plan reads tables of these names.
///
/// # Errors
/// None of its own: what the walk over the plan returns.
pub(crate) fn scans<'a>(plan: &LogicalPlan, tables: impl Iterator<Item = &'a str>) -> Result<usize> {
    let tables: Vec<&str> = tables.collect();
    let mut count = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            count += usize::from(tables.contains(&scan.table_name.table()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(count)
}

/// The fields at these paths, with all that they contain.
struct Uses(Selection);

impl Uses {
    fn expression(&mut self, expr: &Expr) -> DfResult<()> {
        expr.apply(|e| match field_path(e) {
            Some(path) => {
                self.0.add(&path);
                Ok(TreeNodeRecursion::Jump)
            }
            None => Ok(TreeNodeRecursion::Continue),
        })?;
        Ok(())
    }
}

/// `placement.slot` of `get_field(placement, 'slot')`; a column alone is a path of one.
fn field_path(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Column(column) => Some(vec![column.name.clone()]),
        Expr::ScalarFunction(call) if call.name() == "get_field" => {
            let (base, names) = call.args.split_first()?;
            let mut path = field_path(base)?;
            for name in names {
                let Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)), _) = name else {
                    return None;
                };
                path.push(name.clone());
            }
            Some(path)
        }
        _ => None,
    }
}
