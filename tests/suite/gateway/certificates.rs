//! Authorities and certificates, made for the test.

use std::path::{Path, PathBuf};

use flumen::gateway::TlsOptions;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity};

/// An authority.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// For `localhost`, with that common name, until that year.
    pub fn sign(&self, name: &str, until: i32) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.distinguished_name.push(DnType::OrganizationName, "Acme");
        parameters.not_before = date_time_ymd(2000, 1, 1);
        parameters.not_after = date_time_ymd(until, 1, 1);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn trusted(&self) -> Certificate {
        Certificate::from_pem(&self.pem)
    }
}

impl Signed {
    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.certificate, &self.key)
    }

    pub fn write(&self, directory: &Path) {
        std::fs::write(directory.join("server.pem"), &self.certificate).unwrap();
        std::fs::write(directory.join("server.key"), &self.key).unwrap();
    }
}

/// A directory with a server's files.
pub struct Files(pub TempDir);

impl Files {
    pub fn new(server: &Signed, clients: Option<&Authority>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        server.write(directory.path());
        if let Some(clients) = clients {
            std::fs::write(directory.path().join("clients.pem"), &clients.pem).unwrap();
        }
        Self(directory)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn tls(&self, has_clients: bool) -> TlsOptions {
        TlsOptions {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_authority: has_clients.then(|| self.path("clients.pem")),
            is_client_certificate_optional: false,
        }
    }
}
