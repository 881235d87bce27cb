//! Certificates of a day, made when a test needs them.

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

/// A certificate and its key.
pub struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

impl Identity {
    /// An authority that signs for itself.
    pub fn authority(name: &str) -> Self {
        Self::new(name, None)
    }

    /// Somebody at 127.0.0.1 for whom this authority signs.
    pub fn sign(&self, name: &str) -> Self {
        Self::new(name, Some(self))
    }

    fn new(name: &str, authority: Option<&Identity>) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut subject = X509Name::builder().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let subject = subject.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&number()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(authority.map_or(&*subject, |by| by.certificate.subject_name())).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        if authority.is_none() {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        } else {
            let context = builder.x509v3_context(None, None);
            let host = SubjectAlternativeName::new().ip("127.0.0.1").build(&context).unwrap();
            builder.append_extension(host).unwrap();
        }
        builder.sign(authority.map_or(&key, |by| &by.key), MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    /// Writes the certificate to DIR/NAME.
    pub fn write_certificate(&self, dir: &Path, name: &str) -> PathBuf {
        write(dir, name, &[self.certificate.to_pem().unwrap()])
    }

    /// Writes the key to DIR/NAME.
    pub fn write_key(&self, dir: &Path, name: &str) -> PathBuf {
        write(dir, name, &[self.key.private_key_to_pem_pkcs8().unwrap()])
    }

    /// Writes both to DIR/NAME, as a broker wants them.
    pub fn write_both(&self, dir: &Path, name: &str) -> PathBuf {
        write(dir, name, &[self.key.private_key_to_pem_pkcs8().unwrap(), self.certificate.to_pem().unwrap()])
    }
}

/// A serial number that no other certificate has.
fn number() -> openssl::asn1::Asn1Integer {
    let mut number = BigNum::new().unwrap();
    number.rand(100, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    number.to_asn1_integer().unwrap()
}

fn write(dir: &Path, name: &str, parts: &[Vec<u8>]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, parts.concat()).unwrap();
    path
}
