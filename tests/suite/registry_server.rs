//! A schema registry on loopback: the answers that a real one gives, and the ways in which it fails. It also takes what
//! is posted to it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::binary::repository;

/// A registry; stopped when dropped.
pub struct RegistryServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// What is answered below each path.
    answers: BTreeMap<String, Value>,
    /// These are answered first, whatever is asked: status and body.
    failures: Vec<(u16, String)>,
    /// The header `Authorization` that is asked for.
    authorization: Option<String>,
    /// The paths that were asked for.
    asked: Vec<String>,
    /// What was posted.
    posted: Vec<String>,
    stopped: bool,
}

impl RegistryServer {
    /// A registry over HTTP.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// A registry over HTTPS whose certificate is from `tls/ca.pem`.
    pub fn start_tls() -> Self {
        let read = |name: &str| repository().join("tests/suite/tls").join(name);
        let certificate = CertificateDer::from_pem_file(read("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(read("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Self::listen(Some(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())))
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if shared.lock().unwrap().stopped {
                    return;
                }
                // A client that goes away in the middle is its own affair.
                let _ = match &tls {
                    None => serve(stream, &shared),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &shared)
                    }
                };
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Registers a schema under an id, with what it imports: name and subject, version 1.
    pub fn schema(&self, id: u32, text: &str, references: &[(&str, &str)]) {
        let mut answer = json!({"schemaType": "PROTOBUF", "schema": text});
        if !references.is_empty() {
            let reference = |(name, subject): &(&str, &str)| json!({"name": name, "subject": subject, "version": 1});
            answer["references"] = references.iter().map(reference).collect();
        }
        self.answer(&format!("/schemas/ids/{id}"), answer);
    }

    /// Registers version 1 of a subject.
    pub fn subject(&self, subject: &str, text: &str) {
        let path = format!("/subjects/{}/versions/1", subject.replace('/', "%2F"));
        let answer = json!({"subject": subject, "version": 1, "id": 1, "schemaType": "PROTOBUF", "schema": text});
        self.answer(&path, answer);
    }

    /// Answers `path` so.
    pub fn answer(&self, path: &str, answer: Value) {
        self.state.lock().unwrap().answers.insert(path.to_string(), answer);
    }

    /// The next requests fail so, one after the other.
    pub fn fail(&self, failures: &[(u16, &str)]) {
        let failures = failures.iter().map(|(status, body)| (*status, body.to_string()));
        self.state.lock().unwrap().failures = failures.collect();
    }

    /// Asks for this header `Authorization` from now on.
    pub fn ask_for(&self, authorization: &str) {
        self.state.lock().unwrap().authorization = Some(authorization.to_string());
    }

    /// What was posted since the last call.
    pub fn posted(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().posted)
    }

    /// The paths that were asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).stopped = true;
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// One request, then the connection is closed.
fn serve(stream: impl Read + Write, state: &Mutex<State>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut authorization, mut length) = (String::new(), None, 0);
    stream.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        match line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim())) {
            Some((name, value)) if name == "authorization" => authorization = Some(value.to_string()),
            Some((name, value)) if name == "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut posted = vec![0; length];
    stream.read_exact(&mut posted)?;
    let path = first.split_whitespace().nth(1).unwrap_or_default().to_string();
    let (status, body) = {
        let mut state = state.lock().unwrap();
        state.asked.push(path.clone());
        if !posted.is_empty() {
            state.posted.push(String::from_utf8(posted).unwrap());
        }
        if !state.failures.is_empty() {
            state.failures.remove(0)
        } else if state.authorization.is_some() && state.authorization != authorization {
            (401, r#"{"error_code":40101,"message":"Unauthorized"}"#.to_string())
        } else {
            match state.answers.get(&path) {
                Some(answer) => (200, answer.to_string()),
                None => (404, r#"{"error_code":40403,"message":"Schema not found"}"#.to_string()),
            }
        }
    };
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nETag: \"1\"\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}
