//! Resets: a bucket emptied by one gateway is empty for all of them, at once.

use super::Shared;
use crate::limit::descriptor::BucketKey;
use crate::limit::store::redis::link::CallFailed;
use crate::limit::store::redis::wire;
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Most buckets in one call.
const MOST: usize = 64;

/// Between attempts to subscribe.
const RETRY: Duration = Duration::from_millis(200);

impl Shared {
    /// Empties buckets in the store and tells every gateway, this one included.
    pub async fn reset(&self, keys: &[BucketKey]) -> Result<(), CallFailed> {
        for some in keys.chunks(self.at_once(MOST)) {
            let prefix = self.prefix_of(some.first());
            let call = wire::reset(&prefix, &self.channel(), some);
            self.call_patiently(&call).await?;
            some.iter().for_each(|key| self.forget(key));
        }
        Ok(())
    }

    /// Policies have changed: what is remembered of the old ones is forgotten.
    pub fn policies_changed(&self) {
        self.refusals.clear();
    }

    /// Hears of resets. While it cannot, no refusal is remembered: nobody would tell that it does
    /// not hold any more.
    pub(super) async fn listen(self: Arc<Self>) {
        loop {
            // what ended the subscription before says nothing of the next one
            let _ = self.deaf.notified().now_or_never();
            if self.link.is_up()
                && let Ok(mut subscription) = self.link.subscribe(&self.channel()).await
            {
                self.listening.store(true, Ordering::Relaxed);
                let mut messages = subscription.on_message();
                loop {
                    tokio::select! {
                        message = messages.next() => match message {
                            Some(message) => self.hears(message.get_payload_bytes()),
                            None => break,
                        },
                        // the other end may be gone without a word
                        () = self.deaf.notified() => break,
                    }
                }
                self.listening.store(false, Ordering::Relaxed);
                self.refusals.clear();
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn hears(&self, message: &[u8]) {
        let prefix = self.settings.prefix.as_bytes();
        message
            .split(|&byte| byte == b' ')
            .filter_map(|key| BucketKey::read(untagged(key.strip_prefix(prefix)?)))
            .for_each(|key| self.forget(&key));
    }

    fn forget(&self, key: &BucketKey) {
        self.refusals.forget(key);
        self.leases.forget(key);
        self.outage.forget(key);
    }

    fn channel(&self) -> String {
        format!("{}resets", self.settings.prefix)
    }
}

/// A key without the hash tag it has in a cluster.
fn untagged(key: &[u8]) -> &[u8] {
    match key.iter().position(|&byte| byte == b'}') {
        Some(end) if key.first() == Some(&b'{') => key.get(end + 1..).unwrap_or_default(),
        _ => key,
    }
}
