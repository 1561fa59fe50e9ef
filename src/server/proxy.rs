//! The proxy as a service that uses listeners bound beforehand and our own word for "stop accepting".

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

/// How long a start waits for the shared store, before it goes on without.
const FIRST_CONNECTION: Duration = Duration::from_secs(1);

/// The gateway on its listeners.
pub(super) struct ProxyService {
    inner: Option<Service<HttpProxy<Gateway>>>,
    listeners: Vec<TcpListener>,
    running: Arc<Running>,
    stop_accepting: ShutdownWatch,
}

impl ProxyService {
    pub(super) fn new(
        conf: &Arc<ServerConf>,
        running: Arc<Running>,
        listeners: Vec<TcpListener>,
        http2: bool,
        stop_accepting: ShutdownWatch,
    ) -> Self {
        let gateway = Gateway::new(running.clone());
        let mut inner = pingora_proxy::http_proxy_service_with_name(conf, gateway, "gateway");
        if let Some(proxy) = inner.app_logic_mut()
            && http2
        {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            options.h2_idle_timeout = Some(H2_IDLE);
            proxy.server_options = Some(options);
        }
        ProxyService {
            inner: Some(inner),
            listeners,
            running,
            stop_accepting,
        }
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
            if let Some(fds) = &fds {
                fds.lock().add(address.to_string(), listener.into_raw_fd());
            }
            inner.add_tcp(&address.to_string());
        }
        let stop_accepting = self.stop_accepting.clone();
        let running = self.running.clone();
        super::housekeeping::must_not_panic("gateway", async move {
            // here, because a connection's driver stays on the runtime that made it
            if let Some(store) = running.limiter.shared_store() {
                store.start(FIRST_CONNECTION).await;
            }
            inner.start_service(fds, stop_accepting, per_fd).await;
        })
        .await;
    }

    fn name(&self) -> &str {
        "gateway"
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        let addresses = self
            .listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok());
        Some(addresses.map(|address| address.to_string()).collect())
    }
}
