//! Which buckets follow from a client or an address, without a request.

use super::{Route, Snapshot};
use crate::auth::Client;
use crate::limit::decision::Charge;
use crate::limit::descriptor::BucketKey;
use crate::policy::{Facts, Policy};
use http::{HeaderMap, Method};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

/// A bucket and the policy it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// which bucket
    pub key: BucketKey,
    /// index into the snapshot's policies
    pub policy: usize,
    /// which of the policy's quotas holds
    pub quota: usize,
}

/// Whose buckets.
pub enum Whose<'a> {
    /// those of a client
    Client(&'a Client),
    /// those of an address nobody is authenticated at
    Address(IpAddr),
}

impl Snapshot {
    /// The buckets that follow from client or address, tier and routes. Those that also need a
    /// request's method, host, path or headers are not among them; a bucket's key names them.
    pub fn buckets_of(&self, whose: &Whose<'_>, now_us: u64) -> Vec<Named> {
        let mut seen = HashSet::new();
        let mut buckets = Vec::new();
        for route in &self.routes {
            for &index in &route.policies {
                let Some(policy) = self.policies.get(index) else {
                    continue;
                };
                if policy.needs_a_request() {
                    continue;
                }
                let named = named(policy, index, route, whose, now_us);
                if seen.insert(named.key) {
                    buckets.push(named);
                }
            }
        }
        buckets
    }

    /// The policy a bucket belongs to, by the policy's name in its key. `None` for a key that is a
    /// hash, and for one of no policy. The quota is the policy's own.
    pub fn bucket(&self, key: &BucketKey) -> Option<Named> {
        let text = key.to_string();
        let name = text.split(':').nth(1)?;
        let policy = self
            .policies
            .iter()
            .position(|policy| policy.name() == name)?;
        Some(Named {
            key: *key,
            policy,
            quota: 0,
        })
    }

    /// What one request would take from a bucket.
    pub fn charge(&self, named: &Named) -> Option<Charge<'_>> {
        let policy = self.policies.get(named.policy)?;
        let quota = policy.quota(named.quota);
        Some(Charge {
            key: named.key,
            quota: &quota.quota,
            cost: policy.cost(),
            enforce: policy.enforces(),
            terms: quota.terms,
        })
    }
}

fn named(policy: &Policy, index: usize, route: &Route, whose: &Whose<'_>, now_us: u64) -> Named {
    let (client, ip) = match whose {
        Whose::Client(client) => (Some(*client), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Whose::Address(ip) => (None, *ip),
    };
    let tier = client.and_then(|client| client.tier.as_deref());
    let client = client.map(|client| client.id.as_str());
    let facts = Facts {
        client,
        tier,
        ip,
        route: &route.name,
        method: &Method::GET,
        host: "",
        path: "",
        headers: &HeaderMap::new(),
        claims: &[],
    };
    Named {
        key: policy.bucket_key(&facts),
        policy: index,
        quota: policy.quota_for(client, tier, now_us),
    }
}
