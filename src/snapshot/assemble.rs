//! From a validated configuration to a snapshot, or everything that stands against it.

use super::{Route, Snapshot};
use crate::auth::api_key::ApiKeys;
use crate::auth::{Authenticator, Client};
use crate::config::{self, Config, Loaded, Mode, Problem};
use crate::policy::Policy;
use crate::route::{self, RouteMatch, RouteTable};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Compiles routes and policies, which the configuration alone cannot judge.
pub fn assemble(loaded: &Loaded, metrics: &Metrics) -> Result<Snapshot, Vec<Problem>> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let policies = compile_policies(loaded, metrics, &mut problems);
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
    let upstreams: Vec<Arc<Upstream>> = config
        .upstreams
        .iter()
        .map(|(name, upstream)| Arc::new(Upstream::new(name, upstream)))
        .collect();
    let upstream_index: HashMap<&str, usize> = config
        .upstreams
        .keys()
        .enumerate()
        .map(|(index, name)| (name.as_str(), index))
        .collect();
    let by_route = policies_by_route(config, &policies);
    let routes = config
        .routes
        .iter()
        .enumerate()
        .map(|(index, route)| Route {
            name: route.name.clone(),
            takes: takes(route),
            upstream: upstream_index
                .get(route.upstream.as_str())
                .copied()
                .unwrap_or_default(),
            auth: route.auth,
            forward_credentials: route.forward_credentials,
            strip_prefix: route.strip_prefix.clone(),
            max_body_bytes: route.max_body_bytes,
            forwarded_header: route.forwarded_header,
            announced: announced(&policies, by_route.get(index)),
            policies: by_route.get(index).cloned().unwrap_or_default(),
            metrics: metrics.route(&route.name),
        });
    let clients = clients(config);
    Ok(Snapshot {
        table,
        routes: routes.collect(),
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

fn announced(policies: &[Policy], applied: Option<&Vec<usize>>) -> Option<http::HeaderValue> {
    let applied = applied?.iter().filter_map(|&index| policies.get(index));
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
