//! Who calls, and what they may call.
//!
//! The file of credentials has one line for each: a name, how the caller is known, and the methods:
//!
//! ```text
//! # name     known by  what                                 methods
//! ad-server  sha256    9f86d081884c7d659a2feaa0c55ad015…    /ads.v1.ClickTrackService/AdTrack,/ads.v1.Other/*
//! dashboard  subject   CN=dashboard,O=Acme                  *
//! ```
//!
//! `sha256` is the SHA-256 of a bearer token, in hexadecimal: the token itself is in no file. `subject` is the subject
//! of a client's certificate. Two lines may have one name, so that a token can be replaced.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::Status;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::watched_files::WatchedFiles;
use crate::clock::Clock;
use crate::error::{Error, Result};

/// A token that is longer is none.
const MAX_TOKEN: usize = 4096;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    /// The name in the file of credentials, the certificate's subject, or `anonymous`.
    pub(super) name: Arc<str>,
    /// Whose rate it counts for: the name, or the address of somebody without one.
    pub(super) rate: Arc<str>,
}

/// Decides who may call what.
pub(super) struct Access {
    credentials: Option<WatchedFiles<Credentials>>,
    /// Whether a client's certificate was asked for: then each one is of the right authority.
    has_client_authority: bool,
}

/// What the file says.
#[derive(Debug, Default)]
struct Credentials {
    tokens: Vec<(Known, [u8; 32])>,
    subjects: Vec<(Known, String)>,
}

#[derive(Debug, Clone)]
struct Known {
    name: Arc<str>,
    methods: Vec<String>,
}

impl Access {
    /// # Errors
    /// `Invalid` with all faults of the file.
    pub(super) fn new(path: Option<&Path>, has_client_authority: bool, clock: Arc<dyn Clock>) -> Result<Self> {
        let open = |path: &Path| {
            let context = format!("credentials {}", path.display());
            let parse = move |contents: &[Vec<u8>]| {
                let bytes = contents.first().map(Vec::as_slice).unwrap_or_default();
                Credentials::parse(bytes).map_err(|error| error.within(&context))
            };
            WatchedFiles::open(vec![path.to_path_buf()], clock, parse)
        };
        Ok(Self { credentials: path.map(open).transpose()?, has_client_authority })
    }

    /// Whether callers have to say who they are.
    pub(super) fn is_required(&self) -> bool {
        self.credentials.is_some() || self.has_client_authority
    }

    /// Who calls `path`; refuses those who may not. A token counts before a certificate.
    pub(super) fn check(
        &self,
        path: &str,
        headers: &HeaderMap,
        subject: Option<&Arc<str>>,
        peer: IpAddr,
    ) -> Result<Principal, Status> {
        let credentials = self.credentials.as_ref().map(WatchedFiles::current).unwrap_or_default();
        // Without a file of tokens the metadata is somebody else's.
        let token = if self.credentials.is_some() { bearer(headers)? } else { None };
        let known = match (token, subject) {
            (Some(token), _) => {
                let hash: [u8; 32] = Sha256::digest(token).into();
                let known =
                    credentials.by_token(&hash).ok_or_else(|| Status::unauthenticated("the token is unknown"))?;
                known.clone()
            }
            (_, Some(subject)) if self.credentials.is_none() => {
                Known { name: Arc::clone(subject), methods: vec!["*".to_owned()] }
            }
            (_, Some(subject)) => {
                let found = credentials.subjects.iter().find(|(_, known)| known == &**subject);
                let denied = || Status::permission_denied("the certificate's subject has no rights here");
                found.ok_or_else(denied)?.0.clone()
            }
            _ if self.is_required() => {
                let message = if self.credentials.is_some() {
                    "no credentials; send the metadata `authorization: Bearer TOKEN`"
                } else {
                    "no credentials; connect with a client certificate"
                };
                return Err(Status::unauthenticated(message));
            }
            _ => return Ok(Principal { name: Arc::from("anonymous"), rate: Arc::from(peer.to_string()) }),
        };
        if !known.may_call(path) {
            return Err(Status::permission_denied(format!("{} may not call {path}", known.name)));
        }
        Ok(Principal { rate: Arc::clone(&known.name), name: known.name })
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("is_required", &self.is_required()).finish_non_exhaustive()
    }
}

