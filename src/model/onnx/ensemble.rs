//! `TreeEnsembleRegressor`, `TreeEnsembleClassifier` and `TreeEnsemble`: what becomes of the sums of trees.
//!
//! The rules are those of ONNX Runtime's `tree_ensemble_aggregator.h`: sums begin at zero and go through the trees in
//! their order in the type of the thresholds, which is f64 for features of the type double. Base values come last.

use super::super::forest::{Forest, Real};
use super::labels::Labels;
use super::node::Node;
use super::operator::{Inputs, Operator, Work};
use super::tensor::{Data, Kind, Tensor};
use super::transform::{Transform, logistic, probit};
use super::trees::{Fold, LeafNames, Presence, Trees, numbers};
use super::{damaged, refused};
use crate::error::Result;

const TARGETS: LeafNames = LeafNames {
    trees: "target_treeids",
    nodes: "target_nodeids",
    ids: "target_ids",
    weights: "target_weights",
    weights_as_tensor: "target_weights_as_tensor",
};

const CLASSES: LeafNames = LeafNames {
    trees: "class_treeids",
    nodes: "class_nodeids",
    ids: "class_ids",
    weights: "class_weights",
    weights_as_tensor: "class_weights_as_tensor",
};

#[derive(Debug)]
struct Ensemble<T: Real> {
    features: usize,
    targets: usize,
    /// One of all trees, or one of each where their numbers are not added up.
    forests: Vec<Forest<T>>,
    fold: Fold,
    trees: usize,
    base: Vec<T>,
    presence: Vec<Presence>,
    /// Whether the forests count which targets get something.
    counts: bool,
    transform: Transform,
    /// Whether the result is of the type double.
    is_double: bool,
    classes: Option<Classes>,
}

#[derive(Debug)]
struct Classes {
    labels: Labels,
    /// Two classes of which the leaves speak of one.
    is_binary: bool,
    /// Whether no weight is below zero.
    is_positive: bool,
}

pub(super) fn build(node: &Node<'_>, inputs: &Inputs<'_, '_>) -> Result<Box<dyn Operator>> {
    let input = inputs.at(0)?;
    let (_, features) = input.rows_and_columns()?;
    match input.kind() {
        Kind::F64 => Ok(Box::new(Ensemble::<f64>::new(node, features)?)),
        Kind::F32 | Kind::I64 => Ok(Box::new(Ensemble::<f32>::new(node, features)?)),
        kind => Err(damaged(format!("it takes numbers and gets a tensor of {}", kind.word()))),
    }
}

fn targets(node: &Node<'_>) -> Result<usize> {
    let count = node.int("n_targets")?.unwrap_or(0);
    // Nothing is allocated for targets before leaves speak of them, but for one sum of each.
    let count = usize::try_from(count).ok().filter(|count| (1..=1 << 16).contains(count));
    count.ok_or_else(|| damaged("its number of targets is not possible"))
}

