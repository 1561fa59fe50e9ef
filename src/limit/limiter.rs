//! The limiter: one of two stores, behind one question.

use super::batch::Verdict;
use super::decision::{Charge, Decision};
use super::descriptor::BucketKey;
use super::shared::{Condition, Permits, Shared, Waiting};
use super::store::memory::MemoryStore;
use super::store::redis::link::CallFailed;
use std::sync::Arc;

/// Where buckets live: in Redis, shared by all gateways, or in this process.
pub struct Limiter {
    memory: MemoryStore,
    shared: Option<Arc<Shared>>,
}

/// An answer, at once or later.
pub enum Spending {
    /// decided in this process
    Decided(Decision),
    /// the store has been asked
    Waiting(Waiting),
}

impl Limiter {
    /// Buckets in this process, at most `max_keys`.
    pub fn embedded(max_keys: usize) -> Self {
        Limiter {
            memory: MemoryStore::new(max_keys),
            shared: None,
        }
    }

    /// Buckets shared by all gateways.
    pub fn shared(shared: Arc<Shared>) -> Self {
        Limiter {
            memory: MemoryStore::new(1),
            shared: Some(shared),
        }
    }

    /// Takes every cost from its bucket, or none of them.
    pub fn spend(&self, charges: &[Charge<'_>], now_us: u64) -> Spending {
        let Some(shared) = &self.shared else {
            return Spending::Decided(self.memory.spend(charges, now_us));
        };
        match shared.spend(charges, now_us) {
            Ok(waiting) => Spending::Waiting(waiting),
            Err(decision) => Spending::Decided(decision),
        }
    }

    /// From the store's verdict to a decision: without one, outage modes decide.
    pub fn decided(
        &self,
        verdict: Verdict,
        charges: &[Charge<'_>],
        now_us: u64,
    ) -> (Decision, Option<Permits>) {
        match (verdict, &self.shared) {
            (Verdict::Decided(decision, permits), _) => (decision, permits),
            (Verdict::Unavailable, Some(shared)) => (shared.alone(charges, now_us), None),
            (Verdict::Unavailable, None) => (self.memory.spend(charges, now_us), None),
        }
    }

    /// What is left in a bucket now; takes nothing.
    pub async fn peek(&self, charge: &Charge<'_>, now_us: u64) -> Result<Decision, CallFailed> {
        match &self.shared {
            Some(shared) => shared.peek(charge).await,
            None => Ok(self.memory.peek(std::slice::from_ref(charge), now_us)),
        }
    }

    /// Empties buckets, for every gateway.
    pub async fn reset(&self, keys: &[BucketKey]) -> Result<(), CallFailed> {
        match &self.shared {
            Some(shared) => shared.reset(keys).await,
            None => {
                keys.iter().for_each(|key| self.memory.forget(key));
                Ok(())
            }
        }
    }

    /// Gives back units of a `concurrency` bucket that were taken in this process.
    pub fn release(&self, key: &BucketKey, cost: u64) {
        match &self.shared {
            Some(shared) => shared.release_local(key, cost),
            None => self.memory.release(key, cost),
        }
    }

    /// Policies have changed: nothing that was granted or refused ahead by the old ones counts any more.
    pub fn policies_changed(&self) {
        if let Some(shared) = &self.shared {
            shared.policies_changed();
        }
    }

    /// Gives back what this process holds in a shared store, within a fraction of a second: it is
    /// about to end, and decides no request any more.
    pub async fn stop(&self) {
        if let Some(shared) = &self.shared {
            shared.stop().await;
        }
    }

    /// The shared store, if there is one.
    pub fn shared_store(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
    }

    /// How the shared store is; `None`: there is none.
    pub fn condition(&self) -> Option<Condition> {
        self.shared.as_ref().map(|shared| shared.condition())
    }

    /// The buckets of this process.
    pub fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// Forgets what has expired; `turn` grows by one at each call.
    pub fn sweep(&self, turn: usize, now_us: u64) {
        match &self.shared {
            Some(shared) => shared.sweep(turn, now_us),
            None => self.memory.sweep(turn, now_us),
        }
    }
}
