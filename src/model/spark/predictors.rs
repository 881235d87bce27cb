//! The models that predict, each by its class.

use super::covered::PREDICTORS;
use super::directory::Stage;
use super::plan::Plan;
use super::predictor::Loaded;
use super::{bayes, clusters, linear, trees};
use crate::error::Result;

/// Loads the model of a stage. The plan has the stages before it.
pub(super) fn load(plan: &mut Plan, stage: &Stage) -> Result<Loaded> {
    match stage.kind() {
        "LogisticRegressionModel" => linear::load_logistic(plan, stage),
        "LinearRegressionModel" => linear::load_regression(plan, stage),
        "LinearSVCModel" => linear::load_svc(plan, stage),
        "GeneralizedLinearRegressionModel" => linear::load_generalized(plan, stage),
        "DecisionTreeClassificationModel"
        | "DecisionTreeRegressionModel"
        | "RandomForestClassificationModel"
        | "RandomForestRegressionModel"
        | "GBTClassificationModel"
        | "GBTRegressionModel" => trees::load(plan, stage),
        "NaiveBayesModel" => bayes::load(plan, stage),
        "KMeansModel" => clusters::load(plan, stage),
        _ => Err(stage.fault(format_args!("class {} is not supported; train one of {PREDICTORS}", stage.class))),
    }
}
