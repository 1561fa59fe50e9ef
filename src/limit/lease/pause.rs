//! A hot set that takes no more for a while, because little is left in one of its buckets.

use super::Leases;
use crate::limit::batch::SetId;
use smallvec::SmallVec;
use std::sync::Arc;

/// Little is left in a bucket, so what comes back is taken in portions: until the next one, requests
/// beyond what is in hand are refused.
pub struct Pause<G> {
    /// when the next portion may be taken
    pub until_us: u64,
    /// of which buckets of the set little is left
    pub scarce: SmallVec<[bool; 2]>,
    /// what the store said
    pub granted: Arc<G>,
}

impl<G> Leases<G> {
    /// Takes no more for a set until then, where it is hot.
    pub fn pause(&self, id: SetId, pause: Option<Pause<G>>) {
        if let Some(hot) = self.shard(id).lock().get_mut(&id.0) {
            hot.pause = pause;
        }
    }

    /// Whether a set has to wait for its next portion.
    pub fn paused(&self, id: SetId, now_us: u64) -> Option<Pause<G>> {
        let shard = self.shard(id).lock();
        let pause = shard.get(&id.0)?.pause.as_ref()?;
        (pause.until_us > now_us).then(|| Pause {
            until_us: pause.until_us,
            scarce: pause.scarce.clone(),
            granted: pause.granted.clone(),
        })
    }
}
