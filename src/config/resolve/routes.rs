//! Routes: unique names, one kind of path each, upstreams that exist.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use super::auth::WAITS;
use super::{Names, Review, instead_of, not_empty};
use crate::config::model::{Canary, ForwardAuth, PathPattern, Route, RouteAuth, RouteSettings};
use crate::config::notation::{HeaderField, Network, ScopeName, Written, starts_with_segments};
use crate::config::place::Place;
use crate::config::raw;

/// Headers that say where a message ends and what becomes of the connection.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-encoding",
];

/// Headers that only Tidegate sets.
const OURS: [&str; 7] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-tidegate-client",
    "x-tidegate-tier",
];

/// How long an answer of `forward_auth` may hold.
const CACHES: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3_600)];

pub(super) fn resolve(
    raw: Vec<Option<raw::Route>>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) -> Vec<Route> {
    let place = Place::ROOT.then("routes");
    let mut first_of = HashMap::new();
    let mut routes = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let Some(raw) = raw else { continue };
        let place = place.then(index);
        if let Some(name) = &raw.name
            && let Some(first) = first_of.insert(name.value.0.clone(), index)
        {
            let place = place.then("name");
            let message = format!("the name {} is taken", review.shown(&place));
            review.error(
                &place,
                message,
                format!("routes[{first}] has it; names of routes are unique"),
            );
        }
        routes.extend(route(raw, &place, names, review));
    }
    routes
}

fn route(
    raw: raw::Route,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) -> Option<Route> {
    upstream_exists(
        raw.upstream.as_deref(),
        &place.then("upstream"),
        names,
        review,
    );
    let matches = place.then("match");
    not_empty(
        raw.matches.methods.as_ref(),
        &matches.then("methods"),
        review,
    );
    let path = path(&raw.matches, &matches, review);
    let strip_prefix = raw.rewrite.strip_prefix.map(|prefix| prefix.value.0);
    if let (Some(prefix), PathPattern::Prefix(path) | PathPattern::Exact(path)) =
        (&strip_prefix, &path)
        && !starts_with_segments(path, prefix)
        && !review.is_broken(&matches)
    {
        let rewrite = place.then("rewrite");
        let hint = "write a prefix of the route's path, by whole segments";
        review.warning(
            &rewrite.then("strip_prefix"),
            "the route's path does not start with this prefix",
            hint,
        );
    }
    let settings = settings(raw.settings, &place.then("settings"), names, review);
    not_empty(raw.allow.as_ref(), &place.then("allow"), review);
    let scopes = scopes(raw.scopes, raw.auth, &place.then("scopes"), review);
    Some(Route {
        name: raw.name?.value.0,
        hosts: raw
            .matches
            .hosts
            .into_iter()
            .flatten()
            .map(|host| host.value.0)
            .collect(),
        path,
        methods: raw.matches.methods.map(|all| {
            all.into_iter()
                .flatten()
                .map(|method| method.value.0)
                .collect()
        }),
        raw_path: raw.matches.raw_path,
        upstream: raw.upstream?,
        auth: raw.auth,
        allow: raw.allow.map(networks),
        deny: networks(raw.deny),
        scopes,
        forward_auth: forward_auth(raw.forward_auth, &place.then("forward_auth"), review),
        forward_credentials: raw.forward_credentials,
        strip_prefix,
        max_body_bytes: raw.max_body.map(|size| size.value.0),
        forwarded_header: raw.forwarded_header,
        settings,
    })
}

fn settings(
    raw: raw::RouteSettings,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) -> RouteSettings {
    let timeout = place.then("timeout");
    let timeout = raw.timeout.map(|span| review.positive(&span, &timeout));
    upstream_exists(
        raw.upstream.as_deref(),
        &place.then("upstream"),
        names,
        review,
    );
    let canary = raw.canary.and_then(|canary| {
        let place = place.then("canary");
        upstream_exists(
            canary.upstream.as_deref(),
            &place.then("upstream"),
            names,
            review,
        );
        Some(Canary {
            upstream: canary.upstream?,
            percent: canary.weight?,
        })
    });
    RouteSettings {
        enabled: raw.enabled,
        maintenance: raw.maintenance,
        upstream: raw.upstream,
        canary,
        timeout,
        max_concurrent: raw.max_concurrent,
        cost: raw.cost,
    }
}

