//! A whole pipeline file: its declarations first, then its views, queries and checks over them.

use sha2::{Digest, Sha256};

use super::fault::Faults;
use super::loader::Loader;
use super::query::Rules;
use super::resolve::Resolver;
use super::statement;
use super::{Pipeline, View};

/// Reads the file that `loader` was made for.
pub(super) fn assemble(mut loader: Loader<'_>) -> Result<Pipeline, Faults> {
    let source = loader.source.clone();
    let statements = statement::parse(&source, &mut loader.faults);
    loader.settings(&statements);
    loader.business_day();
    loader.parameters(&statements);
    let written = loader.declarations(&statements);
    loader.replaced_tables();
    let views = loader.views(&statements);
    loader.register_models();
    let name = loader.pipeline_name();

    let mut faults = std::mem::take(&mut loader.faults);
    let mut resolver = Resolver::new(&loader, views);
    resolver.plan_views(&mut faults);
    let mut rules = Rules::new(&loader, &statements, &mut resolver, &mut faults);
    let queries = rules.queries(&written);
    let checks = rules.checks(&statements);
    rules.closing(&written, &queries);
    let views: Vec<View> = resolver.into_views();
    faults.redact(loader.secrets());
    faults.sort();
    if faults.is_fatal() {
        return Err(faults);
    }
    let digest = Sha256::digest(source.text().as_bytes());
    Ok(Pipeline {
        name,
        file: source.file().to_path_buf(),
        sha256: hex::encode(digest),
        settings: loader.draft.settings,
        session: loader.draft.session,
        sources: loader.sources,
        lookups: loader.lookups,
        models: loader.models,
        sinks: loader.sinks,
        queries,
        checks,
        warnings: faults.into_inner(),
        day: loader.day,
        views,
        params: loader.params,
    })
}
