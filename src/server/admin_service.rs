//! The admin listener as a service of Pingora's, on a runtime of its own.

use crate::admin::{self, Access};
use crate::snapshot::Running;
use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use std::net::TcpListener;
use std::sync::Arc;

/// The admin listener, bound and ready.
pub(super) struct AdminService {
    /// taken when it starts
    parts: Option<(TcpListener, Arc<Running>, Access)>,
}

impl AdminService {
    pub(super) fn new(listener: TcpListener, running: Arc<Running>, access: Access) -> Self {
        AdminService {
            parts: Some((listener, running, access)),
        }
    }
}

#[async_trait]
impl Service for AdminService {
    /// Serves until the process ends: during a drain its health check says so.
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _per_fd: usize,
    ) {
        let Some((listener, running, access)) = self.parts.take() else {
            return;
        };
        super::housekeeping::must_not_panic("admin", async move {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => admin::serve(listener, running, access).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!("the admin listener stopped: {error}");
            }
        })
        .await;
    }

    fn name(&self) -> &str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}
