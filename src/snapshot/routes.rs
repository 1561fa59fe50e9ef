//! Routes and upstreams of a snapshot; what did not change is taken over from the one before.

use super::{Addresses, Canary, Gate, Route, RouteState, Snapshot};
use crate::auth::forward_auth::ForwardAuth;
use crate::auth::{Authenticator, Sources};
use crate::config::{self, Config};
use crate::policy::Policy;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Every upstream by name; one that did not change stays as it is.
pub(super) fn upstreams(config: &Config, previous: Option<&Snapshot>) -> Vec<Arc<Upstream>> {
    let known: HashMap<&str, &Arc<Upstream>> = previous
        .into_iter()
        .flat_map(|snapshot| &snapshot.upstreams)
        .map(|upstream| (upstream.name(), upstream))
        .collect();
    let upstream = |(name, settings): (&String, &config::Upstream)| {
        let same = known
            .get(name.as_str())
            .filter(|known| known.settings() == settings);
        same.map_or_else(
            || Arc::new(Upstream::new(name, settings)),
            |&same| same.clone(),
        )
    };
    config.upstreams.iter().map(upstream).collect()
}

/// For every route whom it asks. One that did not change keeps its answers, unless the names in them
/// mean other clients now.
pub(super) fn forward_auth(
    config: &Config,
    sources: &Arc<Sources>,
    authenticator: &Authenticator,
    previous: Option<&Snapshot>,
) -> Vec<Option<Arc<ForwardAuth>>> {
    let previous = previous.filter(|previous| authenticator.names_like(&previous.authenticator));
    let known: HashMap<&str, &Arc<ForwardAuth>> = previous
        .into_iter()
        .flat_map(|snapshot| &snapshot.routes)
        .filter_map(|route| Some((route.name.as_str(), route.forward_auth.as_ref()?)))
        .collect();
    let asked = |route: &config::Route| {
        let asked = route.forward_auth.as_ref()?;
        let same = known
            .get(route.name.as_str())
            .filter(|known| known.asks_like(asked, &route.name));
        Some(same.map_or_else(
            || Arc::new(ForwardAuth::new(asked, &route.name, sources)),
            |&same| same.clone(),
        ))
    };
    config.routes.iter().map(asked).collect()
}

/// Every route in the order of the file.
pub(super) fn routes(
    config: &Config,
    policies: &[Policy],
    by_route: Vec<Vec<usize>>,
    asked: Vec<Option<Arc<ForwardAuth>>>,
    metrics: &Metrics,
    previous: Option<&Snapshot>,
) -> Vec<Route> {
    let upstreams: HashMap<&str, usize> = config
        .upstreams
        .keys()
        .enumerate()
        .map(|(index, name)| (name.as_str(), index))
        .collect();
    let upstream = |name: &str| upstreams.get(name).copied().unwrap_or_default();
    let gates: HashMap<&str, &Arc<Gate>> = previous
        .into_iter()
        .flat_map(|snapshot| &snapshot.routes)
        .filter_map(|route| Some((route.name.as_str(), route.gate.as_ref()?)))
        .collect();
    let compile =
        |((route, policies_of_route), forward_auth): ((&config::Route, Vec<usize>), _)| {
            let settings = &route.settings;
            let chosen = settings.upstream.as_ref().unwrap_or(&route.upstream);
            Route {
                name: route.name.clone(),
                takes: takes(route),
                state: state(settings),
                upstream: upstream(chosen),
                canary: settings.canary.as_ref().map(|canary| Canary {
                    upstream: upstream(&canary.upstream),
                    percent: canary.percent,
                }),
                read_timeout: settings.timeout,
                gate: settings
                    .max_concurrent
                    .map(|places| gate(places, gates.get(route.name.as_str()).copied())),
                cost: u64::from(settings.cost),
                addresses: Addresses::new(route.allow.clone(), route.deny.clone()),
                auth: route.auth,
                scopes: route.scopes.clone(),
                forward_auth,
                forward_credentials: route.forward_credentials,
                strip_prefix: route.strip_prefix.clone(),
                max_body_bytes: route.max_body_bytes,
                forwarded_header: route.forwarded_header,
                announced: announced(policies, &policies_of_route),
                policies: policies_of_route,
                metrics: metrics.route(&route.name),
            }
        };
    let routes = config.routes.iter().zip(by_route).zip(asked);
    routes.map(compile).collect()
}

fn state(settings: &config::RouteSettings) -> RouteState {
    match (settings.enabled, settings.maintenance) {
        (false, _) => RouteState::Disabled,
        (true, true) => RouteState::Maintenance,
        (true, false) => RouteState::Enabled,
    }
}

/// The bound on a route's requests in flight: the one there is, with who is in it, unless its size changed.
fn gate(places: u32, known: Option<&Arc<Gate>>) -> Arc<Gate> {
    match known.filter(|known| known.max_concurrent() == Some(places)) {
        Some(known) => known.clone(),
        None => Arc::new(Gate::new(Some(places), 0, Duration::ZERO)),
    }
}

/// Which requests a route takes, in words.
fn takes(route: &config::Route) -> String {
    let hosts = match route.hosts.as_slice() {
        [] => "any host".to_owned(),
        hosts => format!("host {}", hosts.join(" or ")),
    };
    let path = match &route.path {
        config::PathPattern::Prefix(path) if path == "/" => "any path".to_owned(),
        config::PathPattern::Prefix(path) => format!("path below {path}"),
        config::PathPattern::Exact(path) => format!("path {path}"),
        config::PathPattern::Regex(path) => format!("path matching {path}"),
    };
    let methods = match &route.methods {
        None => "any method".to_owned(),
        Some(methods) => {
            let names: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
            format!("method {}", names.join(" or "))
        }
    };
    format!("{hosts}, {path}, {methods}")
}

/// The `RateLimit-Policy` of a route where all policies hold with their own quotas.
fn announced(policies: &[Policy], applied: &[usize]) -> Option<http::HeaderValue> {
    let applied = applied.iter().filter_map(|&index| policies.get(index));
    let enforced = applied.filter(|policy| policy.enforces());
    let items: Vec<&str> = enforced
        .map(|policy| policy.quota(0).announced.as_str())
        .collect();
    items.join(", ").parse().ok()
}
