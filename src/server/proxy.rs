//! The proxy as a service that uses listeners bound beforehand and our own word for "stop accepting".

use super::shared_store;
use crate::gateway::Gateway;
use crate::snapshot::Running;
use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::listening::Service;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

/// An HTTP/2 connection without requests is closed after this.
const H2_IDLE: Duration = Duration::from_secs(75);

/// The gateway as one worker serves it, on sockets of its own.
pub(super) struct ProxyService {
    name: String,
    inner: Option<Service<HttpProxy<Gateway>>>,
    listeners: Vec<TcpListener>,
    running: Arc<Running>,
    stop_accepting: ShutdownWatch,
    /// does the shared store's connection live here?
    keeps_store: bool,
}

impl ProxyService {
    pub(super) fn new(
        conf: &Arc<ServerConf>,
        running: Arc<Running>,
        worker: usize,
        listeners: Vec<TcpListener>,
        http2: bool,
        stop_accepting: ShutdownWatch,
    ) -> Self {
        let gateway = Gateway::new(running.clone());
        let name = format!("gateway-{worker}");
        let mut inner = pingora_proxy::http_proxy_service_with_name(conf, gateway, &name);
        if let Some(proxy) = inner.app_logic_mut()
            && http2
        {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            options.h2_idle_timeout = Some(H2_IDLE);
            proxy.server_options = Some(options);
        }
        ProxyService {
            name,
            inner: Some(inner),
            listeners,
            running,
            stop_accepting,
            keeps_store: false,
        }
    }

    /// The only one: then the way to the shared store is shortest from its own thread.
    pub(super) fn keeping_store(mut self) -> Self {
        self.keeps_store = true;
        self
    }
}

#[async_trait]
impl pingora::services::Service for ProxyService {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        per_fd: usize,
    ) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        for listener in self.listeners.drain(..) {
            let Ok(address) = listener.local_addr() else {
                continue;
            };
            // Pingora finds sockets by the text of their address, of which every worker has one
            let socket = format!("{address} of {}", self.name);
            if let Some(fds) = &fds {
                fds.lock().add(socket.clone(), listener.into_raw_fd());
            }
            inner.add_tcp(&socket);
        }
        let stop_accepting = self.stop_accepting.clone();
        let keeps_store = self.keeps_store;
        let running = self.running.clone();
        super::housekeeping::must_not_panic("gateway", async move {
            match keeps_store {
                true => shared_store::start(&running).await,
                false => shared_store::started(&running).await,
            }
            inner.start_service(fds, stop_accepting, per_fd).await;
        })
        .await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        let addresses = self
            .listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok());
        Some(addresses.map(|address| address.to_string()).collect())
    }
}
