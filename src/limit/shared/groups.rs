//! A cluster: buckets live together by client or by route, so a request may need several calls.
//!
//! They are made from the narrowest scope to the widest. What a later group refuses is refunded to
//! the earlier ones; in between, another request may have been refused by units that were held for
//! a moment. Nothing is ever admitted beyond a quota.

use super::Shared;
use crate::limit::descriptor::{BucketKey, Scope};
use crate::limit::store::redis::link::CallFailed;
use crate::limit::store::redis::wire::{Bucket, Buckets, Granted, Set};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

/// The buckets of one group by their places in the set.
type Places = SmallVec<[usize; 2]>;

impl Shared {
    /// What the keys of a call begin with: in a cluster, a hash tag as well.
    pub(super) fn prefix_of(&self, key: Option<&BucketKey>) -> Cow<'_, str> {
        let prefix = self.settings.prefix.as_str();
        match key {
            Some(key) if self.link.is_cluster() => {
                let (_, tag) = key.group();
                Cow::Owned(format!("{prefix}{{{tag}}}"))
            }
            _ => Cow::Borrowed(prefix),
        }
    }

    /// How many buckets or sets go into one call: in a cluster each has a place of its own.
    pub(super) fn at_once(&self, most: usize) -> usize {
        if self.link.is_cluster() { 1 } else { most }
    }

    /// Decides about the requests of all sets: in one call, or in a cluster in one for each group.
    pub(super) async fn spend_in_store(
        self: &Arc<Self>,
        sets: &[Set],
    ) -> Result<Vec<Granted>, CallFailed> {
        if !self.link.is_cluster() {
            return self.spend_in_one_call(sets).await;
        }
        let mut granted = Vec::with_capacity(sets.len());
        for set in sets {
            granted.push(self.spend_by_groups(set).await?);
        }
        Ok(granted)
    }

    async fn spend_by_groups(self: &Arc<Self>, set: &Set) -> Result<Granted, CallFailed> {
        let groups = groups_of(&set.buckets);
        let mut whole = Granted {
            now_us: 0,
            granted: set.requests,
            buckets: SmallVec::new(),
        };
        let mut buckets: Vec<Option<Bucket>> = vec![None; set.buckets.len()];
        let mut charged: Vec<(Set, Granted)> = Vec::with_capacity(groups.len());
        for places in &groups {
            let part = Set {
                buckets: Arc::new(
                    places
                        .iter()
                        .filter_map(|place| set.buckets.get(*place).cloned())
                        .collect(),
                ),
                requests: whole.granted,
                // units of several groups cannot be leased in one step
                extra: if groups.len() == 1 { set.extra } else { 0 },
                lease_us: set.lease_us,
            };
            let reply = self.spend_in_one_call(std::slice::from_ref(&part)).await;
            let granted = match reply.map(|replies| replies.into_iter().next()) {
                Ok(Some(granted)) => granted,
                failed => {
                    self.give_back_groups(&charged, 0);
                    return Err(failed.err().unwrap_or(CallFailed::NotConnected));
                }
            };
            for (place, bucket) in places.iter().zip(&granted.buckets) {
                if let Some(known) = buckets.get_mut(*place) {
                    *known = Some(bucket.clone());
                }
            }
            whole.now_us = granted.now_us;
            whole.granted = granted.granted;
            charged.push((part, granted));
        }
        self.give_back_groups(&charged, whole.granted);
        whole.buckets = buckets.into_iter().flatten().collect();
        Ok(whole)
    }

    /// What a later group refused goes back to the earlier ones.
    fn give_back_groups(self: &Arc<Self>, charged: &[(Set, Granted)], kept: u64) {
        for (set, granted) in charged {
            let unused = granted.granted.saturating_sub(kept);
            if unused > 0 {
                self.hand_back(set, granted, unused);
                self.release_unclaimed(set, granted, kept..granted.granted);
            }
        }
    }
}

/// Which buckets live together, the narrowest scope first.
fn groups_of(buckets: &Buckets) -> Vec<Places> {
    let mut groups: Vec<(Scope, &str, Places)> = Vec::new();
    for (place, wanted) in buckets.iter().enumerate() {
        let (scope, tag) = wanted.key.group();
        match groups
            .iter_mut()
            .find(|(other, name, _)| (*other, *name) == (scope, tag))
        {
            Some((_, _, places)) => places.push(place),
            None => groups.push((scope, tag, std::iter::once(place).collect())),
        }
    }
    groups.sort_by_key(|(scope, _, _)| *scope);
    groups.into_iter().map(|(_, _, places)| places).collect()
}
