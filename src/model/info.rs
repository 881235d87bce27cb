//! `model_info('function')`: what is known of the models of a pipeline.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListBuilder, StringArray, StringBuilder, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::{About, Output};
use crate::pipeline::{MODEL_INFO, model_info_fields};

/// `model_info(VARCHAR) -> STRUCT<name, kind, objective, trees, features, output, sha256>` of the function of that
/// name. NULL of NULL.
#[derive(Debug)]
pub struct ModelInfoUdf {
    signature: Signature,
    models: BTreeMap<String, About>,
}

impl ModelInfoUdf {
    /// Over the models by the names of their functions.
    pub fn new(models: BTreeMap<String, About>) -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable), models }
    }

    fn identity(&self) -> Vec<(&str, &str)> {
        self.models.iter().map(|(name, about)| (name.as_str(), about.sha256.as_str())).collect()
    }
}

impl PartialEq for ModelInfoUdf {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ModelInfoUdf {}

impl Hash for ModelInfoUdf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl ScalarUDFImpl for ModelInfoUdf {
    fn name(&self) -> &str {
        MODEL_INFO
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Struct(model_info_fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let names = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        let mut found: Vec<Option<&About>> = Vec::with_capacity(names.len());
        for name in names {
            match name.map(|name| (name, self.models.get(name))) {
                None => found.push(None),
                Some((_, Some(about))) => found.push(Some(about)),
                Some((name, None)) => {
                    let known: Vec<_> = self.models.keys().map(String::as_str).collect();
                    return exec_err!("model_info: there is no model `{name}`; there is {}", known.join(", "));
                }
            }
        }
        let text = |of: fn(&About) -> &str| -> ArrayRef {
            Arc::new(found.iter().map(|about| about.map(of)).collect::<StringArray>())
        };
        let mut features = ListBuilder::new(StringBuilder::new());
        for about in &found {
            let all = about.iter().flat_map(|about| &about.features);
            all.for_each(|feature| features.values().append_value(&feature.name));
            features.append(about.is_some());
        }
        let output = |about: &&About| match &about.output {
            Output::Number => "a number".to_owned(),
            Output::Numbers(count) => format!("{count} numbers"),
            Output::Classes { labels, .. } => format!("classes {}", labels.join(", ")),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(names.clone()),
            text(|about| &about.kind),
            text(|about| &about.objective),
            Arc::new(found.iter().map(|about| about.map(|about| about.trees as i64)).collect::<Int64Array>()),
            Arc::new(features.finish()),
            Arc::new(found.iter().map(|about| about.as_ref().map(output)).collect::<StringArray>()),
            text(|about| &about.sha256),
        ];
        let valid: NullBuffer = found.iter().map(Option::is_some).collect::<Vec<_>>().into();
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(model_info_fields(), columns, Some(valid))?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Feature;
    use super::*;
    use datafusion::logical_expr::ScalarUDF;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn a_model_is_told_by_the_name_of_its_function() {
        let about = About {
            sha256: "00ff".into(),
            kind: "XGBoost 3.0.0 gbtree".into(),
            objective: "binary:logistic".into(),
            trees: 7,
            features: vec![Feature::number("age"), Feature::text("city")],
            output: Output::Classes { labels: vec!["no".into(), "yes".into()], has_probabilities: true },
        };
        let context = SessionContext::new();
        context.register_udf(ScalarUDF::from(ModelInfoUdf::new(BTreeMap::from([("score".into(), about)]))));
        let rows = context.sql("SELECT model_info('score') AS m, model_info(NULL) AS n").await.unwrap();
        let rows = rows.collect().await.unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        let told = "{name: score, kind: XGBoost 3.0.0 gbtree, objective: binary:logistic, trees: 7, features: [age, \
                    city], output: classes no, yes, sha256: 00ff}";
        assert!(text.contains(told), "{text}");
        let fault = context.sql("SELECT model_info('other')").await.unwrap().collect().await.unwrap_err();
        assert!(fault.to_string().contains("there is no model `other`; there is score"), "{fault}");
    }
}