/// The bearer token of a call.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Status> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong = || Status::unauthenticated("the metadata `authorization` is not `Bearer TOKEN`");
    let (scheme, token) = value.as_bytes().split_at_checked(7).ok_or_else(wrong)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
    if is_bearer && !token.is_empty() && token.len() <= MAX_TOKEN { Ok(Some(token)) } else { Err(wrong()) }
}

impl Known {
    fn may_call(&self, path: &str) -> bool {
        self.methods.iter().any(|method| match method.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => method == path,
        })
    }
}

impl Credentials {
    /// All lines are looked at, however early one fits, so that the time tells nothing.
    fn by_token(&self, hash: &[u8; 32]) -> Option<&Known> {
        let mut found = None;
        for (known, expected) in &self.tokens {
            if bool::from(expected.ct_eq(hash)) {
                found = Some(known);
            }
        }
        found
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("it is no UTF-8; write it anew"))?;
        let (mut credentials, mut faults) = (Self::default(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(fault) = credentials.add(line) {
                faults.push(format!("line {}: {fault}", number + 1));
            }
        }
        if !faults.is_empty() {
            return Err(Error::invalid(faults.join("\n")));
        }
        if credentials.tokens.is_empty() && credentials.subjects.is_empty() {
            return Err(Error::invalid("it has no line, so that nobody could call; add `NAME sha256 HASH METHODS`"));
        }
        Ok(credentials)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, kind, what @ .., methods] = words.as_slice() else {
            return Err("it is not `NAME sha256|subject WHAT METHODS`; write it so".to_owned());
        };
        let what = what.join(" ");
        let methods: Vec<String> = methods.split(',').map(str::to_owned).collect();
        if !methods.iter().all(|method| is_method(method)) {
            // The word is not repeated: it may be a token.
            return Err(format!(
                "word {} is no method; write `*`, `/package.Service/*` or `/package.Service/Method`",
                words.len()
            ));
        }
        let known = Known { name: Arc::from(*name), methods };
        match (*kind, what.as_str()) {
            ("sha256", hash) => {
                // The text is not repeated: it may be a token.
                let wrong = || "the SHA-256 does not have 64 hexadecimal digits; write the token's".to_owned();
                let bytes = hex::decode(hash).map_err(|_| wrong())?;
                self.tokens.push((known, bytes.try_into().map_err(|_| wrong())?));
            }
            ("subject", "") => return Err("it has no subject; write it before the methods".to_owned()),
            ("subject", subject) => self.subjects.push((known, subject.to_owned())),
            (_, _) => return Err("the second word is unknown; write `sha256` or `subject`".to_owned()),
        }
        Ok(())
    }
}

fn is_method(text: &str) -> bool {
    let parts = text.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    let is_name = |name: &str| !name.is_empty() && !name.contains(['*', '/']);
    text == "*" || parts.is_some_and(|(service, method)| is_name(service) && (method == "*" || is_name(method)))
}

/// The subject of a certificate, such as `CN=dashboard,O=Acme`, in the certificate's order.
pub(super) fn subject_of(certificate: &[u8]) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let registry = x509_parser::objects::oid_registry();
    let mut parts = Vec::new();
    for attribute in certificate.subject().iter_attributes() {
        let oid = attribute.attr_type();
        let name = x509_parser::objects::oid2abbrev(oid, registry).map_or_else(|_| oid.to_string(), str::to_owned);
        parts.push(format!("{name}={}", escaped(attribute.as_str().ok()?)));
    }
    Some(Arc::from(parts.join(",")))
}

