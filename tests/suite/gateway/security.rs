//! Who may connect, and who may call.

use std::sync::Arc;
use std::time::Duration;

use flumen::clock::SetClock;
use flumen::error::ErrorKind;
use flumen::gateway::{MemoryPublisher, Server, ServerOptions, Services};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use super::certificates::{Authority, Files};
use super::harness::{Answer, Client, Running, SERVICE, ads, eventually, gateway, impression, local};

async fn call(running: &Running, trusted: Certificate, identity: Option<Identity>) -> Result<Answer, Status> {
    let mut tls = ClientTlsConfig::new().ca_certificate(trusted).domain_name("localhost");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", running.address)).unwrap().tls_config(tls).unwrap();
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(format!("{error:?}")))?;
    Client::new(channel).track("a").await
}

async fn refused(options: ServerOptions) -> String {
    let (pool, plan) = ads();
    let services = Services {
        publisher: Arc::new(MemoryPublisher::new(1)),
        subscriber: None,
        clock: Arc::new(SetClock::default()),
    };
    let error = Server::bind(options, &plan, &pool, services).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

#[tokio::test]
async fn tls_is_for_those_who_trust_the_authority() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let files = Files::new(&right.sign("server", 2999), None);
    let running = gateway(|options| options.tls = Some(files.tls(false))).await;
    assert_eq!(call(&running, right.trusted(), None).await.unwrap().code, 0);
    call(&running, wrong.trusted(), None).await.unwrap_err();
    // Plain text at a TLS port.
    let plain = Endpoint::from_shared(format!("http://{}", running.address)).unwrap().connect_lazy();
    Client::new(plain).track("a").await.unwrap_err();
    eventually(|| running.metrics.handshakes_failed() == 2).await;
    assert_eq!(running.records().len(), 1);
    assert_eq!(call(&running, right.trusted(), None).await.unwrap().code, 0);
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_is_the_principal() {
    let (servers, clients, others) = (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let files = Files::new(&servers.sign("server", 2999), Some(&clients));
    let credentials = files.path("credentials");
    std::fs::write(&credentials, "good subject CN=good,O=Acme *\nlittle subject CN=little,O=Acme /other.S/*\n")
        .unwrap();
    let running = gateway(|options| {
        options.tls = Some(files.tls(true));
        options.credentials = Some(credentials.clone());
    })
    .await;
    let with = |identity: Identity| call(&running, servers.trusted(), Some(identity));
    assert_eq!(with(clients.sign("good", 2999).identity()).await.unwrap().code, 0);
    assert_eq!(with(clients.sign("little", 2999).identity()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(with(clients.sign("unknown", 2999).identity()).await.unwrap_err().code(), Code::PermissionDenied);
    // Expired, of another authority, none: there is no connection.
    with(clients.sign("good", 2001).identity()).await.unwrap_err();
    with(others.sign("good", 2999).identity()).await.unwrap_err();
    call(&running, servers.trusted(), None).await.unwrap_err();
    eventually(|| running.metrics.handshakes_failed() == 3).await;
    assert_eq!(running.records().len(), 1);
}

#[tokio::test]
async fn old_versions_of_tls_are_refused() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.sign("server", 2999), None);
    let running = gateway(|options| options.tls = Some(files.tls(false))).await;
    // The first message of a client that speaks TLS 1.2 at most, then of one that speaks 1.1 at most.
    let hello = async |version: u8| {
        let mut hello = b"\x16\x03\x01\x00\x45\x01\x00\x00\x41\x03".to_vec();
        hello.push(version);
        hello.extend([7; 32]);
        hello.extend(b"\x00\x00\x02\xc0\x2b\x01\x00\x00\x16\x00\x0a\x00\x04\x00\x02\x00\x1d");
        hello.extend(b"\x00\x0d\x00\x04\x00\x02\x04\x03\x00\x0b\x00\x02\x01\x00");
        let mut stream = tokio::net::TcpStream::connect(running.address).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).await.unwrap();
        reply
    };
    assert_eq!(hello(3).await[0], 0x16, "a handshake");
    // A fatal alert: the version of the protocol.
    assert_eq!(hello(2).await, [0x15, 3, 3, 0, 2, 2, 70]);
    assert!(call(&running, authority.trusted(), None).await.is_ok());
}

#[tokio::test]
async fn an_expired_server_is_not_trusted() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.sign("server", 2001), None);
    let running = gateway(|options| options.tls = Some(files.tls(false))).await;
    call(&running, authority.trusted(), None).await.unwrap_err();
    assert_eq!(running.records(), []);
}

#[tokio::test]
async fn certificates_are_read_again() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::new(&old.sign("server", 2999), None);
    let running = gateway(|options| options.tls = Some(files.tls(false))).await;
    assert!(call(&running, old.trusted(), None).await.is_ok());
    // Half of a change is none.
    std::fs::write(files.path("server.pem"), new.sign("server", 2999).certificate).unwrap();
    running.clock.advance(Duration::from_secs(5));
    assert!(call(&running, old.trusted(), None).await.is_ok());
    new.sign("server", 2999).write(files.0.path());
    running.clock.advance(Duration::from_secs(5));
    assert!(call(&running, new.trusted(), None).await.is_ok());
    assert!(call(&running, old.trusted(), None).await.is_err());
}

