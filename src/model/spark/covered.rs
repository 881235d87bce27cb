//! Which classes of Spark ML are covered, and what is said of others.

use super::directory::Stage;
use crate::error::Error;

/// The models that are covered, for messages.
pub(super) const PREDICTORS: &str = "LogisticRegression, LinearRegression, LinearSVC, GeneralizedLinearRegression, \
     DecisionTree, RandomForest, GBT, NaiveBayes, KMeans";

/// Where an estimator writes what it predicts: only models have this parameter.
const PREDICTION: &str = "predictionCol";

/// Whether a stage is a model that predicts.
pub(super) fn is_predictor(stage: &Stage) -> bool {
    stage.has(PREDICTION) && stage.has("featuresCol")
}

/// The error for a class that is not covered.
pub(super) fn unknown(stage: &Stage) -> Error {
    stage.fault(format_args!(
        "class {} is not supported; build the pipeline of VectorAssembler, StringIndexer, OneHotEncoder, \
         StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, Normalizer, Imputer, Bucketizer, Binarizer, \
         VectorIndexer, Tokenizer, RegexTokenizer, StopWordsRemover, NGram, HashingTF, CountVectorizer, IDF, \
         IndexToString and one of {}",
        stage.class, PREDICTORS
    ))
}
