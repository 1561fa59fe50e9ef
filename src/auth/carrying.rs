//! What was verified stays verified over a change of the snapshot, while nothing changes that it depends on.

use super::Authenticator;
use std::sync::Arc;

impl Authenticator {
    /// Takes over what `previous` remembers, as far as it would be found out again just the same.
    pub(super) fn carry_over(&mut self, previous: &Authenticator) {
        if self.keys.is_same(&previous.keys) {
            self.keys = previous.keys.clone();
            self.remembered = previous.remembered.clone();
        }
        // a password proves a name; its client is that of the file
        if let (Some(new), Some(old)) = (&self.passwords, &previous.passwords)
            && new.is_same(old)
            && self.clients == previous.clients
        {
            self.passwords = Some(old.clone());
        }
        if !self.names_like(previous) {
            return;
        }
        if let (Some(new), Some(old)) = (&self.tokens, &previous.tokens)
            && new.verifier.is_same(&old.verifier)
        {
            self.tokens = Some(old.clone());
        }
        if self.lookups.is_some() && Arc::ptr_eq(&self.sources, &previous.sources) {
            self.lookups.clone_from(&previous.lookups);
        }
    }

    /// Does an id with a tier mean the same client to both?
    pub fn names_like(&self, other: &Authenticator) -> bool {
        self.tiers.is_same(&other.tiers) && self.clients == other.clients
    }

    /// Forgets what `next` has not taken over. A request that lasts for hours holds on to its
    /// snapshot, and must not hold on to all that was remembered with it.
    pub fn forget_what_is_not_in(&self, next: &Authenticator) {
        if !Arc::ptr_eq(&self.remembered, &next.remembered) {
            self.remembered.clear();
        }
        if let Some(passwords) = without(&self.passwords, &next.passwords) {
            passwords.recent.clear();
        }
        if let Some(tokens) = without(&self.tokens, &next.tokens) {
            tokens.recent.clear();
        }
        if let Some(lookups) = without(&self.lookups, &next.lookups) {
            lookups.clients.clear();
        }
    }
}

/// Something that is not the next one.
fn without<'t, T>(this: &'t Option<Arc<T>>, next: &Option<Arc<T>>) -> Option<&'t Arc<T>> {
    let is_next = |this: &&Arc<T>| next.as_ref().is_some_and(|next| Arc::ptr_eq(this, next));
    this.as_ref().filter(|this| !is_next(this))
}
