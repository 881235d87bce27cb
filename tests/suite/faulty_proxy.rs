//! An HTTP server in front of another one that goes wrong: it hangs up before it asks and after, answers 503 and 429
//! before and after, cuts answers off, and takes its time. A seed decides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::chance::Chance;

/// The proxy; it ends when dropped.
pub struct FaultyProxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    behind: String,
    chance: Mutex<Chance>,
    /// One request in so many goes wrong.
    rarity: u64,
    faults: AtomicU64,
    stopped: AtomicBool,
}

impl FaultyProxy {
    /// In front of `behind` (`HOST:PORT`); one request in `rarity` goes wrong.
    pub fn start(behind: &str, rarity: u64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behind: behind.to_string(),
            chance: Mutex::new(Chance::new(seed)),
            rarity,
            faults: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), state) = (stream, Arc::clone(&shared)) else { continue };
                // A client that hangs up is no failure of the proxy.
                std::thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that went wrong so far.
    pub fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::Relaxed)
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        // It waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl State {
    /// One request and its answer; then the connection ends.
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let request = read_request(&client)?;
        let fault = {
            let mut chance = self.chance.lock();
            (chance.below(self.rarity) == 0).then(|| chance.below(7))
        };
        self.faults.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        let busy = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        match fault {
            Some(0) => return client.shutdown(Shutdown::Both),
            Some(1) => return client.write_all(busy("503 Slow Down").as_bytes()),
            Some(2) => return client.write_all(busy("429 Too Many Requests").as_bytes()),
            Some(3) => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        let answer = self.ask(&request)?;
        match fault {
            Some(4) => client.shutdown(Shutdown::Both),
            Some(5) => client.write_all(busy("503 Slow Down").as_bytes()),
            Some(6) => {
                client.write_all(&answer[..answer.len() - answer.len().min(10)])?;
                client.shutdown(Shutdown::Both)
            }
            _ => client.write_all(&answer),
        }
    }

    fn ask(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.behind)?;
        server.write_all(request)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// A request, to be the only one on its connection.
fn read_request(client: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut reader = BufReader::new(client);
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            request.extend_from_slice(line.as_bytes());
        }
    }
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    let start = request.len();
    request.resize(start + length, 0);
    reader.read_exact(&mut request[start..])?;
    Ok(request)
}
