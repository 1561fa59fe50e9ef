//! Small upstreams on threads: each test scripts what they answer and sees what they got.

use crate::scratch::unique;
use crate::waiting::{self, DEADLINE};
use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What an upstream does with a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
}

/// One request at an upstream, its head read, its body not yet.
pub(crate) struct Exchange {
    /// byte for byte, with the empty line
    pub(crate) head: String,
    pub(crate) stream: TcpStream,
    /// what has come beyond the head
    pub(crate) buffer: Vec<u8>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Exchange {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        headers_in(&self.head, name).first().copied()
    }

    /// Reads up to a mark; nothing where the connection ends.
    fn until(&mut self, mark: &[u8]) -> Result<Option<Vec<u8>>> {
        loop {
            let found = self
                .buffer
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(position) = found {
                return Ok(Some(self.buffer.drain(..position + mark.len()).collect()));
            }
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Ok(None),
                bytes => self.buffer.extend_from_slice(&chunk[..bytes]),
            }
        }
    }

    fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < bytes {
            let mut chunk = vec![0; 64 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    /// Reads the body, decoded, and records it.
    pub(crate) fn body(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.header("transfer-encoding").is_some() {
            loop {
                let line = self.until(b"\r\n")?.unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                let size = line.trim().split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(std::io::Error::other)?;
                if size == 0 {
                    while self.until(b"\r\n")?.is_some_and(|line| line.len() > 2) {}
                    break;
                }
                body.extend(self.exactly(size)?);
                self.exactly(2)?;
            }
        } else if let Some(length) = self.header("content-length") {
            let length = length.parse().map_err(std::io::Error::other)?;
            body = self.exactly(length)?;
        }
        self.bodies.lock().unwrap().push(body.clone());
        Ok(body)
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// 200 with this body.
    pub(crate) fn answer(&mut self, body: impl AsRef<[u8]>) -> Result<Then> {
        let body = body.as_ref();
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        if !self.head.starts_with("HEAD ") {
            answer.extend_from_slice(body);
        }
        self.write(answer)?;
        Ok(Then::Keep)
    }

    /// Reads the body and answers with the request's head.
    pub(crate) fn echo(&mut self) -> Result<Then> {
        self.body()?;
        let head = self.head.clone();
        self.answer(head)
    }
}

/// A header's value in a head as it came; several lines are an error of the test's expectation.
pub(crate) fn header_in<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = headers_in(head, name);
    assert!(lines.len() < 2, "{name} more than once in {head}");
    lines.first().copied()
}

/// All values of a header in a head as it came.
pub(crate) fn headers_in<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(is, _)| is.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Upstream {
    /// Answers every request with its own head.
    pub(crate) fn echo() -> Self {
        Self::scripted(Exchange::echo)
    }

    /// Answers as the script says; an error of it closes the connection.
    pub(crate) fn scripted(
        script: impl Fn(&mut Exchange) -> Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted_at("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(crate) fn scripted_at(
        address: SocketAddr,
        script: impl Fn(&mut Exchange) -> Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let upstream = Upstream {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
            bodies: Arc::default(),
            connections: Arc::default(),
            stopping: Arc::default(),
        };
        let (heads, bodies) = (upstream.heads.clone(), upstream.bodies.clone());
        let (connections, stopping) = (upstream.connections.clone(), upstream.stopping.clone());
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let exchange = Exchange {
                    head: String::new(),
                    stream,
                    buffer: Vec::new(),
                    bodies: bodies.clone(),
                };
                let (script, heads) = (script.clone(), heads.clone());
                std::thread::spawn(move || converse(exchange, &*script, &heads));
            }
        });
        upstream
    }

    /// Heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    /// The head of the only request that has come, once it has.
    pub(crate) fn only_head(&self) -> String {
        waiting::until("the upstream has a request", || self.requests() > 0);
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads[0].clone()
    }

    /// Bodies the script has read so far, decoded.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // wakes the thread that accepts
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(
    mut exchange: Exchange,
    script: &(dyn Fn(&mut Exchange) -> Result<Then> + Send + Sync),
    heads: &Mutex<Vec<String>>,
) {
    let _ = exchange.stream.set_nodelay(true);
    let _ = exchange.stream.set_write_timeout(Some(DEADLINE));
    while let Ok(Some(head)) = exchange.until(b"\r\n\r\n") {
        exchange.head = String::from_utf8_lossy(&head).into_owned();
        heads.lock().unwrap().push(exchange.head.clone());
        match script(&mut exchange) {
            Ok(Then::Keep) => (),
            Ok(Then::Close) | Err(_) => return,
        }
    }
}

/// An address nobody listens on, nor will: on a loopback address of this test's own.
pub(crate) fn nobody() -> SocketAddr {
    let (process, counter) = unique();
    let [.., high, low] = process.to_be_bytes();
    let host = Ipv4Addr::new(127, 100 + (counter % 100) as u8, high, low);
    let listener = TcpListener::bind(SocketAddr::from((host, 0))).unwrap();
    listener.local_addr().unwrap()
}
