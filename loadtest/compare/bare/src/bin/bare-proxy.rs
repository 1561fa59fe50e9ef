//! A Pingora proxy that does nothing but proxy: the floor that Tidegate is measured against.

use async_trait::async_trait;
use pingora::Result;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

const USAGE: &str = "usage: bare-proxy --listen 127.0.0.1:PORT --upstream 127.0.0.1:PORT --threads N \
                     [--no-work-stealing]";

struct BareProxy {
    peer: Box<HttpPeer>,
}

#[async_trait]
impl ProxyHttp for BareProxy {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(self.peer.clone())
    }
}

/// The value that follows `name` on the command line.
fn argument(name: &str) -> String {
    std::env::args()
        .skip_while(|argument| argument != name)
        .nth(1)
        .unwrap_or_else(|| stop(&format!("{name} is missing")))
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
    let mut service = http_proxy_service(&server.configuration, BareProxy { peer });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
