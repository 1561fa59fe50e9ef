//! From a snapshot to a running process: binds, starts the services, drains and stops.

mod admin_service;
mod housekeeping;
mod proxy;
mod stop;

use crate::admin::Access;
use crate::snapshot::Running;
use admin_service::AdminService;
use housekeeping::Housekeeping;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use proxy::ProxyService;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use stop::{Signals, StopSignals};

/// Attempts Pingora may make for one request; how many an upstream gets is its own setting.
const MAX_ATTEMPTS: usize = 17;

/// Idle connections to upstreams kept per thread.
const IDLE_UPSTREAM_CONNECTIONS: usize = 1_024;

/// Where and how to serve.
pub struct Settings {
    /// addresses of the listeners, and whether they also take HTTP/2
    pub listeners: Vec<(SocketAddr, bool)>,
    /// address of the admin listener and who may use it
    pub admin: Option<(SocketAddr, Access)>,
    /// worker threads; 0: one per core
    pub threads: usize,
    /// how long a stop waits for requests in flight
    pub grace_period: Duration,
}

/// Why a start failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(source))]
pub struct CannotListen {
    address: SocketAddr,
    source: std::io::Error,
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process has this port (find it with `ss -ltnp`)"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        }
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// A process that has bound its addresses and is ready to serve.
pub struct Bound {
    signals: Signals,
    listeners: Vec<(TcpListener, bool)>,
    admin: Option<(TcpListener, Access)>,
    threads: usize,
    grace_period: Duration,
}

impl Bound {
    /// Binds every address, so that one that is taken is an error here and not a service that dies
    /// silently later.
    pub fn new(settings: Settings) -> Result<Self, CannotListen> {
        let signals = Signals::listen();
        let admin = match settings.admin {
            Some((address, access)) => Some((bind(address)?, access)),
            None => None,
        };
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Ok(Bound {
            signals,
            listeners: settings
                .listeners
                .into_iter()
                .map(|(address, http2)| Ok((bind(address)?, http2)))
                .collect::<Result<_, _>>()?,
            admin,
            threads,
            grace_period: settings.grace_period,
        })
    }

    /// Addresses actually bound: a port 0 in the configuration has become a real one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|(listener, _)| listener.local_addr().ok())
            .collect()
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
            .as_ref()
            .and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until a signal says stop, then drains; returns when all is done.
    pub fn serve(self, running: Arc<Running>) {
        let configuration = ServerConf {
            threads: self.threads,
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            upstream_keepalive_pool_size: IDLE_UPSTREAM_CONNECTIONS,
            max_retries: MAX_ATTEMPTS,
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, configuration);
        let stop = StopSignals::new(self.signals, running.clone(), self.grace_period);
        // whether HTTP/2 is taken is a property of a whole service
        let (http2, http1): (Vec<_>, Vec<_>) =
            self.listeners.into_iter().partition(|(_, http2)| *http2);
        for (listeners, http2) in [(http1, false), (http2, true)] {
            if !listeners.is_empty() {
                let listeners = listeners
                    .into_iter()
                    .map(|(listener, _)| listener)
                    .collect();
                let conf = &server.configuration;
                let running = running.clone();
                let service = ProxyService::new(conf, running, listeners, http2, stop.watch());
                server.add_service(service);
            }
        }
        server.add_service(Housekeeping::new(running.clone()));
        if let Some((listener, access)) = self.admin {
            server.add_service(AdminService::new(listener, running, access));
        }
        server.run(RunArgs {
            shutdown_signal: Box::new(stop),
        });
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, CannotListen> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| CannotListen { address, source })
}
