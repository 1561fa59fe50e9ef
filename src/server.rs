//! From a snapshot to a running process: binds, starts the services, drains and stops.

mod beside;
mod binding;
mod housekeeping;
mod proxy;
mod shared_store;
mod stop;

use crate::admin::{self, Access};
use crate::snapshot::Running;
use beside::Beside;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use proxy::ProxyService;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use stop::{Signals, StopSignals};

/// Attempts Pingora may make for one request; how many an upstream gets is its own setting.
const MAX_ATTEMPTS: usize = 17;

/// Idle connections to upstreams kept per worker.
const IDLE_UPSTREAM_CONNECTIONS: usize = 1_024;

/// Where and how to serve.
pub struct Settings {
    /// addresses of the listeners, and whether they also take HTTP/2
    pub listeners: Vec<(SocketAddr, bool)>,
    /// address of the admin listener and who may use it
    pub admin: Option<(SocketAddr, Access)>,
    /// workers, each a thread with connections of its own; 0: one per core
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

/// EMFILE
const TOO_MANY_OPEN_FILES: i32 = 24;

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process has this port (find it with `ss -ltnp`)"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        }
        _ if error.raw_os_error() == Some(TOO_MANY_OPEN_FILES) => {
            "; each of `server.threads` workers has a socket here: raise the limit (systemd: LimitNOFILE=, shell: ulimit -n)"
        }
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// A process that has bound its addresses and is ready to serve.
pub struct Bound {
    signals: Signals,
    /// per address: a socket for each worker
    listeners: Vec<(Vec<TcpListener>, bool)>,
    admin: Option<(TcpListener, Access)>,
    workers: usize,
    grace_period: Duration,
}

impl Bound {
    /// Binds every address, so that one that is taken is an error here and not a service that dies
    /// silently later.
    pub fn new(settings: Settings) -> Result<Self, CannotListen> {
        let signals = Signals::listen();
        let admin = match settings.admin {
            Some((address, access)) => bind(address, 1)?.pop().map(|listener| (listener, access)),
            None => None,
        };
        let workers = match settings.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Ok(Bound {
            signals,
            listeners: settings
                .listeners
                .into_iter()
                .map(|(address, http2)| Ok((bind(address, workers)?, http2)))
                .collect::<Result<_, _>>()?,
            admin,
            workers,
            grace_period: settings.grace_period,
        })
    }

    /// Addresses actually bound: a port 0 in the configuration has become a real one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|(sockets, _)| sockets.first()?.local_addr().ok())
            .collect()
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
            .as_ref()
            .and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until a signal says stop, then drains; returns when all is done.
    ///
    /// Every worker is a thread with a runtime, listening sockets and connections to upstreams of
    /// its own, as nginx' workers are processes: a request stays on its thread, though what it asks of
    /// Redis, the database or `forward_auth` may be done on others. What is counted and known is
    /// shared by all.
    pub fn serve(mut self, running: Arc<Running>) {
        let configuration = ServerConf {
            threads: 1,
            work_stealing: false,
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            upstream_keepalive_pool_size: IDLE_UPSTREAM_CONNECTIONS,
            // of a second and more, Tokio's timers: a worker's own, gone with the timeout. Pingora's
            // stay until they are due
            fast_timeout_to_tokio_threshold_seconds: Some(0),
            max_retries: MAX_ATTEMPTS,
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, configuration);
        let stop = StopSignals::new(self.signals, running.clone(), self.grace_period);
        let mut services = Vec::with_capacity(self.workers);
        for worker in 0..self.workers {
            // whether HTTP/2 is taken is a property of a whole service
            for http2 in [false, true] {
                let sockets = sockets_of_next(&mut self.listeners, http2);
                if !sockets.is_empty() {
                    let (conf, running) = (&server.configuration, running.clone());
                    let watch = stop.watch();
                    let service = ProxyService::new(conf, running, worker, sockets, http2, watch);
                    services.push(service);
                }
            }
        }
        // the way to the shared store is shortest from the same thread; several get one for it
        if let [only] = services.as_mut_slice() {
            only.keeps_store = true;
        } else if running.limiter.shared_store().is_some() {
            // what one worker is busy with must not delay the counting of the others
            let running = running.clone();
            let work = async move { shared_store::start(&running).await };
            server.add_service(Beside::new("shared-store", work));
        }
        for service in services {
            server.add_service(service);
        }
        let work = housekeeping::keep_house(running.clone());
        server.add_service(Beside::new("housekeeping", work));
        if let Some((listener, access)) = self.admin {
            let work = serve_admin(listener, running, access);
            server.add_service(Beside::new("admin", work));
        }
        server.run(RunArgs {
            shutdown_signal: Box::new(stop),
        });
    }
}

/// Until the process ends: during a drain its health check says so.
async fn serve_admin(listener: TcpListener, running: Arc<Running>, access: Access) {
    let served = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => admin::serve(listener, running, access).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::error!("the admin listener stopped: {error}");
    }
}

/// One socket of every listener that takes HTTP/2, or of every one that does not.
fn sockets_of_next(listeners: &mut [(Vec<TcpListener>, bool)], http2: bool) -> Vec<TcpListener> {
    let listeners = listeners.iter_mut().filter(|(_, takes)| *takes == http2);
    listeners.filter_map(|(sockets, _)| sockets.pop()).collect()
}

fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, CannotListen> {
    binding::bind(address, workers).map_err(|source| CannotListen { address, source })
}
