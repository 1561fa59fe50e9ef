//! From a validated configuration to a snapshot, or everything that stands against it.

use super::{Canary, Gate, Route, RouteState, Snapshot};
use crate::auth::api_key::ApiKeys;
use crate::auth::{Authenticator, Client};
use crate::config::{self, Config, Loaded, Mode, Problem};
use crate::policy::Policy;
use crate::route::{self, RouteMatch, RouteTable};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Compiles routes and policies, which the configuration alone cannot judge. What did not change since `previous`
/// is taken over from it: an upstream keeps what it knows of its peers and who is in its queue.
pub fn assemble(
    loaded: &Loaded,
    metrics: &Metrics,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Vec<Problem>> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let policies = compile_policies(loaded, metrics, &mut problems);
    let by_route = policies_by_route(config, &policies);
    check_costs(loaded, &policies, &by_route, &mut problems);
    let table = match RouteTable::build(config.routes.iter().map(route_match).collect()) {
        Ok(table) => Some(table),
        Err(errors) => {
            problems.extend(errors.iter().map(|error| {
                loaded.problem(
                    &["routes".into(), error.index.into(), "match".into()],
                    error.to_string(),
                    None,
                )
            }));
            None
        }
    };
    let (Some(table), true) = (table, problems.is_empty()) else {
        return Err(problems);
    };
    let upstreams = upstreams(config, previous);
    let routes = routes(config, &policies, by_route, metrics, previous);
    let clients = clients(config);
    Ok(Snapshot {
        table,
        routes,
        policies,
        upstreams,
        authenticator: authenticator(config, &clients),
        clients,
        trusted_proxies: config.trusted_proxies.clone(),
        response_headers: config.response_headers,
        server_name: config
            .server
            .user_agent_header
            .as_deref()
            .and_then(|name| name.parse().ok()),
        health_path: config.server.health_path.clone(),
        health_detail: config.server.health_detail,
        shown: loaded.shown(),
    })
}

fn upstreams(config: &Config, previous: Option<&Snapshot>) -> Vec<Arc<Upstream>> {
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

fn routes(
    config: &Config,
    policies: &[Policy],
    by_route: Vec<Vec<usize>>,
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
    let compile = |(route, policies_of_route): (&config::Route, Vec<usize>)| {
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
            auth: route.auth,
            forward_credentials: route.forward_credentials,
            strip_prefix: route.strip_prefix.clone(),
            max_body_bytes: route.max_body_bytes,
            forwarded_header: route.forwarded_header,
            announced: announced(policies, &policies_of_route),
            policies: policies_of_route,
            metrics: metrics.route(&route.name),
        }
    };
    config.routes.iter().zip(by_route).map(compile).collect()
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

/// A request must fit into its bucket at all, also where its route multiplies the cost.
fn check_costs(
    loaded: &Loaded,
    policies: &[Policy],
    by_route: &[Vec<usize>],
    problems: &mut Vec<Problem>,
) {
    for (index, (route, applied)) in loaded.config.routes.iter().zip(by_route).enumerate() {
        let factor = u64::from(route.settings.cost);
        let too_much = applied
            .iter()
            .filter_map(|&policy| policies.get(policy))
            .find(|policy| policy.cost().saturating_mul(factor) > policy.smallest_capacity());
        if let Some(policy) = too_much.filter(|_| factor > 1) {
            let path = [
                "routes".into(),
                index.into(),
                "settings".into(),
                "cost".into(),
            ];
            let message = format!(
                "{factor} times the cost of policy `{}` is more than its smallest quota can hold",
                policy.name()
            );
            let hint = format!(
                "write at most {}",
                policy.smallest_capacity() / policy.cost().max(1)
            );
            problems.push(loaded.problem(&path, message, Some(hint)));
        }
    }
}

fn compile_policies(
    loaded: &Loaded,
    metrics: &Metrics,
    problems: &mut Vec<Problem>,
) -> Vec<Policy> {
    let mut policies = Vec::new();
    for (name, source) in &loaded.config.policies {
        match Policy::compile(source, metrics) {
            // a policy that is off must be right all the same, or switching it on would fail
            Ok(policy) if source.mode != Mode::Off => policies.push(policy),
            Ok(_) => (),
            Err(bad) => problems.extend(bad.into_iter().map(|bad| {
                let path = ["policies".into(), name.as_str().into()];
                let path: Vec<_> = path
                    .into_iter()
                    .chain(bad.path.iter().map(|key| key.as_str().into()))
                    .collect();
                loaded.problem(&path, bad.message.clone(), None)
            })),
        }
    }
    policies
}

fn route_match(route: &config::Route) -> RouteMatch {
    RouteMatch {
        name: route.name.clone(),
        hosts: route.hosts.clone(),
        path: match &route.path {
            config::PathPattern::Prefix(path) => route::PathPattern::Prefix(path.clone()),
            config::PathPattern::Exact(path) => route::PathPattern::Exact(path.clone()),
            config::PathPattern::Regex(path) => route::PathPattern::Regex(path.clone()),
        },
        methods: route.methods.clone(),
        raw_path: route.raw_path,
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

/// For every route the indices of its policies: looked up once here, never per request.
fn policies_by_route(config: &Config, policies: &[Policy]) -> Vec<Vec<usize>> {
    let position: HashMap<&str, usize> = config
        .routes
        .iter()
        .enumerate()
        .map(|(index, route)| (route.name.as_str(), index))
        .collect();
    let mut by_route = vec![Vec::new(); config.routes.len()];
    for (index, policy) in policies.iter().enumerate() {
        match config
            .policies
            .get(policy.name())
            .and_then(|source| source.routes.as_ref())
        {
            None => by_route.iter_mut().for_each(|list| list.push(index)),
            Some(names) => {
                let named = names
                    .iter()
                    .filter_map(|name| position.get(name.as_str()).copied());
                for route in named.collect::<BTreeSet<usize>>() {
                    if let Some(list) = by_route.get_mut(route) {
                        list.push(index);
                    }
                }
            }
        }
    }
    by_route
}

fn announced(policies: &[Policy], applied: &[usize]) -> Option<http::HeaderValue> {
    let applied = applied.iter().filter_map(|&index| policies.get(index));
    let enforced = applied.filter(|policy| policy.enforces());
    let items: Vec<&str> = enforced
        .map(|policy| policy.quota(0).announced.as_str())
        .collect();
    items.join(", ").parse().ok()
}

fn clients(config: &Config) -> HashMap<String, Arc<Client>> {
    let client = |(id, written): (&String, &config::Client)| {
        let client = Client::new(id, written.tier.clone());
        (id.clone(), Arc::new(client))
    };
    config.clients.iter().map(client).collect()
}

fn authenticator(config: &Config, clients: &HashMap<String, Arc<Client>>) -> Authenticator {
    let keys = config.clients.iter().flat_map(|(id, written)| {
        let client = clients.get(id);
        let digests = written.api_keys.iter();
        digests.filter_map(move |digest| Some((*digest, client?.clone())))
    });
    Authenticator::new(config.auth.api_key_header.clone(), ApiKeys::new(keys))
}
