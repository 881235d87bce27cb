//! Decision trees, random forests and gradient-boosted trees.

use arrow::array::{Float64Array, Int32Array, ListArray, StructArray};

use super::super::forest::{Branch, CategoryRule, CategorySet, Forest, Missing, Split, Test};
use super::directory::Stage;
use super::plan::Plan;
use super::predictor::{Loaded, Predictor, Thresholds, shares};
use super::table::{Table, check_width, column, numbers};
use super::vector::{BLOCK_ROWS, Block, Rows};
use crate::error::{Error, Result};

/// A feature may have this many categories. Spark has at most as many as bins.
const MAX_CATEGORIES: i32 = 1 << 16;

#[derive(Debug)]
struct Trees {
    forest: Forest<f64>,
    /// The features that the trees look at, sorted.
    features: Vec<usize>,
    way: Way,
}

/// What is made of the sum of the leaves.
#[derive(Debug)]
enum Way {
    /// The number itself.
    Sum,
    /// The mean of so many trees.
    Mean(f64),
    /// Shares of counts.
    Classes(usize, Thresholds),
    /// Two classes by a margin.
    Margin(Thresholds),
}

/// A node as the file has it.
#[derive(Debug)]
struct Node {
    tree: i32,
    id: i32,
    prediction: f64,
    left: i32,
    right: i32,
    feature: i32,
    categories: i32,
    row: usize,
}

/// The columns of the nodes.
#[derive(Debug)]
struct Nodes<'a> {
    data: &'a StructArray,
    split: &'a StructArray,
    counts: &'a ListArray,
    sides: &'a ListArray,
}

pub(super) fn load(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    let kind = stage.kind();
    let width = stage.count("numFeatures")?;
    check_width(stage, width)?;
    let is_boosted = kind.starts_with("GBT");
    let is_classifier = kind.ends_with("ClassificationModel");
    let classes = match (is_classifier, is_boosted) {
        (true, true) => Some(2),
        (true, false) => Some(stage.count("numClasses")?).filter(|classes| *classes > 0),
        (false, _) => None,
    };
    let table = Table::read_rows(stage)?;
    let nodes = Nodes::of(&table)?;
    let all = nodes.sorted(&table)?;
    let trees: Vec<&[Node]> = all.chunk_by(|one, next| one.tree == next.tree).collect();
    check_trees(stage, &trees)?;
    let weights = match is_boosted {
        true => weights(stage, trees.len())?,
        false => vec![1.0; trees.len()],
    };
    let mut features = looked_at(&all, width).map_err(|fault| stage.fault(fault.message()))?;
    features.shrink_to_fit();
    let is_voting = classes.filter(|_| !is_boosted);
    let mut forest = Forest::new(features.len().max(1), is_voting.unwrap_or(1));
    for (tree, weight) in trees.iter().zip(weights) {
        let branches = nodes.branches(tree, &features, is_voting, kind.starts_with("RandomForest"));
        let pushed = branches.and_then(|branches| forest.push(&branches, 0, weight));
        pushed.map_err(|error| {
            let tree = tree.first().map_or(0, |node| node.tree);
            stage.fault(format_args!("tree {tree}: {}; save the model again", error.message()))
        })?;
    }
    let way = match (classes, is_boosted) {
        (Some(2), true) => Way::Margin(Thresholds::of(stage, 2)?),
        (Some(classes), _) => Way::Classes(classes, Thresholds::of(stage, classes)?),
        (None, true) => Way::Sum,
        (None, false) => Way::Mean(trees.len() as f64),
    };
    let column = plan.vectors(stage, stage.text("featuresCol")?, Some(width))?.column;
    let (trees, objective) = (trees.len(), if is_classifier { "classification" } else { "regression" }.to_owned());
    let predictor = Box::new(Trees { forest, features, way });
    Ok(Loaded { predictor, column, classes, has_probabilities: is_classifier, objective, trees })
}

/// Trees are numbered from 0, and so are the nodes of each.
fn check_trees(stage: &Stage, trees: &[&[Node]]) -> Result<()> {
    for (at, tree) in trees.iter().enumerate() {
        let is_numbered = tree.iter().enumerate().all(|(id, node)| usize::try_from(node.id) == Ok(id));
        if tree.first().is_none_or(|node| usize::try_from(node.tree) != Ok(at)) || !is_numbered {
            return Err(stage.fault(format_args!(
                "tree {at} or nodes of it are missing or there twice; copy all files of the model, or save it again"
            )));
        }
    }
    match stage.count("numTrees") {
        // Beside the parameters stands how many there are; a parameter says how many were asked for.
        Ok(count) if count != trees.len() => Err(stage.fault(format_args!(
            "it has {} trees instead of {count}; copy all files of the model, or save it again",
            trees.len()
        ))),
        _ => Ok(()),
    }
}