impl<T: Real> Ensemble<T> {
    fn new(node: &Node<'_>, features: usize) -> Result<Self> {
        let is_classifier = node.operator() == "TreeEnsembleClassifier";
        let by_number = node.operator() == "TreeEnsemble";
        let (fold, transform) =
            if by_number { by_numbers(node)? } else { (by_word(node, is_classifier)?, Transform::of(node)?) };
        let mut classes = None;
        let trees = if is_classifier {
            let labels = Labels::of(node, "classlabels_strings", "classlabels_int64s")?;
            let trees = Trees::of_lists(node, labels.len(), &CLASSES)?;
            classes = Some(Classes::new(labels, &trees)?);
            trees
        } else if by_number {
            Trees::of_tensors(node, targets(node)?)?
        } else {
            Trees::of_lists(node, targets(node)?, &TARGETS)?
        };
        if trees.count() == 0 {
            return Err(damaged("it has no trees"));
        }
        let base = if by_number { Vec::new() } else { numbers(node, "base_values", "base_values_as_tensor")? };
        let is_known =
            base.is_empty() || base.len() == trees.targets || (is_classifier && trees.targets == 2 && base.len() == 1);
        if !is_known {
            return Err(damaged(format!("it has {} base values for {} sums", base.len(), trees.targets)));
        }
        let copies = trees.copies()?;
        if !trees.is_dense(&copies) {
            return Err(refused("so many classes or targets for so few leaves are not covered"));
        }
        let presence = trees.presence(&copies);
        let is_sum = matches!(fold, Fold::Sum | Fold::Average);
        // What a target has counts where a class that got nothing is none, and where nothing is not zero.
        let asks = is_classifier || !is_sum || !base.is_empty();
        let counts = asks && if is_sum { presence.contains(&Presence::Sometimes) } else { trees.targets > 1 };
        let sums = if counts { trees.targets * 2 } else { trees.targets };
        let mut forests: Vec<Forest<T>> = Vec::new();
        for (tree, copies) in copies.iter().enumerate() {
            if forests.is_empty() || !is_sum {
                forests.push(Forest::new(features, sums));
            }
            if let Some(forest) = forests.last_mut() {
                let pushed = trees.push(forest, copies, counts, fold);
                pushed.map_err(|error| damaged(format!("tree {tree}: {}", error.message())))?;
            }
        }
        Ok(Self {
            features,
            targets: trees.targets,
            forests,
            fold,
            trees: trees.count(),
            base: base.into_iter().map(T::of).collect(),
            presence,
            counts,
            transform,
            is_double: by_number && std::mem::size_of::<T>() == 8,
            classes,
        })
    }

    /// Whether a target got something in a row, whose counts are the second half.
    fn has(&self, row: &[T], target: usize) -> bool {
        match row.get(self.targets + target) {
            Some(count) if self.counts => count.widened() > 0.0,
            _ => self.presence[target] != Presence::Never,
        }
    }

    /// The sums of rows, and after those of a row the counts.
    fn sums(&self, columns: &[&[f64]], rows: usize) -> Vec<T> {
        let width = if self.counts { self.targets * 2 } else { self.targets };
        let mut sums = vec![T::default(); rows * width];
        if matches!(self.fold, Fold::Sum | Fold::Average) {
            self.forests.iter().for_each(|forest| forest.add(columns, &mut sums));
            return sums;
        }
        let mut tree = vec![T::default(); sums.len()];
        for (number, forest) in self.forests.iter().enumerate() {
            tree.fill(T::default());
            forest.add(columns, &mut tree);
            for (row, tree) in sums.chunks_exact_mut(width).zip(tree.chunks_exact(width)) {
                for target in 0..self.targets {
                    if self.counts && tree[self.targets + target].widened() == 0.0 {
                        continue;
                    }
                    let is_first = if self.counts { row[self.targets + target].widened() == 0.0 } else { number == 0 };
                    let (new, old) = (tree[target], row[target]);
                    if is_first || (if self.fold == Fold::Min { new < old } else { new > old }) {
                        row[target] = new;
                    }
                    if self.counts {
                        row[self.targets + target] += tree[self.targets + target];
                    }
                }
            }
        }
        sums
    }

    /// The results of rows of sums.
    fn numbers(&self, sums: &[T]) -> Vec<f64> {
        let width = if self.counts { self.targets * 2 } else { self.targets };
        let trees = self.trees as f64;
        let mut made = Vec::with_capacity(sums.len() / width * self.targets);
        let mut row = Vec::with_capacity(self.targets);
        for all in sums.chunks_exact(width) {
            row.clear();
            for (target, sum) in all[..self.targets].iter().enumerate() {
                let sum = if self.fold == Fold::Average { T::of(sum.widened() / trees) } else { *sum };
                // One that got nothing stays zero, unless it is alone.
                let base = self.base.get(target).filter(|_| self.targets == 1 || self.has(all, target));
                row.push(base.map_or(sum, |base| plus(sum, *base)));
            }
            match (self.transform, self.targets) {
                (Transform::Probit, 1) => made.push(f64::from(probit(row[0].widened() as f32))),
                // One sum goes through no other transform (`FinalizeScores1`).
                (Transform::None, _) | (_, 1) => made.extend(row.iter().map(|value| value.widened())),
                (transform, _) => {
                    let mut values: Vec<f32> = row.iter().map(|value| value.widened() as f32).collect();
                    transform.apply(&mut values);
                    made.extend(values.into_iter().map(f64::from));
                }
            }
        }
        made
    }

