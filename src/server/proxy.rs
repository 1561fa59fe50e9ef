//! The proxy as a service that uses listeners bound beforehand and our own word for "stop accepting".

use super::{beside, shared_store};
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
    pub(super) keeps_store: bool,
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

    /// The text by which Pingora finds a socket: every worker has one of the same address.
    fn key_of(&self, listener: &TcpListener) -> Option<String> {
        let address = listener.local_addr().ok()?;
        Some(format!("{address}#{}", self.name))
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
        for listener in std::mem::take(&mut self.listeners) {
            let Some(key) = self.key_of(&listener) else {
                continue;
            };
            if let Some(fds) = &fds {
                fds.lock().add(key.clone(), listener.into_raw_fd());
            }
            inner.add_tcp(&key);
        }
        let stop_accepting = self.stop_accepting.clone();
        let keeps_store = self.keeps_store;
        let running = self.running.clone();
        beside::must_not_panic("gateway", async move {
            match keeps_store {
                true => shared_store::start(&running).await,
                false => shared_store::is_connected_elsewhere(&running).await,
            }
            inner.start_service(fds, stop_accepting, per_fd).await;
        })
        .await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        let keys = self.listeners.iter();
        Some(keys.filter_map(|listener| self.key_of(listener)).collect())
    }
}
