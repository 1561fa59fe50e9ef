//! An explanation, as JSON and as what its words are made of.

use crate::admission::{Applied, Request};
use crate::auth::{Client, Identity};
use crate::config::{KeyPart, RouteAuth};
use crate::limit::algorithm::Answer;
use crate::limit::decision::{BucketDecision, Charge};
use crate::policy::{Origin, Policy};
use crate::snapshot::{Route, Snapshot};
use http::{HeaderName, Method, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What would happen to a request, and why.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The method asked about.
    pub method: String,
    /// The host as routed.
    pub host: String,
    /// The path; normalised where a route was found.
    pub path: String,
    /// The client's address.
    pub ip: String,
    /// What would happen.
    pub outcome: Outcome,
    /// The route; absent: none.
    pub route: Option<Routed>,
    /// Who is calling; absent where it did not come to that, or credentials are not valid.
    pub client: Option<Caller>,
    /// What each policy that applies says.
    pub policies: Vec<PolicyAnswer>,
    /// Policies of the route that do not apply, and why.
    pub not_applied: Vec<String>,
    /// What could not be found out, and why.
    pub not_evaluated: Vec<String>,
}

/// What would happen.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Whether it passes.
    pub verdict: Verdict,
    /// The status of a refusal; null: the upstream answers.
    pub status: Option<u16>,
    /// The same in words.
    pub detail: String,
    /// The policy that speaks for a refusal.
    pub policy: Option<String>,
    /// `Retry-After` of a refusal, in seconds.
    pub retry_after: Option<u64>,
    /// `Allow` of a 405.
    pub allow: Option<String>,
    /// How long the request is held before it is forwarded, in milliseconds.
    pub delay_ms: u64,
}

/// Whether a request passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is forwarded.
    Allowed,
    /// It is answered by the gateway.
    Refused,
    /// That depends on what could not be found out.
    Unknown,
}

/// The route of a request.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Routed {
    /// Its name.
    pub name: String,
    /// Which requests it takes: why it is this one.
    pub takes: String,
    /// Where this request goes.
    pub upstream: String,
    /// Whether that is the canary, which takes some of the clients.
    pub canary: bool,
    /// Whether credentials are looked at.
    pub auth: RouteAuth,
}

/// Who is calling.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Caller {
    /// The client's id; null: nobody is authenticated.
    pub id: Option<String>,
    /// Its tier.
    pub tier: Option<String>,
    /// How that was found out.
    pub found_by: String,
}

/// Where something is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefinedIn {
    /// In the configuration file.
    File,
    /// In the database.
    Database,
}

/// Whose quota holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaOf {
    /// The policy's own.
    Policy,
    /// That of the client's tier.
    Tier,
    /// That of the client.
    Override,
}

/// What one policy says.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PolicyAnswer {
    /// Its name.
    pub policy: String,
    /// Where it is defined.
    pub defined_in: DefinedIn,
    /// Whether it only reports what it would refuse.
    pub shadow: bool,
    /// How it counts.
    pub algorithm: String,
    /// The quota that holds, as the file has it.
    pub quota: serde_json::Value,
    /// Whose quota that is.
    pub quota_of: QuotaOf,
    /// The tier or client whose quota it is.
    pub quota_name: Option<String>,
    /// The bucket; what comes from a header with credentials is masked.
    pub key: String,
    /// Units the request takes.
    pub cost: u64,
    /// Units at most.
    pub limit: u64,
    /// Units left now; null: not known.
    pub remaining: Option<u64>,
    /// Milliseconds until the bucket is whole again; null: not known.
    pub reset_after_ms: Option<u64>,
    /// Whether there is room for the request; null: not known.
    pub has_room: Option<bool>,
    /// Milliseconds until there is; null: there is now, or no wait helps.
    pub retry_after_ms: Option<u64>,
    /// How long it holds the request, in milliseconds.
    pub delay_ms: u64,
}

impl Explanation {
    pub(super) fn about(request: &Request<'_>) -> Self {
        Explanation {
            method: request.method.to_string(),
            host: request.host.to_owned(),
            path: request.path.to_owned(),
            ip: request.ip.to_string(),
            outcome: super::outcome::undecided(),
            route: None,
            client: None,
            policies: Vec::new(),
            not_applied: Vec::new(),
            not_evaluated: Vec::new(),
        }
    }

    pub(super) fn names_what_does_not_apply(
        &mut self,
        snapshot: &Snapshot,
        route: &Route,
        method: &Method,
    ) {
        let policies = route.policies.iter();
        let policies = policies.filter_map(|&index| snapshot.policies.get(index));
        self.not_applied = policies
            .filter(|policy| !policy.applies_to(method))
            .map(|policy| format!("`{}` does not apply to {method}", policy.name()))
            .collect();
    }
}

