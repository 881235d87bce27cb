//! Amazon S3 and what speaks like it. Credentials come from where the AWS tools have them: the environment
//! (`AWS_ACCESS_KEY_ID`, …), a web identity, a container's or a machine's role, or a profile of `~/.aws/credentials`.
//! A version of a table is put only where none is (`If-None-Match`): that is what exactly-once stands on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use deltalake::logstore::{ObjectStoreFactory, ObjectStoreRef, StorageConfig};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use url::Url;

use super::cloud;

/// Where S3 is asked when nobody says.
const REGION: &str = "us-east-1";

/// Lets tables lie in S3.
pub(super) fn register() {
    cloud::register(&["s3", "s3a"], Arc::new(S3));
}

struct S3;

impl ObjectStoreFactory for S3 {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let builder = AmazonS3Builder::from_env().with_url(url.as_str().replacen("s3a://", "s3://", 1));
        let mut builder =
            cloud::known(&config.raw).fold(builder, |builder, (key, value)| builder.with_config(key, value));
        if !has_credentials(&builder) {
            for (key, value) in Profile::read().settings() {
                builder = builder.with_config(key, value);
            }
        }
        if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
            builder = builder.with_region(REGION);
        }
        let builder = builder.with_conditional_put(S3ConditionalPut::ETagMatch);
        cloud::placed(builder.build().map_err(DeltaTableError::from)?, url)
    }
}

/// Whether it is known already how S3 lets us in, or that nobody has to be known.
fn has_credentials(builder: &AmazonS3Builder) -> bool {
    use AmazonS3ConfigKey::{
        AccessKeyId, ContainerCredentialsFullUri, ContainerCredentialsRelativeUri, SkipSignature, WebIdentityTokenFile,
    };
    [AccessKeyId, ContainerCredentialsFullUri, ContainerCredentialsRelativeUri, SkipSignature, WebIdentityTokenFile]
        .iter()
        .any(|key| builder.get_config_value(key).is_some_and(|value| value != "false"))
}

/// A profile of the AWS tools (<https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>).
#[derive(Debug, Default)]
struct Profile(BTreeMap<String, String>);

impl Profile {
    /// The profile that the environment names; empty when there is none.
    fn read() -> Self {
        let name = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".into());
        let file = |variable: &str, own: &str| {
            let below = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws").join(own));
            let path = std::env::var_os(variable).map(PathBuf::from).or_else(below)?;
            std::fs::read_to_string(path).ok()
        };
        let mut profile = Self::default();
        profile.take(&file("AWS_CONFIG_FILE", "config").unwrap_or_default(), &name);
        profile.take(&file("AWS_SHARED_CREDENTIALS_FILE", "credentials").unwrap_or_default(), &name);
        profile
    }

    /// Adds what a file says of the profile.
    fn take(&mut self, text: &str, name: &str) {
        let mut is_it = false;
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                is_it = section.trim().trim_start_matches("profile ").trim() == name;
            } else if let (true, Some((key, value))) = (is_it && !line.starts_with('#'), line.split_once('=')) {
                self.0.insert(key.trim().to_lowercase(), value.trim().to_string());
            }
        }
    }

    /// What it says of S3.
    fn settings(&self) -> Vec<(AmazonS3ConfigKey, String)> {
        let keys = [
            ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
            ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
            ("aws_session_token", AmazonS3ConfigKey::Token),
            ("region", AmazonS3ConfigKey::Region),
            ("endpoint_url", AmazonS3ConfigKey::Endpoint),
        ];
        keys.into_iter().filter_map(|(name, key)| Some((key, self.0.get(name)?.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_in_both_files() {
        let mut profile = Profile::default();
        profile.take(
            "[default]\nregion = eu-west-1\n[profile books]\nregion=eu-central-2\n# aws_session_token = x\n",
            "books",
        );
        profile.take(
            "[other]\naws_access_key_id = no\n[books]\n aws_access_key_id = id\naws_secret_access_key=a=b\n",
            "books",
        );
        let settings = profile.settings();
        let value = |key| settings.iter().find(|(other, _)| *other == key).map(|(_, value)| value.as_str());
        assert_eq!(value(AmazonS3ConfigKey::AccessKeyId), Some("id"));
        assert_eq!(value(AmazonS3ConfigKey::SecretAccessKey), Some("a=b"));
        assert_eq!(value(AmazonS3ConfigKey::Region), Some("eu-central-2"));
        assert_eq!(value(AmazonS3ConfigKey::Token), None);
    }
}