fn upstream_exists(
    upstream: Option<&str>,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) {
    let missing = upstream.filter(|upstream| !names.upstreams.contains(upstream));
    if let Some(upstream) = missing {
        let message = format!("there is no upstream {}", review.shown(place));
        let hint = instead_of(upstream, &names.upstreams, "upstreams");
        review.error(place, message, hint);
    }
}

fn scopes(
    raw: Vec<Option<Written<ScopeName>>>,
    auth: RouteAuth,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Vec<String> {
    let scopes: Vec<String> = raw
        .into_iter()
        .flatten()
        .map(|scope| scope.value.0)
        .collect();
    if !scopes.is_empty() && auth == RouteAuth::None {
        let message = "this route looks at no credentials, so nobody has a scope";
        review.error(place, message, "write `auth: required` too");
    }
    scopes
}

fn networks(raw: Vec<Option<Written<Network>>>) -> Vec<IpNet> {
    let given = raw.into_iter().flatten();
    given.map(|network| network.value.0).collect()
}

/// Names of headers, none of which is reserved.
fn names(
    raw: Vec<Option<Written<HeaderField>>>,
    reserved: &[&str],
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Vec<http::HeaderName> {
    let mut names = Vec::new();
    for (index, name) in raw.into_iter().enumerate() {
        let Some(name) = name else { continue };
        let name = name.value.0;
        if reserved.contains(&name.as_str()) {
            let place = place.then(index);
            let message = format!("{} cannot be handed on", review.shown(&place));
            let hint = "remove it: it belongs to the connection, or Tidegate sets it itself";
            review.error(&place, message, hint);
        }
        names.push(name);
    }
    names
}

/// Absent without a URL.
fn forward_auth(
    raw: raw::ForwardAuth,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Option<ForwardAuth> {
    let timeout = review.between(&raw.timeout, WAITS, &place.then("timeout"));
    let cache = review.between(&raw.cache, CACHES, &place.then("cache"));
    let url = raw.url.and_then(|url| url.value.0)?;
    let headers = names(raw.headers, &FRAMING, &place.then("headers"), review);
    let ours = [&FRAMING[..], &OURS].concat();
    let copy_headers = names(raw.copy_headers, &ours, &place.then("copy_headers"), review);
    if headers.is_empty() && !cache.is_zero() {
        review.error(
            &place.then("cache"),
            "without `headers` one answer would hold for everybody",
            "name the headers that carry credentials, or remove `cache`",
        );
    }
    if raw.tier_header.is_some() && raw.client_header.is_none() {
        review.error(
            &place.then("tier_header"),
            "a tier without a client says nothing",
            "give `client_header` too",
        );
    }
    Some(ForwardAuth {
        url,
        timeout,
        headers,
        copy_headers,
        client_header: raw.client_header.map(|name| name.value.0),
        tier_header: raw.tier_header.map(|name| name.value.0),
        cache,
    })
}

fn path(raw: &raw::Match, place: &Place<'_>, review: &mut Review<'_>) -> PathPattern {
    let prefix = raw
        .path
        .as_ref()
        .map(|path| ("path", PathPattern::Prefix(path.value.0.clone())));
    let exact = raw
        .path_exact
        .as_ref()
        .map(|path| ("path_exact", PathPattern::Exact(path.value.0.clone())));
    let regex = raw
        .path_regex
        .as_ref()
        .map(|path| ("path_regex", PathPattern::Regex(path.value.0.clone())));
    let mut given = [prefix, exact, regex].into_iter().flatten();
    let Some((first, pattern)) = given.next() else {
        return PathPattern::Prefix(raw::DEFAULT_PATH.to_owned());
    };
    for (key, _) in given {
        let message = format!("`{key}` and `{first}` are both given");
        review.error(
            &place.then(key),
            message,
            "keep one of `path`, `path_exact` and `path_regex`",
        );
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{errors, loaded, problems};

    const UPSTREAM: &str = "upstreams: { u: { peers: [{ address: x:1 }] } }\nroutes:\n";

    #[test]
    fn names_are_unique_and_upstreams_exist() {
        assert_eq!(
            errors(&format!(
                "{UPSTREAM}  - {{ name: a, upstream: u }}\n  - {{ name: a, upstream: v }}\n"
            )),
            [
                "4:13 routes[1].name: the name `a` is taken",
                "4:26 routes[1].upstream: there is no upstream `v`"
            ]
        );
    }

    #[test]
    fn a_route_has_one_kind_of_path() {
        assert_eq!(
            errors(&format!(
                "{UPSTREAM}  - name: a\n    upstream: u\n    match:\n      path: /\n      path_exact: /x\n      path_regex: x\n"
            )),
            [
                "7:19 routes[0].match.path_exact: `path_exact` and `path` are both given",
                "8:19 routes[0].match.path_regex: `path_regex` and `path` are both given",
            ]
        );
    }

    #[test]
    fn a_route_is_read_as_written() {
        let config = loaded(&format!(
            "{UPSTREAM}  - {{ name: a, upstream: u, max_body: 1KiB, match: {{ hosts: ['*.X.com'], methods: [GET], path_exact: /p }} }}\n  - {{ name: b, upstream: u }}\n"
        ))
        .config;
        let route = &config.routes[0];
        assert_eq!(route.hosts, ["*.x.com"]);
        assert_eq!(route.methods, Some(vec![http::Method::GET]));
        assert_eq!(
            (&route.path, route.max_body_bytes),
            (&PathPattern::Exact("/p".into()), Some(1024))
        );
        assert_eq!(
            (&config.routes[1].path, config.routes[1].max_body_bytes),
            (&PathPattern::Prefix("/".into()), None)
        );
    }

    #[test]
    fn networks_scopes_and_forward_auth_are_read_as_written() {
        let config = loaded(&format!(
            "{UPSTREAM}  - {{ name: a, upstream: u, auth: required, allow: [10.0.0.0/8], deny: [10.1.2.3], scopes: ['orders:read'], forward_auth: {{ url: 'http://auth/verify', copy_headers: [X-User] }} }}\n"
        ))
        .config;
        let route = &config.routes[0];
        assert_eq!(route.allow, Some(vec!["10.0.0.0/8".parse().unwrap()]));
        assert_eq!(route.deny, ["10.1.2.3/32".parse().unwrap()]);
        assert_eq!(route.scopes, ["orders:read"]);
        let asked = route.forward_auth.as_ref().unwrap();
        assert_eq!(asked.url, "http://auth/verify");
        assert_eq!(
            asked.headers,
            [http::header::AUTHORIZATION, http::header::COOKIE]
        );
        assert_eq!(asked.copy_headers, ["x-user"]);
        assert_eq!(asked.cache, Duration::ZERO);
    }

    #[test]
    fn what_would_refuse_or_admit_everybody_is_an_error() {
        let found = |rest: &str| {
            errors(&format!(
                "{UPSTREAM}  - {{ name: a, upstream: u, {rest} }}\n"
            ))
        };
        assert!(found("allow: []")[0].contains("routes[0].allow: the list is empty"));
        assert!(found("scopes: [a]")[0].contains("looks at no credentials"));
        assert!(
            found("forward_auth: { url: 'http://x', headers: [], cache: 1s }")[0]
                .contains("for everybody")
        );
        assert!(
            found("forward_auth: { url: 'http://x', tier_header: X-Tier }")[0]
                .contains("tier_header")
        );
        assert!(
            found("forward_auth: { url: 'http://x', cache: 2h }")[0].contains("forward_auth.cache")
        );
    }

    #[test]
    fn an_empty_list_of_methods_and_a_prefix_that_is_never_there_are_noticed() {
        let found = problems(&format!(
            "{UPSTREAM}  - {{ name: a, upstream: u, match: {{ methods: [], path: /api }}, rewrite: {{ strip_prefix: /v1 }} }}\n"
        ));
        assert!(found[0].contains("nothing would ever match"), "{found:?}");
        assert!(
            found[1].contains("warning: routes[0].rewrite.strip_prefix"),
            "{found:?}"
        );
    }
}