impl Routed {
    pub(super) fn of(snapshot: &Snapshot, route: &Route) -> Self {
        Routed {
            name: route.name.clone(),
            takes: route.takes.clone(),
            upstream: name_of(snapshot, route.upstream),
            canary: false,
            auth: route.auth,
        }
    }

    /// Once it is known who is calling: a canary takes some of the clients.
    pub(super) fn is_chosen(
        &mut self,
        snapshot: &Snapshot,
        route: &Route,
        client: Option<&str>,
        ip: IpAddr,
    ) {
        let upstream = route.upstream_for(client, ip);
        self.upstream = name_of(snapshot, upstream);
        self.canary = upstream != route.upstream;
    }
}

fn name_of(snapshot: &Snapshot, upstream: usize) -> String {
    let upstream = snapshot.upstream(upstream);
    upstream.map_or_else(String::new, |upstream| upstream.name().to_owned())
}

impl Caller {
    pub(super) fn by_address(ip: IpAddr, why: &str) -> Self {
        Caller {
            id: None,
            tier: None,
            found_by: format!("address {ip}: {why}"),
        }
    }

    pub(super) fn known(snapshot: &Snapshot, client: &Client, identity: &Identity) -> Self {
        let credential = match (identity.api_key_verified, identity.token.is_some()) {
            (true, _) => "API key",
            (false, true) => "token",
            (false, false) => "password",
        };
        let place = match snapshot.clients.get(client.id.as_str()) {
            Some(written) if written.tier == client.tier => "client and tier are from the file",
            Some(_) => "the client is in the file, its tier is from elsewhere",
            None if identity.api_key_verified => "client and tier are from the database",
            None => "the client is the one it names",
        };
        Caller {
            id: Some(client.id.to_string()),
            tier: client.tier.as_deref().map(str::to_owned),
            found_by: format!("{credential}; {place}"),
        }
    }
}

impl DefinedIn {
    fn of(snapshot: &Snapshot, policy: &Policy) -> Self {
        let path = ["policies".into(), policy.name().into()];
        match snapshot.shown.is_row(&path) {
            true => DefinedIn::Database,
            false => DefinedIn::File,
        }
    }
}

impl PolicyAnswer {
    pub(super) fn of(
        snapshot: &Snapshot,
        applied: &Applied,
        charge: &Charge<'_>,
        bucket: &BucketDecision,
        known: bool,
    ) -> Option<Self> {
        let policy = snapshot.policies.get(applied.policy)?;
        let quota = policy.quota(applied.quota);
        let (quota_of, quota_name) = match policy.origin(applied.quota) {
            Origin::Policy => (QuotaOf::Policy, None),
            Origin::Tier(tier) => (QuotaOf::Tier, Some(tier)),
            Origin::Override(client) => (QuotaOf::Override, Some(client)),
        };
        let (delay_us, retry_after_us) = match bucket.answer {
            Answer::Admit { delay_us } => (delay_us, None),
            Answer::Refuse { retry_after_us } => (0, retry_after_us),
        };
        Some(PolicyAnswer {
            policy: policy.name().to_owned(),
            defined_in: DefinedIn::of(snapshot, policy),
            shadow: !policy.enforces(),
            algorithm: policy.algorithm().name().to_owned(),
            quota: serde_json::to_value(&quota.written).unwrap_or_default(),
            quota_of,
            quota_name: quota_name.map(str::to_owned),
            key: shown_key(snapshot, policy, charge),
            cost: charge.cost,
            limit: quota.limit,
            remaining: known.then_some(bucket.reading.remaining),
            reset_after_ms: known.then_some(bucket.reading.reset_after_us.div_ceil(1_000)),
            has_room: known.then_some(bucket.answer.admits()),
            retry_after_ms: retry_after_us.map(|micros| micros.div_ceil(1_000)),
            delay_ms: delay_us.div_ceil(1_000),
        })
    }
}

/// A bucket key holds the values of headers; those of credentials stay with whoever sent them.
fn shown_key(snapshot: &Snapshot, policy: &Policy, charge: &Charge<'_>) -> String {
    let secret = |part: &KeyPart| match part {
        KeyPart::Header(name) => is_credential(snapshot, name),
        _ => false,
    };
    if policy.key().iter().any(secret) {
        return format!("*:{}:***", policy.name());
    }
    charge.key.to_string()
}

fn is_credential(snapshot: &Snapshot, name: &HeaderName) -> bool {
    name == snapshot.authenticator.api_key_header()
        || [
            header::AUTHORIZATION,
            header::PROXY_AUTHORIZATION,
            header::COOKIE,
        ]
        .contains(name)
}
