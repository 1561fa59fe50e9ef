//! Routes: unique names, one kind of path each, upstreams that exist.

use std::collections::HashMap;

use super::{Names, Review, instead_of, not_empty};
use crate::config::model::{Canary, PathPattern, Route, RouteSettings};
use crate::config::notation::starts_with_segments;
use crate::config::place::Place;
use crate::config::raw;

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
    known_upstream(
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
    known_upstream(
        raw.upstream.as_deref(),
        &place.then("upstream"),
        names,
        review,
    );
    let canary = raw.canary.and_then(|canary| {
        let place = place.then("canary");
        known_upstream(
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

fn known_upstream(
    name: Option<&str>,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) {
    let Some(name) = name.filter(|name| !names.upstreams.contains(name)) else {
        return;
    };
    let message = format!("there is no upstream {}", review.shown(place));
    review.error(
        place,
        message,
        instead_of(name, &names.upstreams, "upstreams"),
    );
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
