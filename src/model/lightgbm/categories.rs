//! Columns that were pandas categories in training: LightGBM got the index of each category, and so do the trees here.

use std::collections::HashMap;

use serde_json::Value;

use super::damaged;
use crate::error::{Error, Result};
use crate::model::codes::{Codes, bits};

/// What to do about categories that cannot be told apart.
const BY_HAND: &str = "train it on numbers that you make of the categories yourself, and save it again";

/// The codes of categories in their order.
fn coded(categories: &[Value]) -> Result<Codes> {
    let coded = || categories.iter().zip(0_u32..).map(|(category, code)| (category, f64::from(code)));
    let texts: HashMap<Vec<u8>, f64> =
        coded().filter_map(|(category, code)| Some((category.as_str()?.as_bytes().to_vec(), code))).collect();
    let numbers: HashMap<u64, f64> = coded()
        .filter_map(|(category, code)| match category {
            Value::Bool(is_true) => Some((bits(f64::from(*is_true)), code)),
            category => Some((bits(category.as_f64()?), code)),
        })
        .collect();
    match (texts.len(), numbers.len()) {
        (0, count) if count == categories.len() => Ok(Codes::Numbers(numbers)),
        (count, 0) if count == categories.len() => Ok(Codes::Texts { codes: texts, may_be_cut: false }),
        _ => Err(Error::invalid(format!(
            "it has categories that are neither all texts nor all numbers, or one of them twice; {BY_HAND}"
        ))),
    }
}

/// The features that were pandas categories, in their order, with their codes. `infos` is the header's `feature_infos`,
/// `trained` the parameter `categorical_feature`.
pub(super) fn parse(json: &str, infos: &[&str], trained: Option<&str>) -> Result<Vec<(usize, Codes)>> {
    let lists: Option<Vec<Vec<Value>>> = serde_json::from_str(json)
        .map_err(|_| damaged("pandas_categorical is no JSON list of the categories of each column"))?;
    let lists = lists.unwrap_or_default();
    if lists.is_empty() {
        return Ok(Vec::new());
    }
    let features = features(lists.len(), infos, trained)?;
    let mut all = Vec::with_capacity(lists.len());
    for (feature, list) in features.into_iter().zip(&lists) {
        let codes = coded(list).map_err(|error| error.within(format_args!("feature {feature}")))?;
        if infos.get(feature).and_then(|info| highest(info)).is_some_and(|code| code >= list.len()) {
            return Err(unclear(format_args!("feature {feature} has more categories than its list")));
        }
        all.push((feature, codes));
    }
    Ok(all)
}

/// Which features `count` lists of categories are for: those that were trained as categories. The file does not say it
/// where categories with an order, which are trained as numbers, or other columns than those of pandas come in.
fn features(count: usize, infos: &[&str], trained: Option<&str>) -> Result<Vec<usize>> {
    let by_info: Vec<usize> =
        (0..infos.len()).filter(|feature| !infos[*feature].starts_with('[') && infos[*feature] != "none").collect();
    // A feature with a single category has no info, so that the parameter knows more.
    let by_parameter = trained.map(|words| words.split(',').map(|word| word.trim().parse().ok()).collect());
    let mut trained_count = by_info.len();
    if let Some(Some(features)) = by_parameter {
        let mut features: Vec<usize> = features;
        features.sort_unstable();
        features.dedup();
        let holds_infos = by_info.iter().all(|feature| features.binary_search(feature).is_ok());
        trained_count = features.len();
        if trained_count == count && holds_infos && features.iter().all(|feature| *feature < infos.len()) {
            return Ok(features);
        }
    } else if by_info.len() == count {
        return Ok(by_info);
    }
    Err(unclear(format_args!(
        "it has the categories of {count} pandas columns, and {trained_count} features were trained as categories"
    )))
}

fn unclear(fault: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{fault}, so that it is not clear which are which; {BY_HAND}"))
}

/// The highest category in a feature's info, `3:0:1`.
fn highest(info: &str) -> Option<usize> {
    if info.starts_with('[') { None } else { info.split(':').filter_map(|code| code.parse().ok()).max() }
}
