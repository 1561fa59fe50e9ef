//! A Pingora proxy that does nothing but proxy: the floor that Tidegate is measured against.
//!
//! With `--redis` it sends the same call to Redis before each request, over a connection of a pool,
//! and passes the request on once it has the reply: what a round trip costs a proxy that does little else.

use std::io;
use std::sync::Mutex;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const USAGE: &str = "usage: bare-proxy --listen 127.0.0.1:PORT --upstream 127.0.0.1:PORT --threads N \
                     [--no-work-stealing] [--redis HOST:PORT|/SOCKET --call FILE]";
/// Longer replies than this are not what a call for a limit brings.
const REPLY_MAX_BYTES: usize = 4 * 1024;

struct BareProxy {
    peer: Box<HttpPeer>,
    redis: Option<Redis>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A call that is made for each request.
struct Redis {
    address: String,
    call: Vec<u8>,
    idle: Mutex<Vec<Box<dyn Stream>>>,
}

impl Redis {
    async fn ask(&self) -> io::Result<()> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut stream = match idle {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(&self.call).await?;
        let mut buffer = [0; REPLY_MAX_BYTES];
        let mut filled = 0;
        while !is_complete(&buffer[..filled])? {
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Err(io::Error::other("Redis has closed, or too long a reply")),
                read => filled += read,
            }
        }
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(stream);
        }
        Ok(())
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        if self.address.starts_with('/') {
            return Ok(Box::new(UnixStream::connect(&self.address).await?));
        }
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Is it a text as Redis sends it, and all of it there? Any other reply is an error.
fn is_complete(reply: &[u8]) -> io::Result<bool> {
    let Some(line_end) = reply.windows(2).position(|two| two == b"\r\n") else {
        return Ok(false);
    };
    let line = String::from_utf8_lossy(&reply[..line_end]);
    let bytes: Option<usize> = line.strip_prefix('$').and_then(|text| text.parse().ok());
    match bytes {
        Some(bytes) => Ok(reply.len() >= line_end + 2 + bytes + 2),
        None => Err(io::Error::other(format!("Redis says: {line}"))),
    }
}

#[async_trait]
impl ProxyHttp for BareProxy {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn request_filter(&self, _: &mut Session, (): &mut ()) -> Result<bool> {
        let Some(redis) = &self.redis else {
            return Ok(false);
        };
        match redis.ask().await {
            Ok(()) => Ok(false),
            Err(error) => Error::e_because(ErrorType::InternalError, "asking Redis", error),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(self.peer.clone())
    }
}

/// The value that follows `name` on the command line.
fn argument(name: &str) -> String {
    optional(name).unwrap_or_else(|| stop(&format!("{name} is missing")))
}

fn optional(name: &str) -> Option<String> {
    std::env::args()
        .skip_while(|argument| argument != name)
        .nth(1)
}

fn stop(reason: &str) -> ! {
    eprintln!("bare-proxy: {reason}\n{USAGE}");
    std::process::exit(2);
}

fn main() {
    let listen = argument("--listen");
    let upstream: std::net::SocketAddr = argument("--upstream")
        .parse()
        .unwrap_or_else(|error| stop(&format!("--upstream: {error}")));
    let threads = argument("--threads")
        .parse()
        .unwrap_or_else(|error| stop(&format!("--threads: {error}")));

    let redis = optional("--redis").map(|address| {
        let file = argument("--call");
        let call = std::fs::read(&file).unwrap_or_else(|e| stop(&format!("{file}: {e}")));
        let idle = Mutex::default();
        Redis {
            address,
            call,
            idle,
        }
    });
    let work_stealing = !std::env::args().any(|argument| argument == "--no-work-stealing");

    // Pingora's defaults but for what the command line says and a stop that does not wait
    let conf = ServerConf {
        threads,
        work_stealing,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = Box::new(HttpPeer::new(upstream, false, String::new()));
    let mut service = http_proxy_service(&server.configuration, BareProxy { peer, redis });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
