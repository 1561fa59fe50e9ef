//! A request that waits for the store. One that waits alone, and did not have company lately, makes its
//! call itself, as part of its own task: at a low rate everything a call touches has left the caches,
//! so a task of its own, handed over to and back from, would cost more than what it does.

use super::Shared;
use crate::limit::batch::Verdict;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A request that waits for the store.
pub struct Waiting {
    verdict: oneshot::Receiver<Verdict>,
    calling: Option<Calling>,
}

/// A call that is made by who waits for it.
pub(super) struct Calling {
    call: Pin<Box<dyn Future<Output = ()> + Send>>,
    shared: Arc<Shared>,
}

impl Calling {
    pub(super) fn new(
        shared: &Arc<Shared>,
        call: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Calling {
            call: Box::pin(call),
            shared: shared.clone(),
        }
    }
}

impl Waiting {
    pub(super) fn new(verdict: oneshot::Receiver<Verdict>, calling: Option<Calling>) -> Self {
        Waiting { verdict, calling }
    }

    /// Bounded by the deadline of the request.
    pub async fn verdict(&mut self) -> Verdict {
        std::future::poll_fn(|context| self.poll_verdict(context)).await
    }

    fn poll_verdict(&mut self, context: &mut Context<'_>) -> Poll<Verdict> {
        if let Some(calling) = &mut self.calling
            && calling.call.as_mut().poll(context).is_ready()
        {
            self.calling = None;
        }
        let verdict = Pin::new(&mut self.verdict).poll(context);
        verdict.map(|verdict| verdict.unwrap_or(Verdict::Unavailable))
    }
}

impl Drop for Waiting {
    /// At its deadline a request goes on without the store. Its call goes on too: others may have joined it, and
    /// what it takes is handed back.
    fn drop(&mut self) {
        if let Some(Calling { call, shared }) = self.calling.take() {
            shared.spawn(call);
        }
    }
}