/// The weight of each tree. The columns have other names in Spark 3.
fn weights(stage: &Stage, trees: usize) -> Result<Vec<f64>> {
    let table = Table::read_part(stage, "treesMetadata")?;
    let ids: &Int32Array = column(table.rows(), "_1").or_else(|_| column(table.rows(), "treeID"))?;
    let values: &Float64Array = column(table.rows(), "_3").or_else(|_| column(table.rows(), "weights"))?;
    let mut pairs: Vec<(i32, f64)> = ids.values().iter().copied().zip(values.values().iter().copied()).collect();
    pairs.sort_by_key(|(id, _)| *id);
    let is_numbered = pairs.iter().enumerate().all(|(at, (id, _))| usize::try_from(*id) == Ok(at));
    if pairs.len() != trees || !is_numbered {
        return Err(stage.fault("it has not one weight for each tree; copy all files of the model, or save it again"));
    }
    Ok(pairs.into_iter().map(|(_, weight)| weight).collect())
}

/// The features that the nodes look at, sorted.
fn looked_at(nodes: &[Node], width: usize) -> Result<Vec<usize>> {
    let mut features = Vec::new();
    for node in nodes.iter().filter(|node| node.left >= 0) {
        let feature = usize::try_from(node.feature).ok().filter(|feature| *feature < width);
        features.push(feature.ok_or_else(|| {
            Error::invalid(format!(
                "tree {} splits on feature {} and the model has {width}; save the model again",
                node.tree, node.feature
            ))
        })?);
    }
    features.sort_unstable();
    features.dedup();
    Ok(features)
}

impl<'a> Nodes<'a> {
    /// The columns of one tree, or those of several.
    fn of(table: &'a Table) -> Result<Self> {
        let data = match table.rows().column_by_name("nodeData") {
            Some(_) => column(table.rows(), "nodeData")?,
            None => table.rows(),
        };
        let split: &StructArray = column(data, "split")?;
        let counts = column(data, "impurityStats")?;
        Ok(Self { data, split, counts, sides: column(split, "leftCategoriesOrThreshold")? })
    }

    /// The nodes by tree and number.
    fn sorted(&self, table: &Table) -> Result<Vec<Node>> {
        let integers = |name: &str, of: &'a StructArray| -> Result<&'a [i32]> {
            let integers: &Int32Array = column(of, name)?;
            Ok(integers.values())
        };
        let has_trees = table.rows().column_by_name("treeID").is_some();
        let trees: Vec<i32> = match has_trees {
            true => column::<Int32Array>(table.rows(), "treeID")?.values().to_vec(),
            false => vec![0; table.len()],
        };
        let (ids, left, right) =
            (integers("id", self.data)?, integers("leftChild", self.data)?, integers("rightChild", self.data)?);
        let (features, categories) = (integers("featureIndex", self.split)?, integers("numCategories", self.split)?);
        let predictions: &Float64Array = column(self.data, "prediction")?;
        let node = |(row, tree): (usize, i32)| Node {
            tree,
            id: ids[row],
            prediction: predictions.value(row),
            left: left[row],
            right: right[row],
            feature: features[row],
            categories: categories[row],
            row,
        };
        let mut nodes: Vec<Node> = trees.into_iter().enumerate().map(node).collect();
        nodes.sort_by_key(|node| (node.tree, node.id));
        Ok(nodes)
    }

    /// The nodes of a tree over the features that are looked at. With `classes` the leaves are counts of classes, as
    /// shares if `votes`.
    fn branches(
        &self,
        tree: &[Node],
        features: &[usize],
        classes: Option<usize>,
        votes: bool,
    ) -> Result<Vec<Branch<f64>>> {
        let branch = |node: &Node| {
            if node.left >= 0 {
                return self.split(node, features).map(Branch::Split);
            }
            let Some(classes) = classes else {
                return Ok(Branch::Leaf(node.prediction));
            };
            let mut counts = numbers(self.counts, node.row)?;
            if counts.len() != classes {
                return Err(Error::invalid(format!("node {} has counts of {} classes", node.id, counts.len())));
            }
            if votes {
                shares(&mut counts);
            }
            Ok(Branch::Leaves(counts.into()))
        };
        tree.iter().map(branch).collect()
    }

    /// NaN is not below a threshold, and in no set of categories.
    fn split(&self, node: &Node, features: &[usize]) -> Result<Split<f64>> {
        let fault = |what: &str| Error::invalid(format!("node {} {what}", node.id));
        let feature = usize::try_from(node.feature).ok().and_then(|feature| features.binary_search(&feature).ok());
        let feature = feature.ok_or_else(|| fault("splits on no feature"))? as u32;
        let child = |child: i32| u32::try_from(child).map_err(|_| fault("has one child"));
        let (left, right) = (child(node.left)?, child(node.right)?);
        let side = numbers(self.sides, node.row)?;
        if node.categories == -1 {
            let [threshold] = side[..] else {
                return Err(fault("has not one threshold"));
            };
            return Ok(Split { feature, test: Test::AtMost(threshold), missing: Missing::Right, left, right });
        }
        if !(0..=MAX_CATEGORIES).contains(&node.categories) {
            return Err(fault("has too many categories"));
        }
        let category = |value: &f64| match *value >= 0.0 && *value < f64::from(node.categories) && value.fract() == 0.0
        {
            true => Ok(*value as u32),
            false => Err(fault("has a category that is none")),
        };
        let side: Vec<u32> = side.iter().map(category).collect::<Result<_>>()?;
        // As `CategoricalSplit` has it: the smaller half is kept, and what is in neither goes to the other side.
        let inside_left = side.len() <= node.categories as usize / 2;
        let all = CategorySet::new(side, CategoryRule::Whole);
        let set = match inside_left {
            true => all,
            false => {
                let is_left = |category: &u32| {
                    let word = all.words.get(*category as usize / 64).copied().unwrap_or_default();
                    word >> (category % 64) & 1 == 1
                };
                let others = (0..node.categories as u32).filter(|category| !is_left(category));
                CategorySet::new(others, CategoryRule::Whole)
            }
        };
        let missing = if inside_left { Missing::Right } else { Missing::Left };
        Ok(Split { feature, test: Test::Among { set, inside_left }, missing, left, right })
    }
}