/// A value of which no part can be taken for another attribute.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            ',' | '=' | '+' | '\\' | '"' => text.extend(['\\', c]),
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;
    use tonic::Code;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn hash(token: &str) -> String {
        hex::encode(Sha256::digest(token))
    }

    fn access(lines: &str, has_client_authority: bool) -> Access {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        Access::new(Some(file.path()), has_client_authority, Arc::new(SetClock::default())).unwrap()
    }

    /// A file of tokens alone, where certificates are asked for too.
    fn access_of_tokens() -> Access {
        access(&format!("a sha256 {} /s.S/A", hash("one")), true)
    }

    fn check(access: &Access, path: &str, token: Option<&str>, subject: Option<&str>) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let subject = subject.map(Arc::from);
        let found = access.check(path, &headers, subject.as_ref(), PEER);
        found.map(|principal| principal.name.to_string()).map_err(|status| status.code())
    }

    #[test]
    fn tokens_have_rights() {
        let lines = format!(
            "# comment\n\na sha256 {} /s.S/A,/s.T/*\na sha256 {} *\nb sha256 {} *",
            hash("one"),
            hash("two").to_uppercase(),
            hash("three"),
        );
        let access = access(&lines, false);
        assert_eq!(check(&access, "/s.S/A", Some("Bearer one"), None), Ok("a".into()));
        assert_eq!(check(&access, "/s.T/X", Some("bearer one"), None), Ok("a".into()));
        assert_eq!(check(&access, "/s.S/B", Some("Bearer one"), None), Err(Code::PermissionDenied));
        assert_eq!(check(&access, "/s.S/B", Some("Bearer two"), None), Ok("a".into()));
        assert_eq!(check(&access, "/s.S/B", Some("Bearer three"), None), Ok("b".into()));
        for wrong in ["Bearer four", "Bearer ", "Bearer", "Basic one", "one", ""] {
            assert_eq!(check(&access, "/s.S/A", Some(wrong), None), Err(Code::Unauthenticated), "{wrong}");
        }
        assert_eq!(check(&access, "/s.S/A", None, None), Err(Code::Unauthenticated));
    }

    #[test]
    fn subjects_have_rights() {
        let access = access("d subject CN=dash board,O=Acme /s.S/A", true);
        assert_eq!(check(&access, "/s.S/A", None, Some("CN=dash board,O=Acme")), Ok("d".into()));
        assert_eq!(check(&access, "/s.S/B", None, Some("CN=dash board,O=Acme")), Err(Code::PermissionDenied));
        assert_eq!(check(&access, "/s.S/A", None, Some("CN=other")), Err(Code::PermissionDenied));
        assert_eq!(check(&access, "/s.S/A", None, None), Err(Code::Unauthenticated));
        // A certificate alone is enough only where nothing else says who may call what.
        let tokens = access_of_tokens();
        assert_eq!(check(&tokens, "/s.S/A", None, Some("CN=other")), Err(Code::PermissionDenied));
        assert_eq!(check(&tokens, "/s.S/A", Some("Bearer one"), Some("CN=other")), Ok("a".into()));
        let any = Access::new(None, true, Arc::new(SetClock::default())).unwrap();
        assert_eq!(check(&any, "/s.S/A", None, Some("CN=other")), Ok("CN=other".into()));
        assert_eq!(check(&any, "/s.S/A", None, None), Err(Code::Unauthenticated));
        assert_eq!(check(&any, "/s.S/A", Some("Bearer x"), None), Err(Code::Unauthenticated));
    }

    #[test]
    fn without_authentication_everybody_is_an_address() {
        let open = Access::new(None, false, Arc::new(SetClock::default())).unwrap();
        let principal = open.check("/s.S/A", &HeaderMap::new(), None, PEER).unwrap();
        assert_eq!((&*principal.name, &*principal.rate), ("anonymous", "192.0.2.7"));
    }

    #[test]
    fn all_faults_of_a_file_are_told_and_no_token() {
        let lines = format!("a\nb sha256 secret-token *\nc md5 x *\nd sha256 {} Method\ne subject *", hash("x"));
        let error = Credentials::parse(lines.as_bytes()).unwrap_err().to_string();
        let expected = "line 1: it is not `NAME sha256|subject WHAT METHODS`; write it so\n\
            line 2: the SHA-256 does not have 64 hexadecimal digits; write the token's\n\
            line 3: the second word is unknown; write `sha256` or `subject`\n\
            line 4: word 4 is no method; write `*`, `/package.Service/*` or `/package.Service/Method`\n\
            line 5: it has no subject; write it before the methods";
        assert_eq!(error, expected);
        assert!(Credentials::parse(b"# nothing").unwrap_err().to_string().starts_with("it has no line"));
    }

    #[test]
    fn a_subject_cannot_pretend_to_have_more_attributes() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "a,O=Acme\n");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(&*subject_of(certificate.der()).unwrap(), "CN=a\\,O\\=Acme\u{fffd}");
    }
}
