//! TLS: the certificates, which are read again when they change, and who the client is.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::watched_files::WatchedFiles;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// Where the certificates are. All files are PEM.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The server's certificate, and those that it is signed with.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities whose certificates a client may have. None: clients need none.
    pub client_authority: Option<PathBuf>,
    /// Whether a client may come without a certificate, when there is a `client_authority`: it then needs a token.
    pub is_client_certificate_optional: bool,
}

/// What connections are secured with.
pub(super) struct Tls(WatchedFiles<Arc<ServerConfig>>);

impl Tls {
    /// # Errors
    /// `Invalid` when a file cannot be read, or is not what it should be.
    pub(super) fn open(options: &TlsOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut paths = vec![options.certificate.clone(), options.key.clone()];
        paths.extend(options.client_authority.clone());
        let options = options.clone();
        Ok(Self(WatchedFiles::open(paths, clock, move |contents| configuration(&options, contents))?))
    }

    /// For the next connection. TLS 1.2 at least.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

fn configuration(options: &TlsOptions, contents: &[Vec<u8>]) -> Result<Arc<ServerConfig>> {
    let content = |index: usize| contents.get(index).map(Vec::as_slice).unwrap_or_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| Error::invalid("TLS 1.2 and 1.3 are not available; build with ring").caused_by(error))?;
    let builder = match &options.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let wrong = || {
                let path = path.display();
                Error::invalid(format!("client authority {path}: it is no authority's certificate; give one in PEM"))
            };
            for certificate in certificates(content(2)).ok_or_else(wrong)? {
                roots.add(certificate).map_err(|error| wrong().caused_by(error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if options.is_client_certificate_optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong().caused_by(error))?)
        }
    };
    let path = options.certificate.display();
    let chain = certificates(content(0))
        .ok_or_else(|| Error::invalid(format!("certificate {path}: it has no certificate; give one in PEM")))?;
    let key = PrivateKeyDer::from_pem_slice(content(1)).map_err(|_| {
        Error::invalid(format!("key {}: it has no private key; give one in PEM", options.key.display()))
    })?;
    let mut configuration = builder.with_single_cert(chain, key).map_err(|error| {
        let key = options.key.display();
        Error::invalid(format!("certificate {path}: the key {key} does not fit; give the certificate's own"))
            .caused_by(error)
    })?;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(configuration))
}

/// The certificates of a file. None: there is none, or one is damaged.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}