#[tokio::test]
async fn tokens_are_asked_for_and_have_rights() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |name: &str, token: &str, methods: &str| {
        format!("{name} sha256 {} {methods}\n", hex::encode(Sha256::digest(token)))
    };
    let lines = line("all", "one", "*") + &line("scores", "two", &format!("{SERVICE}Scores"));
    std::fs::write(file.path(), &lines).unwrap();
    let running = gateway(|options| options.credentials = Some(file.path().into())).await;
    let mut client = running.client().await;
    let mut call = async |token: &str| {
        let pairs = [("authorization", token)];
        let pairs = if token.is_empty() { &[][..] } else { &pairs[..] };
        client.send(impression("a"), pairs).await.map(|answer| answer.code).map_err(|status| status.code())
    };
    assert_eq!(call("Bearer one").await, Ok(0));
    assert_eq!(call("").await, Err(Code::Unauthenticated));
    assert_eq!(call("Bearer three").await, Err(Code::Unauthenticated));
    assert_eq!(call("Basic one").await, Err(Code::Unauthenticated));
    assert_eq!(call("Bearer two").await, Err(Code::PermissionDenied));
    // A token is replaced.
    std::fs::write(file.path(), line("all", "three", "*")).unwrap();
    running.clock.advance(Duration::from_secs(5));
    assert_eq!(call("Bearer three").await, Ok(0));
    assert_eq!(call("Bearer one").await, Err(Code::Unauthenticated));
    assert_eq!(running.records().len(), 2);
    // Also what does not exist is not told to strangers; health is.
    let mut client = running.client().await;
    let status = client.unary_with("/x.Y/Z", impression("a"), &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    client.unary_with("/grpc.health.v1.Health/Check", bytes::Bytes::new(), &[]).await.unwrap();
}

#[tokio::test]
async fn keys_of_two_principals_do_not_meet() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |name: &str| format!("{name} sha256 {} *\n", hex::encode(Sha256::digest(name)));
    std::fs::write(file.path(), line("a") + &line("b")).unwrap();
    let running = gateway(|options| options.credentials = Some(file.path().into())).await;
    let mut client = running.client().await;
    for (token, ad) in [("Bearer a", "1"), ("Bearer b", "2"), ("Bearer a", "1")] {
        client.send(impression(ad), &[("authorization", token), ("idempotency-key", "k")]).await.unwrap();
    }
    assert_eq!(running.ads(), ["1", "2"]);
}

#[tokio::test]
async fn strangers_are_not_let_in_by_mistake() {
    let everywhere = ServerOptions::new("0.0.0.0:0".parse().unwrap());
    let error = refused(everywhere.clone()).await;
    assert!(error.starts_with("0.0.0.0:0 can be reached from elsewhere and nobody would have to say who they are"));
    // A certificate of the server says nothing about its clients.
    let authority = Authority::new("authority");
    let files = Files::new(&authority.sign("server", 2999), Some(&authority));
    let error = refused(ServerOptions { tls: Some(files.tls(false)), ..everywhere }).await;
    assert!(error.contains("nobody would have to say who they are"), "{error}");
}

#[tokio::test]
async fn wrong_options_are_told() {
    let mut options = local();
    options.limits.connections = 0;
    options.queue.records = 0;
    let error = refused(options).await;
    assert_eq!(error, "the limit of connections, of records is 0, so that nothing could be served; raise it");
    let mut options = local();
    options.limits.idle = Duration::MAX;
    assert_eq!(refused(options).await, "the limit of idle is more than 365 days; lower it");
    let cors = vec!["ads.example".to_owned()];
    assert!(refused(ServerOptions { cors, ..local() }).await.contains("\"ads.example\" is no origin"));
    let credentials = Some("/none".into());
    assert!(refused(ServerOptions { credentials, ..local() }).await.starts_with("file /none cannot be read; give"));
    let authority = Authority::new("authority");
    let files = Files::new(&authority.sign("server", 2999), Some(&authority));
    let tls = |change: &dyn Fn()| {
        change();
        ServerOptions { tls: Some(files.tls(true)), ..local() }
    };
    let other = || std::fs::write(files.path("server.key"), authority.sign("x", 2999).key).unwrap();
    let error = refused(tls(&other)).await;
    assert!(error.contains("does not fit; give the certificate's own"), "{error}");
    let error = refused(tls(&|| std::fs::write(files.path("server.key"), "x").unwrap())).await;
    assert!(error.contains("server.key: it has no private key; give one in PEM"), "{error}");
    let error = refused(tls(&|| std::fs::write(files.path("server.pem"), "x").unwrap())).await;
    assert!(error.contains("server.pem: it has no certificate; give one in PEM"), "{error}");
    let error = refused(tls(&|| std::fs::write(files.path("clients.pem"), "x").unwrap())).await;
    assert!(error.contains("clients.pem: it is no authority's certificate"), "{error}");
}
