//! All routes, arranged so that finding one costs the same among ten and among ten thousand.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hashbrown::HashMap;
use http::Method;

use super::host;
use super::methods::Methods;
use super::path::{self, Normal, PathProblem};
use super::reading;
use super::tree::{PathTree, Pattern, check_regex};
use super::{Found, NotFound, PathPattern, RouteError, RouteMatch, RouteProblem};

/// Decoded paths up to this length live on the stack.
const DECODED_BYTES: usize = 1024;

/// Chooses the most specific route: host by name before the longest wildcard before any host; then
/// path exact before regex (the longest text, then the first name) before the longest prefix; then
/// with methods before without.
#[derive(Debug)]
pub struct RouteTable {
    exact: HashMap<Box<str>, PathTree>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, PathTree>,
    any: Option<PathTree>,
    /// By route: `raw_path`.
    raw: Vec<bool>,
    has_raw: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Any,
    Exact(String),
    Wildcard(String),
}

/// What [`RouteTable::build`] gathers before it arranges.
type Drafts = BTreeMap<Host, BTreeMap<Pattern, Methods>>;

impl RouteTable {
    /// Err: everything that is wrong, in the order of the routes.
    pub fn build(routes: Vec<RouteMatch>) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let mut drafts = Drafts::new();
        for (index, route) in routes.iter().enumerate() {
            let problems = add(&mut drafts, &routes, index, route);
            errors.extend(
                problems
                    .into_iter()
                    .map(|problem| route_error(&routes, index, problem)),
            );
        }
        let raw: Vec<bool> = routes.iter().map(|route| route.raw_path).collect();
        let has_raw = raw.contains(&true);
        let mut table = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
            raw,
            has_raw,
        };
        // Regexes that are wrong alone would be wrong together as well.
        if errors.is_empty() {
            for (host, patterns) in drafts {
                errors.extend(table.arrange(host, patterns, &routes).err());
            }
        }
        if errors.is_empty() {
            return Ok(table);
        }
        errors.sort_by_key(|error| error.index);
        Err(errors)
    }

    fn arrange(
        &mut self,
        host: Host,
        patterns: BTreeMap<Pattern, Methods>,
        routes: &[RouteMatch],
    ) -> Result<(), RouteError> {
        let is_regex = |pattern: &Pattern| matches!(pattern, Pattern::Regex(_));
        let blamed = patterns
            .iter()
            .filter(|(pattern, _)| is_regex(pattern))
            .flat_map(|(_, methods)| methods.routes());
        let blamed = blamed.min().unwrap_or_default();
        let tree = PathTree::build(patterns, |index| {
            routes.get(index).map_or("", |route| &route.name)
        })
        .map_err(|_| {
            route_error(
                routes,
                blamed,
                RouteProblem::RegexesTooLarge {
                    host: host.to_string(),
                },
            )
        })?;
        match host {
            Host::Any => self.any = Some(tree),
            Host::Exact(name) => drop(self.exact.insert(name.into(), tree)),
            Host::Wildcard(parent) => drop(self.wildcard.insert(parent.into(), tree)),
        }
        Ok(())
    }

    /// `host`: as the request has it, port and all; `path`: of the request target, without the query
    /// (absolute-form taken apart by the caller). Does not allocate if the path is normal.
    pub fn find<'p>(
        &self,
        host: &str,
        path: &'p str,
        method: &Method,
    ) -> Result<Found<'p>, NotFound> {
        let host = host::normalise(host);
        let normal = path::normalise(path).map_err(NotFound::BadPath)?;
        if normal.path == "*" && method != Method::OPTIONS {
            return Err(NotFound::BadPath(PathProblem::Asterisk));
        }
        let ambiguous = normal.odd.is_some() || normal.parameters;
        if normal.path.len() > path::MAX_COSTLY_PATH_BYTES
            && (ambiguous || self.trees(&host).any(PathTree::has_regexes))
        {
            return Err(NotFound::BadPath(PathProblem::CostlyTooLong));
        }
        let index = match normal.odd {
            Some(odd) => self
                .find_odd(&host, &normal, method)
                .ok_or(NotFound::BadPath(odd))?,
            None if normal.escapes => self.find_decoded(&host, &normal.path, method)?,
            None => self.select(&host, &normal.path, method)?,
        };
        if ambiguous {
            self.agree(&host, &normal.path, method, index)
                .map_err(NotFound::BadPath)?;
        }
        Ok(Found {
            index,
            path: normal.path,
        })
    }

    fn find_decoded(&self, host: &str, path: &str, method: &Method) -> Result<usize, NotFound> {
        let mut buffer = [0; DECODED_BYTES];
        let decoded = reading::decode_in(path, &mut buffer).map(Cow::Borrowed);
        let decoded = decoded.unwrap_or_else(|| Cow::Owned(reading::decode(path)));
        self.select(host, &decoded, method)
    }

    fn find_odd(&self, host: &str, normal: &Normal<'_>, method: &Method) -> Option<usize> {
        // Without this, everybody could ask for the work of several readings.
        if !self.has_raw {
            return None;
        }
        let index = self.first(host, &reading::literal(&normal.path), method)?;
        self.raw
            .get(index)
            .copied()
            .unwrap_or(false)
            .then_some(index)
    }

    /// Whether every reading of the path leads to `index`.
    fn agree(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        index: usize,
    ) -> Result<(), PathProblem> {
        for decoded in reading::all(path) {
            if self.first(host, &decoded?, method) != Some(index) {
                return Err(PathProblem::Ambiguous);
            }
        }
        Ok(())
    }

    fn select(&self, host: &str, decoded: &str, method: &Method) -> Result<usize, NotFound> {
        if let Some(index) = self.first(host, decoded, method) {
            return Ok(index);
        }
        let mut allow: Vec<Method> = self
            .candidates(host, decoded)
            .flat_map(Methods::allowed)
            .collect();
        if allow.is_empty() {
            return Err(NotFound::NoRoute);
        }
        allow.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        allow.dedup();
        Err(NotFound::MethodNotAllowed { allow })
    }

    fn first(&self, host: &str, decoded: &str, method: &Method) -> Option<usize> {
        self.candidates(host, decoded)
            .find_map(|methods| methods.choose(method))
    }

    /// The most specific first.
    fn candidates<'t>(
        &'t self,
        host: &'t str,
        decoded: &'t str,
    ) -> impl Iterator<Item = &'t Methods> {
        self.trees(host).flat_map(|tree| tree.matching(decoded))
    }

    fn trees<'t>(&'t self, host: &'t str) -> impl Iterator<Item = &'t PathTree> {
        let parents = host
            .match_indices('.')
            .filter_map(|(dot, _)| host.get(dot + 1..));
        let wildcards = parents.filter_map(|parent| self.wildcard.get(parent));
        self.exact
            .get(host)
            .into_iter()
            .chain(wildcards)
            .chain(&self.any)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

fn route_error(routes: &[RouteMatch], index: usize, problem: RouteProblem) -> RouteError {
    let name = routes
        .get(index)
        .map(|route| route.name.clone())
        .unwrap_or_default();
    RouteError {
        index,
        name,
        problem,
    }
}

fn add(
    drafts: &mut Drafts,
    routes: &[RouteMatch],
    index: usize,
    route: &RouteMatch,
) -> Vec<RouteProblem> {
    let mut problems = Vec::new();
    let mut hosts = Vec::new();
    for host in &route.hosts {
        match parse_host(host) {
            Some(host) => hosts.push(host),
            None => problems.push(RouteProblem::Host { host: host.clone() }),
        }
    }
    if route.hosts.is_empty() {
        hosts.push(Host::Any);
    }
    if route.methods.as_ref().is_some_and(Vec::is_empty) {
        problems.push(RouteProblem::NoMethods);
    }
    let pattern = match parse_path(&route.path) {
        Ok(pattern) => pattern,
        Err(problem) => {
            problems.push(problem);
            return problems;
        }
    };
    let mut reported = None;
    for host in hosts {
        let methods = drafts
            .entry(host.clone())
            .or_default()
            .entry(pattern.clone())
            .or_default();
        let Err(other) = methods.insert(route.methods.as_deref(), index) else {
            continue;
        };
        // Once for a pair of routes, however many hosts they share.
        if reported.replace(other) != Some(other) {
            let other_name = routes
                .get(other)
                .map(|route| route.name.clone())
                .unwrap_or_default();
            problems.push(RouteProblem::SameRequests {
                other,
                other_name,
                host: host.to_string(),
            });
        }
    }
    problems
}

fn parse_host(host: &str) -> Option<Host> {
    let (name, wildcard) = match host.strip_prefix("*.") {
        Some(parent) => (parent, true),
        None => (host, false),
    };
    // A port would be dropped without a word, and the route would take other ports too.
    let normal = host::normalise(name);
    let has_port = !name.starts_with('[') && name.contains(':')
        || name.starts_with('[') && !name.ends_with(']');
    if normal.is_empty() || has_port || wildcard && name.starts_with('[') {
        return None;
    }
    let normal = normal.into_owned();
    Some(if wildcard {
        Host::Wildcard(normal)
    } else {
        Host::Exact(normal)
    })
}

fn parse_path(path: &PathPattern) -> Result<Pattern, RouteProblem> {
    let normal = |pattern: &String| {
        path::pattern(pattern).map_err(|problem| RouteProblem::Path {
            pattern: pattern.clone(),
            problem,
        })
    };
    match path {
        PathPattern::Prefix(path) => normal(path).map(Pattern::Prefix),
        PathPattern::Exact(path) => normal(path).map(Pattern::Exact),
        PathPattern::Regex(regex) => match check_regex(regex) {
            Ok(()) => Ok(Pattern::Regex(regex.clone())),
            Err(reason) => Err(RouteProblem::Regex {
                pattern: regex.clone(),
                reason,
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;

    use PathPattern::{Exact, Prefix, Regex};

    /// `hosts` and `methods` separated by spaces; a name that ends in `!` allows raw paths.
    fn route(name: &str, hosts: &str, path: PathPattern, methods: &str) -> RouteMatch {
        let methods: Vec<Method> = methods
            .split_whitespace()
            .map(|method| method.parse().unwrap())
            .collect();
        RouteMatch {
            name: name.to_owned(),
            hosts: hosts.split_whitespace().map(str::to_owned).collect(),
            path,
            methods: (!methods.is_empty()).then_some(methods),
            raw_path: name.ends_with('!'),
        }
    }

    fn prefix(path: &str) -> PathPattern {
        Prefix(path.to_owned())
    }

    fn exact(path: &str) -> PathPattern {
        Exact(path.to_owned())
    }

    fn regex(path: &str) -> PathPattern {
        Regex(path.to_owned())
    }

    /// Tells routes by name.
    struct Named(RouteTable, Vec<String>);

    impl Named {
        fn new(routes: Vec<RouteMatch>) -> Self {
            let names = routes.iter().map(|route| route.name.clone()).collect();
            Self(RouteTable::build(routes).unwrap(), names)
        }

        fn get(&self, host: &str, path: &str) -> Result<&str, NotFound> {
            self.with(host, path, Method::GET)
        }

        fn with(&self, host: &str, path: &str, method: Method) -> Result<&str, NotFound> {
            self.0
                .find(host, path, &method)
                .map(|found| self.1[found.index].as_str())
        }
    }

    fn bad<T>(problem: PathProblem) -> Result<T, NotFound> {
        Err(NotFound::BadPath(problem))
    }

    #[test]
    fn the_most_specific_host_wins() {
        let table = Named::new(vec![
            route("any", "", prefix("/"), ""),
            route("wild", "*.example.com", prefix("/"), ""),
            route("deep", "*.eu.example.com", prefix("/"), ""),
            route("name", "api.example.com", prefix("/"), ""),
            route("v6", "[0::1]", prefix("/"), ""),
        ]);
        for (host, name) in [
            ("api.example.com", "name"),
            ("API.Example.com.:8080", "name"),
            ("x.example.com", "wild"),
            ("x.y.example.com", "wild"),
            ("x.eu.example.com", "deep"),
            ("eu.example.com", "wild"),
            ("example.com", "any"),
            ("notexample.com", "any"),
            ("[::1]:80", "v6"),
            ("gar bage", "any"),
            ("", "any"),
        ] {
            assert_eq!(table.get(host, "/x"), Ok(name), "{host}");
        }
    }

    #[test]
    fn the_most_specific_path_wins() {
        let table = Named::new(vec![
            route("root", "", prefix("/"), ""),
            route("api", "", prefix("/api"), ""),
            route("api-slash", "", prefix("/api/"), ""),
            route("api-x", "", exact("/api/x"), ""),
            route("digits", "", regex(r"/api/\d+"), ""),
            route("digits-longer", "", regex(r"/api/\d\d+"), ""),
            route("b-same-length", "", regex(r"/z/[ab]"), ""),
            route("a-same-length", "", regex(r"/z/[bc]"), ""),
            route("cafe", "", prefix("/café"), ""),
        ]);
        for (path, name) in [
            ("/", "root"),
            ("/apix", "root"),
            ("/api", "api"),
            ("/api/", "api-slash"),
            ("/api/y", "api-slash"),
            ("/api/x", "api-x"),
            ("/api/x/", "api-slash"),
            ("/api/1", "digits"),
            ("/api/12", "digits-longer"),
            ("/api/12/", "api-slash"),
            ("/api/%31", "digits"),
            ("/z/a", "b-same-length"),
            ("/z/b", "a-same-length"),
            ("/caf%C3%A9/x", "cafe"),
            ("/API", "root"),
        ] {
            assert_eq!(table.get("h", path), Ok(name), "{path}");
        }
    }

    #[test]
    fn the_next_candidate_is_tried_when_the_method_does_not_apply() {
        let table = Named::new(vec![
            route("exact", "a.com", exact("/x"), "PUT"),
            route("regex", "a.com", regex("/[x-z]"), "PATCH"),
            route("regex-short", "a.com", regex("/x"), "LOCK"),
            route("prefix", "a.com", prefix("/x"), "GET"),
            route("prefix-all", "a.com", prefix("/x"), ""),
            route("wild", "*.com", prefix("/y"), "DELETE"),
            route("any", "", prefix("/y"), "GET HEAD"),
        ]);
        for (method, name) in [
            (Method::PUT, "exact"),
            (Method::PATCH, "regex"),
            ("LOCK".parse().unwrap(), "regex-short"),
            (Method::GET, "prefix"),
            (Method::HEAD, "prefix"),
            (Method::POST, "prefix-all"),
        ] {
            assert_eq!(
                table.with("a.com", "/x", method.clone()),
                Ok(name),
                "{method}"
            );
        }
        assert_eq!(table.with("a.com", "/y", Method::DELETE), Ok("wild"));
        assert_eq!(table.get("a.com", "/y"), Ok("any"));
        assert_eq!(table.get("a.com", "/q"), Err(NotFound::NoRoute));
        let allow = vec![Method::DELETE, Method::GET, Method::HEAD, Method::PATCH];
        assert_eq!(
            table.with("a.com", "/y", Method::POST),
            Err(NotFound::MethodNotAllowed { allow })
        );
    }

    #[test]
    fn the_asterisk_is_the_whole_host_and_for_options_only() {
        let table = Named::new(vec![
            route("star", "", prefix("/*"), ""),
            route("all", "a.com", prefix("/"), ""),
        ]);
        assert_eq!(table.with("a.com", "*", Method::OPTIONS), Ok("all"));
        assert_eq!(
            table.with("b.com", "*", Method::OPTIONS),
            Err(NotFound::NoRoute)
        );
        assert_eq!(table.get("a.com", "*"), bad(PathProblem::Asterisk));
        assert_eq!(table.get("b.com", "/*"), Ok("star"));
        assert_eq!(
            table
                .0
                .find("a.com", "", &Method::GET)
                .map(|found| found.path),
            Ok("/".into())
        );
    }

    #[test]
    fn no_spelling_leads_around_a_route() {
        let table = Named::new(vec![
            route("root", "", prefix("/"), ""),
            route("admin", "", prefix("/admin"), ""),
        ]);
        let long = format!("/{}admin", "a/../".repeat(13_000));
        for path in [
            "/a/../admin",
            "/%61dmin",
            "/./admin",
            "/admin/",
            "/admin/%2e",
            "/x/%2E%2e/%61%64min",
            &long,
        ] {
            assert_eq!(table.get("h", path), Ok("admin"), "{path}");
        }
        for path in [
            "/admin%2f..",
            "//admin",
            "/admin\\",
            "/admin;x",
            "/admin;x/y",
            "/admin%3bx",
            "/;x/admin",
            "/x/..;/admin",
            "/admin%00",
            "/admin%00x",
            "/%c0%afadmin",
            "/x\\..\\admin",
            "/x%5c..%5cadmin",
            "/x%2f..%2fadmin",
            "/\\admin",
            "/admin//",
            "/adm%09in",
            "/admin%2fx",
            "/../admin",
            "admin",
            "/admin%",
            "/admin%ff",
        ] {
            assert!(
                matches!(table.get("h", path), Err(NotFound::BadPath(_))),
                "{path}"
            );
        }
        for path in ["/x;v=1", "/Admin", "/%252e%252e/admin", "/administrator"] {
            assert_eq!(table.get("h", path), Ok("root"), "{path}");
        }
        assert_eq!(table.get("h", "/admin/x;v=1/y"), Ok("admin"));
    }

    #[test]
    fn raw_paths_need_one_route_in_every_reading() {
        let table = Named::new(vec![
            route("root!", "", prefix("/"), ""),
            route("admin", "", prefix("/admin"), ""),
            route("raw!", "", prefix("/raw"), ""),
            route("raw-admin!", "", prefix("/raw/admin"), ""),
        ]);
        for (path, name) in [
            ("/x//y", "root!"),
            ("/x%2fy\\z", "root!"),
            ("/x%00%ff", "root!"),
            ("/raw/a%2fb", "raw!"),
            ("/raw//x", "raw!"),
            ("/raw/admin/a%2fb", "raw-admin!"),
        ] {
            assert_eq!(table.get("h", path), Ok(name), "{path}");
        }
        for path in [
            "//admin",
            "/admin//x",
            "/admin%2fx",
            "/x%2f..%2fadmin",
            "/\\admin",
            "/admin%00x",
            "/adm%00in",
            "/%09admin",
            "/raw%2fadmin",
            "/raw//admin",
            "/raw/admin%5cx",
            "/raw/x\\..\\admin",
            "/raw/q%2f../admin/z\\..\\..",
            "/raw/a;x%2f..",
            "/raw/..%00/admin",
            "/;x//admin",
        ] {
            assert!(
                matches!(table.get("h", path), Err(NotFound::BadPath(_))),
                "{path}"
            );
        }
        let found = table.0.find("h", "/x//%61/./%2f", &Method::GET);
        assert_eq!(found.map(|found| found.path), Ok("/x//a/%2F".into()));
    }

    #[test]
    fn long_paths_are_refused_only_where_they_cost_more() {
        let table = Named::new(vec![
            route("plain!", "", prefix("/"), ""),
            route("regex", "*.re.com", regex("/a*"), ""),
        ]);
        let long = format!("/{}", "a".repeat(path::MAX_PATH_BYTES - 1));
        assert_eq!(table.get("h", &long), Ok("plain!"));
        assert_eq!(
            table.get("x.re.com", &long),
            bad(PathProblem::CostlyTooLong)
        );
        assert_eq!(table.get("x.re.com", "/aa"), Ok("regex"));
        let slashes = "/".repeat(path::MAX_COSTLY_PATH_BYTES);
        assert_eq!(table.get("h", &slashes), Ok("plain!"));
        assert_eq!(
            table.get("h", &format!("{slashes}/")),
            bad(PathProblem::CostlyTooLong)
        );
        assert_eq!(
            table.get("h", &format!("/;{}", "a".repeat(9000))),
            bad(PathProblem::CostlyTooLong)
        );
    }

    #[test]
    fn building_reports_everything_at_once() {
        let errors = RouteTable::build(vec![
            route("one", "a.com b.com", prefix("/caf%C3%A9"), "GET"),
            route("two", "A.com b.com.", prefix("/café"), "POST GET"),
            route("three", "a.com", prefix("/café"), ""),
            route("four", "a:80 * *.*.com é.com", regex("("), ""),
            route("five", "", exact("/a//b"), ""),
            RouteMatch {
                methods: Some(Vec::new()),
                ..route("six", "", exact("/x"), "")
            },
            route("seven", "a.com a.com", regex(r"(?:\w{1000}){1000}"), ""),
        ])
        .unwrap_err();
        let texts: Vec<_> = errors
            .iter()
            .map(|error| (error.index, error.to_string()))
            .collect();
        assert_eq!(
            texts.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [1, 3, 3, 3, 3, 3, 4, 5, 6]
        );
        assert_eq!(
            texts[0].1,
            "route `two`: matches the same requests as route `one` (host a.com); change its host, path or methods"
        );
        assert_eq!(texts[5].1, "route `four`: path_regex `(`: unclosed group");
        assert_eq!(
            texts[6].1,
            "route `five`: path `/a//b` can never match: an empty segment"
        );
    }

    #[test]
    fn regexes_of_one_host_are_bounded_together() {
        let routes = (0..40)
            .map(|n| route(&format!("r{n}"), "", regex(&format!(r"/{n}/\w{{1,8}}")), ""))
            .collect();
        let errors = RouteTable::build(routes).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(matches!(
            errors[0].problem,
            RouteProblem::RegexesTooLarge { .. }
        ));
    }

    // The naive reference: every route is looked at, and the largest rank wins.

    fn naive(
        routes: &[RouteMatch],
        host: &str,
        decoded: &str,
        method: &Method,
    ) -> Result<usize, NotFound> {
        let matching = routes.iter().enumerate().filter_map(|(index, route)| {
            let host = host_rank(route, host)?;
            Some((
                (host.clone(), path_rank(routes, route, &host.1, decoded)?),
                index,
                route,
            ))
        });
        let matching: Vec<_> = matching.collect();
        let chosen = matching.iter().filter_map(|(rank, index, route)| {
            let named = |method: &Method| {
                route
                    .methods
                    .as_ref()
                    .map(|methods| methods.contains(method))
            };
            let method_rank = match named(method) {
                None => 0,
                Some(true) => 2,
                Some(false) if method == Method::HEAD && named(&Method::GET) == Some(true) => 1,
                Some(false) => return None,
            };
            Some((rank, method_rank, *index))
        });
        if let Some((_, _, index)) = chosen.max() {
            return Ok(index);
        }
        let mut allow: Vec<Method> = matching
            .iter()
            .flat_map(|(_, _, route)| route.methods.clone().unwrap())
            .collect();
        if allow.contains(&Method::GET) {
            allow.push(Method::HEAD);
        }
        allow.sort_by_key(ToString::to_string);
        allow.dedup();
        Err(if allow.is_empty() {
            NotFound::NoRoute
        } else {
            NotFound::MethodNotAllowed { allow }
        })
    }

    fn host_rank(route: &RouteMatch, host: &str) -> Option<((u8, usize), String)> {
        let ranks = route
            .hosts
            .iter()
            .filter_map(|pattern| match pattern.strip_prefix('*') {
                None => (pattern == host).then(|| ((2, 0), pattern.clone())),
                Some(suffix) => {
                    (host.ends_with(suffix)).then(|| ((1, suffix.len()), pattern.clone()))
                }
            });
        let any = route.hosts.is_empty().then(|| ((0, 0), String::new()));
        ranks.chain(any).max()
    }

    type PathRank = (u8, usize, Reverse<String>);

    fn path_rank(
        routes: &[RouteMatch],
        route: &RouteMatch,
        host: &str,
        path: &str,
    ) -> Option<PathRank> {
        let (matches, rank) = match &route.path {
            Exact(pattern) => (path == pattern, (2, 0, Reverse(String::new()))),
            Regex(pattern) => {
                let whole =
                    regex_automata::meta::Regex::new(&format!(r"\A(?s:{pattern})\z")).unwrap();
                let on_host = |route: &&RouteMatch| {
                    route.hosts.is_empty() && host.is_empty()
                        || route.hosts.iter().any(|name| name == host)
                };
                let same = routes
                    .iter()
                    .filter(on_host)
                    .filter(|other| other.path == route.path);
                let first_name = same
                    .map(|other| other.name.clone())
                    .min()
                    .unwrap_or_default();
                (
                    whole.is_match(path),
                    (1, pattern.len(), Reverse(first_name)),
                )
            }
            Prefix(pattern) => {
                let below = if pattern.ends_with('/') {
                    pattern.clone()
                } else {
                    format!("{pattern}/")
                };
                (
                    path == pattern || path.starts_with(&below),
                    (0, pattern.len(), Reverse(String::new())),
                )
            }
        };
        matches.then_some(rank)
    }

    /// As common servers read a path: everything decoded, slashes merged, dots resolved.
    fn as_upstreams_read(path: &str) -> String {
        let mut bytes = Vec::new();
        let mut at = 0;
        while let Some(&byte) = path.as_bytes().get(at) {
            let decoded = path
                .get(at + 1..at + 3)
                .filter(|_| byte == b'%')
                .and_then(|hex| u8::from_str_radix(hex, 16).ok());
            bytes.push(decoded.unwrap_or(byte));
            at += if decoded.is_some() { 3 } else { 1 };
        }
        let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
        let mut out: Vec<&str> = Vec::new();
        let segments: Vec<_> = text.split('/').skip(1).collect();
        for (at, segment) in segments.iter().enumerate() {
            let last = at + 1 == segments.len();
            match *segment {
                ".." => drop(out.pop()),
                "." => {}
                "" if !last => continue,
                segment => {
                    out.push(segment);
                    continue;
                }
            }
            if last {
                out.push("");
            }
        }
        format!("/{}", out.join("/"))
    }

    fn some_path() -> impl Strategy<Value = String> {
        let parts = [
            "/", "/", "/", "/", "//", ".", "..", "%2e", "%2E", "a", "b", "a", "b", "%61", "%62",
            "c", ";", "%3b", "%2f", "%5c", "\\", "%00", "%0a", "%25", "%c3%a9", "%40", "@", "%ff",
            "%c0%af", "{",
        ];
        prop::collection::vec(prop::sample::select(parts.to_vec()), 0..9)
            .prop_map(|parts| format!("/{}", parts.concat()))
    }

    fn some_routes() -> impl Strategy<Value = Vec<RouteMatch>> {
        let hosts = [
            "",
            "",
            "a.com",
            "x.a.com",
            "*.a.com",
            "*.com",
            "a.com *.a.com",
            "x.a.com *.com",
        ];
        let paths = vec![
            prefix("/"),
            prefix("/"),
            prefix("/a"),
            prefix("/a/"),
            prefix("/a/b"),
            prefix("/b"),
            prefix("/é"),
            prefix("/@"),
            exact("/"),
            exact("/a"),
            exact("/a/"),
            exact("/a/b"),
            exact("/b/a"),
            regex("/a.*"),
            regex("/[ab]/?"),
            regex("/.*/b"),
            regex("/(a|b)+"),
            regex(".*"),
        ];
        let methods = ["", "", "GET", "POST", "GET HEAD", "HEAD", "PUT GET"];
        let one = (
            prop::sample::select(hosts.to_vec()),
            prop::sample::select(paths),
            prop::sample::select(methods.to_vec()),
            "[a-c]",
            any::<bool>(),
        );
        prop::collection::vec(one, 0..14).prop_map(|routes| {
            let named = routes.into_iter().enumerate().map(
                |(index, (hosts, path, methods, letter, raw))| {
                    let raw = if raw { "!" } else { "" };
                    route(&format!("{letter}{index}{raw}"), hosts, path, methods)
                },
            );
            without_conflicts(named.collect())
        })
    }

    fn without_conflicts(mut routes: Vec<RouteMatch>) -> Vec<RouteMatch> {
        while let Err(errors) = RouteTable::build(routes.clone()) {
            for error in errors.iter().rev() {
                assert!(matches!(error.problem, RouteProblem::SameRequests { .. }));
                if routes
                    .get(error.index)
                    .is_some_and(|route| route.name == error.name)
                {
                    routes.remove(error.index);
                }
            }
        }
        routes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn agrees_with_a_linear_scan_and_with_every_upstream(
            routes in some_routes(),
            host in prop::sample::select(vec!["a.com", "x.a.com", "y.x.a.com", "b.com", "other"]),
            paths in prop::collection::vec(some_path(), 12),
            method in prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
        ) {
            let table = RouteTable::build(routes.clone()).unwrap();
            for path in paths {
                let found = table.find(host, &path, &method);
                let Ok(normal) = path::normalise(&path) else {
                    prop_assert!(matches!(found, Err(NotFound::BadPath(_))));
                    continue;
                };
                match found {
                    Ok(found) => {
                        let read = as_upstreams_read(&found.path);
                        prop_assert_eq!(naive(&routes, host, &read, &method), Ok(found.index), "{} as {}", &path, &read);
                        prop_assert!(normal.odd.is_none() || routes[found.index].raw_path);
                        let again = table.find(host, &found.path, &method);
                        prop_assert_eq!(again.map(|again| (again.index, again.path)), Ok((found.index, found.path.clone())));
                    }
                    Err(NotFound::BadPath(_)) => prop_assert!(normal.odd.is_some() || normal.parameters, "{}", &path),
                    Err(error) => {
                        let read = as_upstreams_read(&normal.path);
                        prop_assert_eq!(naive(&routes, host, &read, &method), Err(error), "{} as {}", &path, &read);
                    }
                }
            }
        }

        #[test]
        fn arbitrary_input_never_panics(host in ".{0,30}", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let routes = vec![route("all!", "", prefix("/"), ""), route("some", "", regex("/[a-f]*"), "POST")];
            let table = RouteTable::build(routes).unwrap();
            let path = format!("/{}", String::from_utf8_lossy(&bytes));
            let _ = table.find(&host, &path, &Method::GET);
            let patterns = [Prefix(path.clone()), Exact(path.clone()), Regex(path)];
            let _ = RouteTable::build(patterns.map(|pattern| route("r", &host, pattern, "")).to_vec());
        }
    }
}