    /// The class of each row and the probabilities.
    fn classify(&self, classes: &Classes, sums: &[T]) -> Result<(Vec<usize>, Vec<f32>)> {
        let width = if self.counts { self.targets * 2 } else { self.targets };
        let rows = sums.len() / width;
        let (mut found, mut made) = (Vec::with_capacity(rows), Vec::with_capacity(rows * self.targets));
        for row in sums.chunks_exact(width) {
            let first = made.len();
            if self.targets == 2 {
                let (class, pair) = self.pair(classes, row);
                found.push(class);
                made.extend(pair);
                continue;
            }
            // The biggest one of those that got something.
            let mut best: Option<(usize, T)> = None;
            for (class, sum) in row[..self.targets].iter().enumerate() {
                let sum = self.base.get(class).map_or(*sum, |base| plus(*sum, *base));
                made.push(sum.widened() as f32);
                let counts = !self.base.is_empty() || self.has(row, class);
                if counts && best.is_none_or(|(_, best)| sum > best) {
                    best = Some((class, sum));
                }
            }
            found.push(best.map_or(0, |(class, _)| class));
            self.transform.apply(&mut made[first..]);
        }
        Ok((found, made))
    }

    /// The class and the probabilities where there are two classes (`FinalizeScores`, `_set_score_binary`,
    /// `write_scores`, as ONNX Runtime 1.32 has them). A class that got nothing is zero, whatever its base value.
    fn pair(&self, classes: &Classes, row: &[T]) -> (usize, [f32; 2]) {
        let (mut sums, has) = ([row[0], row[1]], [self.has(row, 0), self.has(row, 1)]);
        match self.base[..] {
            [_, second] if has[1] => {
                sums[1] = plus(second, sums[0]);
                sums[0] = minus(T::default(), sums[1]);
            }
            [first, _] | [first] => sums[0] = plus(sums[0], first),
            _ => {}
        }
        let winner = if has[1] { sums[1] } else { sums[0] };
        let is_share = classes.is_binary && classes.is_positive;
        let class = usize::from(winner.widened() > if is_share { 0.5 } else { 0.0 });
        let value = |class: usize| if has[class] { sums[class].widened() as f32 } else { 0.0 };
        let mut both = [value(0), value(1)];
        if has[1] || self.base.len() == 2 {
            self.transform.apply(&mut both);
            return (class, both);
        }
        let sum = both[0];
        let both = match self.transform {
            Transform::Probit => [probit(sum), 0.0],
            // The second one is not written there.
            _ if !classes.is_binary && self.base.len() == 1 => [sum, 0.0],
            Transform::Logistic => [logistic(-sum), logistic(sum)],
            _ if is_share => [minus(T::of(1.0), sums[0]).widened() as f32, sum],
            _ => [-sum, sum],
        };
        (class, both)
    }
}

/// A sum in the type itself.
fn plus<T: Real>(left: T, right: T) -> T {
    T::of(left.widened() + right.widened())
}

fn minus<T: Real>(left: T, right: T) -> T {
    T::of(left.widened() - right.widened())
}

fn by_word(node: &Node<'_>, is_classifier: bool) -> Result<Fold> {
    match node.string("aggregate_function")?.as_deref() {
        None | Some("SUM") => Ok(Fold::Sum),
        // A classifier adds up whatever it is told.
        Some(_) if is_classifier => Ok(Fold::Sum),
        Some("AVERAGE") => Ok(Fold::Average),
        Some("MIN") => Ok(Fold::Min),
        Some("MAX") => Ok(Fold::Max),
        Some(other) => Err(refused(format!("aggregate_function {other} is not covered"))),
    }
}

fn by_numbers(node: &Node<'_>) -> Result<(Fold, Transform)> {
    let fold = match node.int("aggregate_function")?.unwrap_or(1) {
        0 => Fold::Average,
        1 => Fold::Sum,
        2 => Fold::Min,
        3 => Fold::Max,
        other => return Err(refused(format!("aggregate_function {other} is not covered"))),
    };
    let transform = match node.int("post_transform")?.unwrap_or(0) {
        0 => Transform::None,
        1 => Transform::Softmax,
        2 => Transform::Logistic,
        3 => Transform::SoftmaxZero,
        4 => Transform::Probit,
        other => return Err(refused(format!("post_transform {other} is not covered"))),
    };
    Ok((fold, transform))
}

