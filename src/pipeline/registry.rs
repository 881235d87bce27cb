//! `value.framing` and `schema.registry.*`: the registry whose schemas a topic's records name.

use url::Url;

use super::fault::Fault;
use super::loader::{Loader, TableStatement};
use super::spec::{RegistryAuth, RegistrySpec};
use super::units;

const URL: &str = "schema.registry.url";
const CACHE: &str = "schema.registry.cache";
const BASIC: &str = "schema.registry.basic.auth.user.info";
const BEARER: &str = "schema.registry.bearer.auth.token";
const CA: &str = "schema.registry.ssl.ca.location";

impl Loader<'_> {
    /// The registry of a topic; `None` when it has none, or when something is wrong with it, which is reported.
    pub(super) fn registry(&mut self, table: &mut TableStatement<'_>) -> Option<RegistrySpec> {
        let framings = [("none", false), ("confluent", true)];
        let framed = table.options.take("value.framing", &mut self.faults, |v| units::one_of(v, &framings));
        if framed != Some(true) {
            for key in [URL, CACHE, BASIC, BEARER, CA] {
                if let Some((_, place)) = table.options.text(key) {
                    let fault =
                        Fault::new(&self.source, &place, format!("`{key}` without 'value.framing' 'confluent'"));
                    self.faults.push(fault.remedy("write 'value.framing' 'confluent', or leave it out"));
                }
            }
            return None;
        }
        let urls = table.options.take(URL, &mut self.faults, urls);
        let [cache, ca] = [CACHE, CA].map(|key| table.options.text(key).and_then(|(value, _)| value));
        let basic = table.options.take(BASIC, &mut self.faults, user_info);
        let bearer = table.options.text(BEARER);
        if let (Some(_), Some((_, place))) = (&basic, &bearer) {
            let fault = Fault::new(&self.source, place, format!("the topic has both `{BASIC}` and `{BEARER}`"));
            self.faults.push(fault.remedy("keep one of them"));
        }
        if urls.is_none() && cache.is_none() {
            let fault = Fault::new(&self.source, &table.options_place, format!("the topic has no option `{URL}`"));
            self.faults.push(fault.remedy(format!("write '{URL}' 'https://HOST:PORT', or a directory as '{CACHE}'")));
            return None;
        }
        let bearer = bearer.and_then(|(token, _)| token).map(RegistryAuth::Bearer);
        Some(RegistrySpec {
            urls: urls.unwrap_or_default(),
            cache: cache.map(|dir| self.environment.resolve(&dir)),
            auth: basic.or(bearer),
            ca: ca.map(|file| self.environment.resolve(&file)),
        })
    }
}

/// `https://HOST:PORT[/PATH][,…]`.
fn urls(text: &str) -> Result<Vec<Url>, String> {
    text.split(',').map(units::http_url).collect()
}

/// `user:password`.
fn user_info(text: &str) -> Result<RegistryAuth, String> {
    let parts = text.split_once(':').filter(|(user, _)| !user.is_empty());
    let (user, password) = parts.ok_or("it is not `user:password`: write 'user:${env:NAME}'")?;
    Ok(RegistryAuth::Basic(user.to_string(), password.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls() {
        assert_eq!(urls("http://a:8081, https://b/x").unwrap().len(), 2);
        for wrong in ["", "a:8081", "ftp://a", "http://", "http://a:8081,"] {
            assert!(urls(wrong).is_err(), "{wrong}");
        }
        assert_eq!(user_info("u:p:q"), Ok(RegistryAuth::Basic("u".into(), "p:q".into())));
        assert!(user_info("u").is_err() && user_info(":p").is_err());
    }
}
