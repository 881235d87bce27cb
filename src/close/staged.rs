//! Files that no version names yet, as tables: alone, or in the place of the same date of their table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use deltalake::logstore::LogStore as _;
use object_store::path::Path;

use crate::engine::{Deps, StandIn};
use crate::error::{Error, Result};
use crate::lookup::Lookup;
use crate::pipeline::SinkSpec;
use crate::sink::Add;

/// A date of a final table that is staged.
#[derive(Debug)]
pub struct StagedDate<'a> {
    /// The table.
    pub sink: &'a SinkSpec,
    /// The version of it that is there; `None`: there is no table.
    pub version: Option<u64>,
    /// The staged files.
    pub adds: &'a [Add],
}

impl StagedDate<'_> {
    /// The staged rows alone.
    ///
    /// # Errors
    /// `Unavailable` when the files cannot be looked at.
    pub fn rows(&self, deps: &Deps) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(ViewTable::new(self.files(deps)?, None)))
    }

    /// The table as it will be: the staged rows, and those of other dates as they are.
    ///
    /// # Errors
    /// As [`StagedDate::rows`].
    pub async fn table(&self, deps: &Deps, state: &SessionState, date: &ScalarValue) -> Result<StandIn> {
        let mut plan = self.files(deps)?;
        if let (Some(version), Some(column)) = (self.version, self.sink.date_column()) {
            let spec = self.sink.as_lookup();
            let scan = Lookup::scanned(&spec, version, &deps.storage, &deps.memory, state).await?;
            let others = ident(column).not_eq(lit(date.clone())).or(ident(column).is_null());
            let schema = scan.schema();
            // A column that the contract adds is NULL in rows from before.
            let old = |name: &str| match schema.field_with_name(name) {
                Ok(_) => ident(name),
                Err(_) => lit(ScalarValue::Null),
            };
            let columns = self.sink.contract.columns.iter();
            let wanted = columns.map(|c| cast(old(&c.name), c.data_type.clone()).alias(&c.name));
            let rest = LogicalPlanBuilder::scan(self.sink.name.as_str(), provider_as_source(scan), None)?
                .filter(others)?
                .project(wanted.collect::<Vec<_>>())?
                .build()?;
            plan = LogicalPlanBuilder::from(plan).union(rest)?.build()?;
        }
        Ok(StandIn { provider: Arc::new(ViewTable::new(plan, None)), version: None })
    }

    /// Partition by partition the files, with the columns of the contract in their order.
    fn files(&self, deps: &Deps) -> Result<LogicalPlan> {
        let mut groups: BTreeMap<Vec<Option<String>>, Vec<&Add>> = BTreeMap::new();
        for add in self.adds {
            let value = |name: &String| add.partition_values.get(name).cloned().flatten();
            groups.entry(self.sink.partition_by.iter().map(value).collect()).or_default().push(add);
        }
        let mut all: Option<LogicalPlanBuilder> = None;
        for (values, adds) in groups {
            let part = LogicalPlanBuilder::from(self.partition(deps, &values, &adds)?);
            all = Some(match all {
                Some(all) => all.union(part.build()?)?,
                None => part,
            });
        }
        match all {
            Some(all) => Ok(all.build()?),
            None => {
                let empty = self.sink.contract.arrow_schema();
                let none = datafusion::datasource::MemTable::try_new(empty, vec![Vec::new()])?;
                let source = provider_as_source(Arc::new(none));
                Ok(LogicalPlanBuilder::scan(self.sink.name.as_str(), source, None)?.build()?)
            }
        }
    }

    fn partition(&self, deps: &Deps, values: &[Option<String>], adds: &[&Add]) -> Result<LogicalPlan> {
        let log = deps.storage.log_store(&self.sink.location)?;
        let mut root = log.root_url().clone();
        root.set_path("/");
        deps.memory.runtime().register_object_store(&root, log.root_object_store(None));
        let table = Path::from_url_path(log.root_url().path()).map_err(|e| unfit(self.sink, e))?;
        let urls = adds.iter().map(|add| {
            let file = Path::parse(&add.path).map_err(|e| unfit(self.sink, e))?;
            let mut url = root.clone();
            let whole = file.parts().fold(table.clone(), Path::join);
            url.path_segments_mut()
                .map_err(|()| unfit(self.sink, "its location is no base"))?
                .clear()
                .extend(whole.parts().map(|part| part.as_ref().to_owned()));
            ListingTableUrl::parse(url.as_str()).map_err(Error::from)
        });
        let in_files = |name: &str| !self.sink.partition_by.iter().any(|column| column == name);
        let fields = self.sink.contract.columns.iter().filter(|column| in_files(&column.name));
        let fields: Vec<Field> =
            fields.map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
        let config = ListingTableConfig::new_with_multi_paths(urls.collect::<Result<Vec<_>>>()?);
        let files = ListingTable::try_new(config.with_listing_options(options).with_schema(schema))?;
        let columns = self.sink.contract.columns.iter().map(|column| -> Result<Expr> {
            let Some(at) = self.sink.partition_by.iter().position(|name| *name == column.name) else {
                return Ok(ident(&column.name));
            };
            let value = match values.get(at).and_then(Option::as_deref) {
                Some(text) => ScalarValue::try_from_string(text.to_owned(), &column.data_type)?,
                None => ScalarValue::try_from(&column.data_type)?,
            };
            Ok(lit(value).alias(&column.name))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let scan = LogicalPlanBuilder::scan(self.sink.name.as_str(), provider_as_source(Arc::new(files)), None)?;
        Ok(scan.project(columns)?.build()?)
    }
}

/// The date as a value of its column.
pub fn date_value(date: &str) -> Result<ScalarValue> {
    Ok(ScalarValue::try_from_string(date.to_owned(), &arrow::datatypes::DataType::Date32)?)
}

fn unfit(sink: &SinkSpec, why: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("table `{}`: a staged file cannot be looked at: {why}; report this", sink.name))
}
