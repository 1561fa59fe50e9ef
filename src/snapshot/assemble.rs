//! From a validated configuration to a snapshot, or everything that stands against it.

use super::Snapshot;
use super::routes::{forward_auth, routes, upstreams};
use crate::auth::{Authenticator, Client, Sources};
use crate::config::{self, Config, Loaded, Mode, Problem};
use crate::limit::quota::Quota;
use crate::policy::Policy;
use crate::route::{self, RouteMatch, RouteTable};
use crate::telemetry::Metrics;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Compiles routes and policies, which the configuration alone cannot judge. What did not change since `previous`
/// is taken over from it: an upstream keeps what it knows of its peers and who is in its queue.
pub fn assemble(
    loaded: &Loaded,
    metrics: &Metrics,
    sources: &Arc<Sources>,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Vec<Problem>> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let policies = compile_policies(loaded, metrics, &mut problems);
    let by_route = policies_by_route(config, &policies);
    let conflicts = cost_conflicts(loaded, &policies, &by_route);
    // where rows come together with a file, each may be right alone; what then happens is defined: 429
    if !loaded.has_rows() {
        problems.extend(conflicts.iter().cloned());
    }
    let table = table(loaded, &mut problems);
    let clients = clients(config);
    let authenticator = authenticator(loaded, &clients, sources, previous, &mut problems);
    let failures = failures(loaded, &mut problems);
    let (Some(table), Some(authenticator), Some(failures), true) =
        (table, authenticator, failures, problems.is_empty())
    else {
        return Err(problems);
    };
    let upstreams = upstreams(config, previous);
    let asked = forward_auth(config, sources, &authenticator, previous);
    let routes = routes(config, &policies, by_route, asked, metrics, previous);
    Ok(Snapshot {
        table,
        routes,
        policies,
        upstreams,
        authenticator,
        failures,
        conflicts,
        clients,
        tiers: config.tiers.clone(),
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

fn failures(loaded: &Loaded, problems: &mut Vec<Problem>) -> Option<Quota> {
    let guard = &loaded.config.auth.failures;
    let period_us = u64::try_from(guard.period.as_micros()).unwrap_or(u64::MAX);
    crate::auth::failures::quota(guard.count, period_us)
        .map_err(|bad| {
            let path = ["auth".into(), "failures".into()];
            problems.push(loaded.problem(&path, bad.to_string(), None));
        })
        .ok()
}

fn table(loaded: &Loaded, problems: &mut Vec<Problem>) -> Option<RouteTable> {
    match RouteTable::build(loaded.config.routes.iter().map(route_match).collect()) {
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
    }
}

/// A request must fit into its bucket at all, also where its route multiplies the cost.
fn cost_conflicts(loaded: &Loaded, policies: &[Policy], by_route: &[Vec<usize>]) -> Vec<Problem> {
    let mut conflicts = Vec::new();
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
            conflicts.push(loaded.problem(&path, message, Some(hint)));
        }
    }
    conflicts
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

fn clients(config: &Config) -> HashMap<String, Arc<Client>> {
    // one text for all clients of a tier
    let tiers: BTreeSet<Arc<str>> = config
        .tiers
        .iter()
        .map(|tier| tier.as_str().into())
        .collect();
    // one that does not exist is kept: it still comes before what a token claims
    let shared = |tier: &str| tiers.get(tier).cloned().unwrap_or_else(|| tier.into());
    let client = |(id, written): (&String, &config::Client)| {
        let tier = written.tier.as_deref();
        let client = Client::new(id, tier.map(shared));
        (id.clone(), Arc::new(client))
    };
    config.clients.iter().map(client).collect()
}

fn authenticator(
    loaded: &Loaded,
    clients: &HashMap<String, Arc<Client>>,
    sources: &Arc<Sources>,
    previous: Option<&Snapshot>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<Authenticator>> {
    let previous = previous.map(|snapshot| snapshot.authenticator.as_ref());
    match Authenticator::compile(&loaded.config, clients, sources, previous) {
        Ok(authenticator) => Some(Arc::new(authenticator)),
        Err(bad) => {
            problems.extend(bad.into_iter().map(|bad| {
                let path: Vec<_> = ["auth".into()].into_iter().chain(bad.path).collect();
                loaded.problem(&path, bad.message, Some(bad.hint))
            }));
            None
        }
    }
}
