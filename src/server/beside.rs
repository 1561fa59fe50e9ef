//! What runs beside the workers: a service of Pingora's with a thread of its own.

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use std::pin::Pin;

/// One piece of work, which a drain does not end.
pub(super) struct Beside {
    name: &'static str,
    /// taken when it starts; Pingora shares services, hence the lock, which nobody waits for
    work: Mutex<Option<Work>>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Beside {
    pub(super) fn new(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Beside {
            name,
            work: Mutex::new(Some(Box::pin(work))),
        }
    }
}

#[async_trait]
impl Service for Beside {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _per_fd: usize,
    ) {
        if let Some(work) = self.work.get_mut().take() {
            must_not_panic(self.name, work).await;
        }
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// Pingora lets a service that panics die alone and silently. A gateway without one of its
/// services is broken, so it ends, loudly, and is started again by whoever supervises it.
pub(super) async fn must_not_panic(name: &str, service: impl Future<Output = ()> + Send + 'static) {
    if let Err(error) = tokio::spawn(service).await
        && error.is_panic()
    {
        tracing::error!("the {name} service panicked: {error}");
        std::process::exit(70);
    }
}
