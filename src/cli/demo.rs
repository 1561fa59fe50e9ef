//! `tidegate demo`: sample upstreams, a gateway and its admin listener in one process.

mod progress;
mod upstreams;

use super::{Failure, run};
use crate::config::{Environment, Source};
use clap::Args;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// Options of `tidegate demo`.
#[derive(Args)]
pub(super) struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port of the gateway
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the admin listener, on 127.0.0.1
    #[arg(long, default_value_t = 9180)]
    admin_port: u16,
}

/// The demo's configuration; the command puts the addresses in.
const CONFIGURATION: &str = include_str!("demo/demo.yaml");

pub(super) fn demo(options: Options) -> Result<(), Failure> {
    run::log_to_stderr();
    let gateway = SocketAddr::new(options.address, options.port);
    let samples = upstreams::start()?;
    let environment = Environment::from_pairs([
        ("GATEWAY", gateway.to_string().as_str()),
        (
            "ADMIN",
            format!("127.0.0.1:{}", options.admin_port).as_str(),
        ),
        ("SAMPLES", samples.to_string().as_str()),
    ]);
    let source =
        Source::parse(CONFIGURATION, "demo.yaml", &environment).map_err(Failure::Configuration)?;
    let prepared = run::prepare(source, None, None).map_err(|failure| match failure {
        Failure::Other(text) => Failure::Other(format!(
            "{text}\n(other ports: tidegate demo --port 8081 --admin-port 9181)"
        )),
        other => other,
    })?;
    writeln!(std::io::stdout(), "{}", what_to_try(&options))?;
    progress::start(prepared.running.clone());
    prepared.bound.serve(prepared.running);
    Ok(())
}

fn what_to_try(options: &Options) -> String {
    let Options {
        port, admin_port, ..
    } = options;
    format!(
        "\
Tidegate demo: a gateway on http://localhost:{port}, admin on http://localhost:{admin_port}

  endpoint            limit per client (free)   algorithm        pro
  GET  /api/data      10 per 60 s               sliding_window   100
  GET  /api/search    30 per 60 s               token_bucket     300
  POST /api/upload    5 per 300 s               sliding_window   50
  GET  /api/resource  100 per 60 s              sliding_window   1000

  keys: demo-free, test, test-client (tier free), demo-pro (tier pro); without a key the address is counted

Try:
  curl -i -H 'X-API-Key: demo-free' localhost:{port}/api/data
  for i in $(seq 15); do curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'X-API-Key: demo-free' localhost:{port}/api/data; done
  curl -s localhost:{admin_port}/metrics | grep decisions

Ctrl-C stops it.
"
    )
}