impl Classes {
    fn new(labels: Labels, trees: &Trees) -> Result<Self> {
        if labels.len() < 2 {
            return Err(refused("a classifier of one class is not covered"));
        }
        let first = trees.weights().first().map(|(class, _)| *class);
        let is_one = trees.weights().iter().all(|(class, _)| Some(*class) == first);
        let is_positive = trees.weights().iter().all(|(_, weight)| *weight >= 0.0);
        Ok(Self { is_binary: labels.len() == 2 && is_one, is_positive, labels })
    }
}

/// The columns of a tensor of rows.
fn columns(tensor: &Tensor<'_>, rows: usize, width: usize) -> Result<Vec<Vec<f64>>> {
    let column = |column: usize| -> Result<Vec<f64>> {
        let at = (0..rows).map(|row| row * width + column);
        match &tensor.data {
            Data::F32(values) => Ok(at.map(|at| f64::from(values[at])).collect()),
            Data::F64(values) => Ok(at.map(|at| values[at]).collect()),
            Data::I64(values) => Ok(at.map(|at| values[at] as f64).collect()),
            _ => Err(damaged("it takes numbers and gets something else")),
        }
    };
    (0..width).map(column).collect()
}

impl<T: Real> Operator for Ensemble<T> {
    fn run<'a>(&'a self, inputs: &Inputs<'_, 'a>, work: &mut Work) -> Result<Vec<Tensor<'a>>> {
        let input = inputs.at(0)?;
        let (rows, width) = input.rows_and_columns()?;
        if width != self.features {
            return Err(damaged(format!("it takes {} features and gets {width}", self.features)));
        }
        work.take((rows * self.targets) as u64)?;
        let sums = match &input.data {
            Data::Columns(columns, _) => self.sums(columns, rows),
            _ => {
                let columns = columns(input, rows, width)?;
                self.sums(&columns.iter().map(Vec::as_slice).collect::<Vec<_>>(), rows)
            }
        };
        if let Some(classes) = &self.classes {
            let (found, probabilities) = self.classify(classes, &sums)?;
            let scores = Tensor::floats(vec![rows, self.targets], probabilities);
            return Ok(vec![classes.labels.tensor(&found), scores]);
        }
        let numbers = self.numbers(&sums);
        let data = match self.is_double {
            true => Data::F64(numbers),
            false => Data::F32(numbers.into_iter().map(|value| value as f32).collect()),
        };
        Ok(vec![Tensor::new(vec![rows, self.targets], data)])
    }

    fn trees(&self) -> usize {
        self.trees
    }

    fn labels(&self) -> Option<Vec<String>> {
        self.classes.as_ref().map(|classes| classes.labels.names())
    }

    fn takes_columns(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{AttributeProto, NodeProto};
    use super::*;

    fn ints(name: &str, ints: &[i64]) -> AttributeProto {
        AttributeProto { name: name.to_owned(), ints: ints.to_vec(), kind: 7, ..Default::default() }
    }

    fn floats(name: &str, floats: &[f32]) -> AttributeProto {
        AttributeProto { name: name.to_owned(), floats: floats.to_vec(), kind: 6, ..Default::default() }
    }

    fn strings(name: &str, strings: &[&str]) -> AttributeProto {
        let strings = strings.iter().map(|text| text.as_bytes().to_vec()).collect();
        AttributeProto { name: name.to_owned(), strings, kind: 8, ..Default::default() }
    }

    /// A tree of one question over one feature, with weights of the leaves: node, target, weight.
    fn stump(operator: &str, leaves: &[(i64, i64, f32)], more: Vec<AttributeProto>) -> NodeProto {
        let prefix = if operator.ends_with("Classifier") { "class" } else { "target" };
        let of = |name: &str| format!("{prefix}_{name}");
        let mut attribute = vec![
            ints("nodes_treeids", &[0; 3]),
            ints("nodes_nodeids", &[0, 1, 2]),
            ints("nodes_featureids", &[0; 3]),
            ints("nodes_truenodeids", &[1, 0, 0]),
            ints("nodes_falsenodeids", &[2, 0, 0]),
            floats("nodes_values", &[0.5, 0.0, 0.0]),
            strings("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF"]),
            ints(&of("treeids"), &vec![0; leaves.len()]),
            ints(&of("nodeids"), &leaves.iter().map(|leaf| leaf.0).collect::<Vec<_>>()),
            ints(&of("ids"), &leaves.iter().map(|leaf| leaf.1).collect::<Vec<_>>()),
            floats(&of("weights"), &leaves.iter().map(|leaf| leaf.2).collect::<Vec<_>>()),
        ];
        attribute.retain(|old| more.iter().all(|new| new.name != old.name));
        attribute.extend(more);
        NodeProto { op_type: operator.to_owned(), domain: "ai.onnx.ml".to_owned(), attribute, ..Default::default() }
    }

    /// What comes out for the values 0 and 1.
    fn run(proto: &NodeProto) -> Result<Vec<Tensor<'static>>> {
        let input = Tensor::floats(vec![2, 1], vec![0.0, 1.0]);
        let tensors = [Some(&input)];
        let inputs = Inputs { tensors: &tensors };
        let operator = super::super::catalogue::build(&Node::new(proto, 18), &proto.domain, &inputs)?;
        let made = operator.run(&inputs, &mut Work::new(1000, false))?;
        Ok(made.into_iter().map(Tensor::into_owned).collect())
    }

    fn classes(leaves: &[(i64, i64, f32)], base: &[f32]) -> (Data<'static>, Data<'static>) {
        let more = vec![ints("classlabels_int64s", &[5, 7]), floats("base_values", base)];
        let mut made = run(&stump("TreeEnsembleClassifier", leaves, more)).unwrap();
        let scores = made.pop().unwrap().data;
        (made.pop().unwrap().data, scores)
    }

    #[test]
    fn two_classes_of_which_the_leaves_speak_of_one() {
        // Shares win above a half, and mixed weights above zero.
        let got = classes(&[(1, 0, 0.25), (2, 0, 0.75)], &[]);
        assert_eq!(got, (Data::I64(vec![5, 7]), Data::F32(vec![0.75, 0.25, 0.25, 0.75])));
        let got = classes(&[(1, 0, -0.25), (2, 0, 0.25)], &[]);
        assert_eq!(got, (Data::I64(vec![5, 7]), Data::F32(vec![0.25, -0.25, -0.25, 0.25])));
        let got = classes(&[(1, 0, 0.25), (2, 0, 0.75)], &[0.5]);
        assert_eq!(got, (Data::I64(vec![7, 7]), Data::F32(vec![0.25, 0.75, -0.25, 1.25])));
        // Two base values: the second class got nothing and is zero.
        let got = classes(&[(1, 0, 0.25), (2, 0, 0.75)], &[0.5, 0.25]);
        assert_eq!(got, (Data::I64(vec![7, 7]), Data::F32(vec![0.75, 0.0, 1.25, 0.0])));
        let got = classes(&[(1, 1, 0.25), (2, 1, 0.75)], &[]);
        assert_eq!(got, (Data::I64(vec![5, 7]), Data::F32(vec![0.0, 0.25, 0.0, 0.75])));
    }

    #[test]
    fn a_class_that_got_nothing_does_not_win() {
        let labels = || strings("classlabels_strings", &["a", "b", "c"]);
        let node = stump("TreeEnsembleClassifier", &[(1, 1, -1.0), (2, 2, -2.0), (2, 0, -3.0)], vec![labels()]);
        let made = run(&node).unwrap();
        assert_eq!(made[0].data, Data::Text(vec!["b".into(), "c".into()]));
        assert_eq!(made[1].data, Data::F32(vec![0.0, -1.0, 0.0, -3.0, 0.0, -2.0]));
        let base = floats("base_values", &[0.5, 0.0, 0.0]);
        let node = stump("TreeEnsembleClassifier", &[(1, 1, -1.0), (2, 2, -2.0), (2, 0, -3.0)], vec![labels(), base]);
        assert_eq!(run(&node).unwrap()[0].data, Data::Text(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn numbers_are_folded() {
        let of = |fold: &str| {
            let fold =
                AttributeProto { name: "aggregate_function".into(), s: fold.into(), kind: 3, ..Default::default() };
            let targets = AttributeProto { name: "n_targets".into(), i: 2, kind: 2, ..Default::default() };
            let base = floats("base_values", &[10.0, 20.0]);
            let node =
                stump("TreeEnsembleRegressor", &[(1, 0, -1.0), (2, 0, 2.0), (2, 1, 3.0)], vec![fold, targets, base]);
            run(&node).map(|mut made| made.remove(0).data).map_err(|error| error.to_string())
        };
        for fold in ["SUM", "AVERAGE", "MIN", "MAX"] {
            assert_eq!(of(fold).unwrap(), Data::F32(vec![9.0, 0.0, 12.0, 23.0]), "{fold}");
        }
        let fault = format!("aggregate_function MODE is not covered{}", super::super::ELSEWHERE);
        assert_eq!(of("MODE").unwrap_err(), fault);
    }

    #[test]
    fn what_is_no_ensemble_is_refused() {
        let fault = |more: Vec<AttributeProto>| {
            let mut all = vec![AttributeProto { name: "n_targets".into(), i: 1, kind: 2, ..Default::default() }];
            all.extend(more);
            let leaves = [(1, 0, 1.0), (2, 0, 2.0)];
            run(&stump("TreeEnsembleRegressor", &leaves, all))
                .unwrap_err()
                .to_string()
                .replace("; export the model again", "")
        };
        assert_eq!(fault(vec![ints("nodes_truenodeids", &[0, 0, 0])]), "its trees go round in circles");
        assert_eq!(fault(vec![ints("nodes_truenodeids", &[9, 0, 0])]), "tree 0 has no node 9");
        assert_eq!(fault(vec![ints("nodes_nodeids", &[0, 1, 1])]), "tree 0 has node 1 twice");
        assert_eq!(fault(vec![ints("nodes_featureids", &[0, 0])]), "the attributes of its nodes are not of one length");
        assert_eq!(fault(vec![ints("nodes_featureids", &[-1, 0, 0])]), "tree 0: it splits on feature -1");
        assert_eq!(
            fault(vec![ints("nodes_featureids", &[1, 0, 0])]),
            "tree 0: node 0: it splits on feature 1, the model has 1"
        );
        assert_eq!(fault(vec![ints("target_ids", &[0, 1])]), "a leaf is of target 1 of 1");
        assert_eq!(fault(vec![ints("target_nodeids", &[1, 1])]), "a leaf has no weight");
        assert_eq!(fault(vec![floats("base_values", &[1.0, 2.0])]), "it has 2 base values for 1 sums");
        assert!(fault(vec![strings("nodes_modes", &["BRANCH_XOR", "LEAF", "LEAF"])]).contains("BRANCH_XOR"));
    }

    #[test]
    fn questions_of_infinite_thresholds_have_answers() {
        let of = |mode: &str, threshold: f32| {
            let targets = AttributeProto { name: "n_targets".into(), i: 1, kind: 2, ..Default::default() };
            let more = vec![
                targets,
                strings("nodes_modes", &[mode, "LEAF", "LEAF"]),
                floats("nodes_values", &[threshold, 0., 0.]),
            ];
            let node = stump("TreeEnsembleRegressor", &[(1, 0, 1.0), (2, 0, 2.0)], more);
            let Data::F32(values) = run(&node).unwrap().remove(0).data else { panic!("no floats") };
            values
        };
        let (most, least) = (f32::INFINITY, f32::NEG_INFINITY);
        assert_eq!(of("BRANCH_LEQ", most), [1.0, 1.0]);
        assert_eq!(of("BRANCH_LT", least), [2.0, 2.0]);
        assert_eq!(of("BRANCH_GT", most), [2.0, 2.0]);
        assert_eq!(of("BRANCH_GTE", least), [1.0, 1.0]);
        assert_eq!(of("BRANCH_GTE", 0.5), [2.0, 1.0]);
        assert_eq!(of("BRANCH_NEQ", 0.0), [2.0, 1.0]);
    }
}