impl Trees {
    /// The sums of the leaves.
    fn sums(&self, vectors: &Rows<'_>, rows: usize, sums: &mut [f64]) {
        let mut numbers = Vec::new();
        let columns: Vec<&[f64]> = match vectors {
            Rows::Dense { .. } => self.features.iter().map(|feature| vectors.column(*feature)).collect(),
            Rows::Sparse(_) => {
                numbers.resize(self.features.len() * rows, 0.0);
                for row in 0..rows {
                    vectors.each(row, |at, value| {
                        if let Ok(column) = self.features.binary_search(&at) {
                            numbers[column * rows + row] = value;
                        }
                    });
                }
                numbers.chunks_exact(rows.max(1)).collect()
            }
        };
        sums.fill(0.0);
        self.forest.add(&columns, sums);
    }
}

impl Predictor for Trees {
    fn predict(&self, vectors: &Rows<'_>, _: &Block<'_>, predictions: &mut [f64], values: &mut [f64]) -> Result<()> {
        let rows = predictions.len();
        match &self.way {
            Way::Sum => self.sums(vectors, rows, predictions),
            Way::Mean(trees) => {
                self.sums(vectors, rows, predictions);
                predictions.iter_mut().for_each(|sum| *sum /= trees);
            }
            Way::Classes(classes, thresholds) => {
                self.sums(vectors, rows, values);
                for (prediction, values) in predictions.iter_mut().zip(values.chunks_exact_mut(*classes)) {
                    *prediction = thresholds.choose(values, &[]);
                    shares(values);
                    if thresholds.are_set() {
                        *prediction = thresholds.choose(&[], values);
                    }
                }
            }
            Way::Margin(thresholds) => {
                let mut margins = [0.0; BLOCK_ROWS];
                let margins = &mut margins[..rows];
                self.sums(vectors, rows, margins);
                for ((margin, prediction), values) in margins.iter().zip(predictions).zip(values.chunks_exact_mut(2)) {
                    // `LogLoss.computeProbability` of -margin.
                    values[0] = 1.0 / (1.0 + (2.0 * margin).exp());
                    values[1] = 1.0 - values[0];
                    *prediction = thresholds.choose(&[-margin, *margin], values);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Array as _;
    use arrow::array::{Float64Builder, ListBuilder};
    use arrow::datatypes::Field;

    use super::*;

    /// What a split by these categories of so many does: 1 for what goes left, 2 for what goes right.
    fn sides(side: &[f64], categories: i32, values: &[f64]) -> Result<Vec<f64>> {
        let mut lists = ListBuilder::new(Float64Builder::new());
        lists.values().append_slice(side);
        lists.append(true);
        let lists = lists.finish();
        let field = Field::new("side", lists.data_type().clone(), true);
        let split = StructArray::from(vec![(Arc::new(field), Arc::new(lists.clone()) as _)]);
        let nodes = Nodes { data: &split, split: &split, counts: &lists, sides: &lists };
        let node = Node { tree: 0, id: 0, prediction: 0.0, left: 1, right: 2, feature: 7, categories, row: 0 };
        let split = Branch::Split(nodes.split(&node, &[3, 7])?);
        let mut forest = Forest::new(2, 1);
        forest.push(&[split, Branch::Leaf(1.0), Branch::Leaf(2.0)], 0, 1.0)?;
        let mut sums = vec![0.0; values.len()];
        forest.add(&[values, values], &mut sums);
        Ok(sums)
    }

    #[test]
    fn what_is_no_known_category_goes_where_the_bigger_half_goes() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 0.5, f64::NAN];
        assert_eq!(sides(&[1.0, 2.0], 4, &values).unwrap(), [2.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(sides(&[0.0, 1.0, 2.0], 4, &values).unwrap(), [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]);
        assert_eq!(sides(&[1.5], -1, &values).unwrap(), [1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn splits_of_nonsense_are_refused() {
        let fault = |side: &[f64], categories| sides(side, categories, &[]).unwrap_err().to_string();
        assert_eq!(fault(&[4.0], 4), "node 0 has a category that is none");
        assert_eq!(fault(&[0.5], 4), "node 0 has a category that is none");
        assert_eq!(fault(&[], -1), "node 0 has not one threshold");
        assert_eq!(fault(&[1.0], i32::MAX), "node 0 has too many categories");
    }
}
