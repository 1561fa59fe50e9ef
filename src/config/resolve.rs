//! The typed YAML becomes the validated `Config`; what contradicts itself or points nowhere is reported.

mod auth;
mod clients;
mod database;
mod policies;
mod quota;
mod routes;
mod store;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::locator::Locator;
use super::model::{Admin, Config, Listener, ResponseHeaders, Secret, Server};
use super::notation::{TimeSpan, Written};
use super::place::Place;
use super::problem::{Report, Severity};
use super::raw;
use super::tree::Kind;

/// The validated configuration. Where the report holds errors afterwards, it is incomplete and must not be used.
///
/// `missing`: what to say of a tier that is not there, where a database may have it.
pub(super) fn resolve(
    raw: raw::Config,
    locator: &Locator,
    missing: Severity,
    report: &mut Report,
) -> Config {
    let mut review = Review::new(locator, report);
    let mut names = Names::collect(locator);
    let url = raw.database.url.as_ref();
    names.elsewhere = url.is_some_and(|url| !url.value.0.expose().is_empty());
    if names.elsewhere {
        names.missing = missing;
    }
    let root = &Place::ROOT;
    let mut families = raw
        .response_headers
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    families.dedup();
    Config {
        server: server(raw.server),
        listeners: listeners(raw.listeners, &root.then("listeners"), &mut review),
        admin: raw
            .admin
            .map(|raw| admin(raw, &root.then("admin"), &mut review)),
        store: store::resolve(raw.store, &root.then("store"), &mut review),
        database: database::resolve(raw.database, &root.then("database"), &mut review),
        trusted_proxies: raw
            .trusted_proxies
            .into_iter()
            .flatten()
            .map(|network| network.value.0)
            .collect(),
        response_headers: ResponseHeaders {
            x_ratelimit: families.contains(&raw::HeaderFamily::XRatelimit),
            ietf: families.contains(&raw::HeaderFamily::Ietf),
            debug: families.contains(&raw::HeaderFamily::Debug),
        },
        auth: auth::resolve(raw.auth, &root.then("auth"), &mut review),
        tiers: raw.tiers.into_keys().collect(),
        clients: clients::resolve(raw.clients, &names, &mut review),
        upstreams: upstreams::resolve(raw.upstreams, &mut review),
        routes: routes::resolve(raw.routes, &names, &mut review),
        policies: policies::resolve(raw.policies, &names, &mut review),
    }
}

/// What the checks report to, and what they know about earlier reports.
struct Review<'a> {
    locator: &'a Locator,
    report: &'a mut Report,
    /// Paths at which, or below which, the shape is wrong.
    broken: HashSet<String>,
}

impl<'a> Review<'a> {
    fn new(locator: &'a Locator, report: &'a mut Report) -> Review<'a> {
        let mut broken = HashSet::new();
        for problem in &report.problems {
            // Every start of the path that ends where a step ends.
            let ends = problem.path.match_indices(['.', '[']).map(|(end, _)| end);
            broken.extend(
                ends.chain([problem.path.len()])
                    .map(|end| problem.path[..end].to_owned()),
            );
        }
        Review {
            locator,
            report,
            broken,
        }
    }

    /// Adds an error, unless the place is known to be broken: then the error may only follow from that.
    fn error(&mut self, place: &Place<'_>, message: impl Into<String>, hint: impl Into<String>) {
        if !self.is_broken(place) {
            self.error_even_if_broken(place, message, hint);
        }
    }

    /// Adds an error that cannot follow from what else is wrong there.
    fn error_even_if_broken(
        &mut self,
        place: &Place<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let at = self.locator.position(&place.steps());
        self.report.error(at, place, message, hint.into());
    }

    fn warning(&mut self, place: &Place<'_>, message: impl Into<String>, hint: impl Into<String>) {
        if !self.is_broken(place) {
            let at = self.locator.position(&place.steps());
            self.report.add(
                Severity::Warning,
                at,
                place,
                message.into(),
                Some(hint.into()),
            );
        }
    }

    /// Whether something at or below a place was reported before this step.
    fn is_broken(&self, place: &Place<'_>) -> bool {
        !self.broken.is_empty() && self.broken.contains(&place.text())
    }

    /// The value at a place as a message shows it.
    fn shown(&self, place: &Place<'_>) -> String {
        self.locator.shown(&place.steps())
    }

    /// A duration of at least a millisecond.
    fn positive(&mut self, span: &Written<TimeSpan>, place: &Place<'_>) -> Duration {
        let span = span.value.0;
        if span.is_zero() {
            let message = format!("{} is not allowed", self.shown(place));
            self.error(place, message, "write a duration of at least `1ms`");
        }
        span
    }

    /// A duration between two others, both included.
    fn between(
        &mut self,
        span: &Written<TimeSpan>,
        [least, most]: [Duration; 2],
        place: &Place<'_>,
    ) -> Duration {
        let span = span.value.0;
        if !(least..=most).contains(&span) {
            let message = format!("{} is not allowed", self.shown(place));
            let hint = format!("write a duration from `{least:?}` to `{most:?}`");
            self.error(place, message, hint);
        }
        span
    }
}

/// Every name that the file defines, also where the definition is wrong: that is no dangling reference.
struct Names<'a> {
    tiers: HashSet<&'a str>,
    clients: HashSet<&'a str>,
    upstreams: HashSet<&'a str>,
    routes: HashSet<&'a str>,
    /// Is there a database, which may know further clients?
    elsewhere: bool,
    /// What to say of a tier that is not there.
    missing: Severity,
}

impl<'a> Names<'a> {
    fn collect(locator: &'a Locator) -> Names<'a> {
        let keys = |section: &str| locator.keys(&[section.into()]).into_iter().collect();
        let routes = match locator.node(&["routes".into()]).map(|node| &node.kind) {
            Some(Kind::List(items)) => items.as_slice(),
            _ => &[],
        };
        let names = routes.iter().filter_map(|route| match &route.kind {
            Kind::Mapping(route) => match &route.get("name")?.value.kind {
                Kind::Scalar(name) => Some(name.text.as_str()),
                _ => None,
            },
            _ => None,
        });
        Names {
            tiers: keys("tiers"),
            clients: keys("clients"),
            upstreams: keys("upstreams"),
            routes: names.collect(),
            elsewhere: false,
            missing: Severity::Error,
        }
    }
}

/// Reports a tier that is not there. `shown` is the tier as a message may quote it.
fn no_such_tier(
    tier: &str,
    shown: &str,
    place: &Place<'_>,
    names: &Names<'_>,
    review: &mut Review<'_>,
) {
    let message = format!("there is no tier {shown}");
    match names.missing {
        Severity::Error => {
            let instead = instead_of(tier, &names.tiers, "tiers");
            review.error_even_if_broken(place, message, instead);
        }
        Severity::Warning => review.warning(place, message, "the database must have it"),
    }
}

/// What a reference that points nowhere should have been.
fn instead_of(typed: &str, names: &HashSet<&str>, section: &str) -> String {
    const TOO_MANY: usize = 10_000; // comparing with every one of them takes too long
    if names.is_empty() || names.len() > TOO_MANY {
        let number = if names.is_empty() {
            "none".to_owned()
        } else {
            names.len().to_string()
        };
        return format!("`{section}` defines {number}");
    }
    let names: BTreeSet<&str> = names.iter().copied().collect();
    super::problem::instead(typed, &names.into_iter().collect::<Vec<_>>())
}

fn server(raw: raw::Server) -> Server {
    Server {
        threads: raw.threads,
        watch: raw.watch,
        grace_period: raw.grace_period.value.0,
        user_agent_header: raw.user_agent_header.map(|header| header.value.0),
        health_path: raw.health.path.map(|path| path.value.0),
        health_detail: raw.health.detail,
    }
}

fn listeners(
    raw: Vec<Option<raw::Listener>>,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let mut first_of = HashMap::new();
    if raw.is_empty() {
        review.error(
            place,
            "there is no listener",
            "give at least one: `- address: 0.0.0.0:8080`",
        );
    }
    for (index, raw) in raw.into_iter().enumerate() {
        let Some(raw) = raw else { continue };
        let Some(address) = raw.address else { continue };
        let address = address.value.0;
        // Port 0 asks the system for a free port, each time another one.
        if address.port() != 0
            && let Some(first) = first_of.insert(address, index)
        {
            let place = place.then(index);
            let place = place.then("address");
            let message = format!("{} is listened on twice", review.shown(&place));
            review.error(
                &place,
                message,
                format!("remove it here or from listeners[{first}]"),
            );
        }
        listeners.push(Listener {
            address,
            http2: raw.http2,
        });
    }
    listeners
}

fn admin(raw: raw::Admin, place: &Place<'_>, review: &mut Review<'_>) -> Admin {
    let address = raw.address.value.0;
    let token: Option<Secret> = raw
        .token
        .map(|token| token.value.0)
        .filter(|token| !token.expose().is_empty());
    if token.is_none() && !address.ip().is_loopback() && !review.is_broken(&place.then("token")) {
        let message = format!(
            "{} needs a token: it is not a loopback address",
            review.shown(&place.then("address"))
        );
        let hint = "set `admin.token`, for example `token: ${TIDEGATE_ADMIN_TOKEN}`, or listen on `127.0.0.1:9180`";
        review.error(&place.then("address"), message, hint);
    }
    Admin {
        address,
        token,
        hosts: raw
            .hosts
            .into_iter()
            .flatten()
            .map(|host| host.value.0)
            .collect(),
    }
}

/// Reports an empty list where null means "all" and an empty list would mean "never".
fn not_empty<T>(list: Option<&Vec<T>>, place: &Place<'_>, review: &mut Review<'_>) {
    if list.is_some_and(Vec::is_empty) {
        review.error(
            place,
            "the list is empty, so nothing would ever match",
            "leave it out to match everything",
        );
    }
}

/// A map without the entries that were left out.
fn by_name<T>(entries: impl Iterator<Item = (String, Option<T>)>) -> BTreeMap<String, T> {
    entries
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{errors, loaded, problems};
    use super::*;
    use crate::config::FailureGuard;

    #[test]
    fn an_empty_file_takes_every_default() {
        let config = loaded("").config;
        assert_eq!(
            config.listeners,
            [Listener {
                address: "0.0.0.0:8080".parse().unwrap(),
                http2: false,
            }]
        );
        assert_eq!(
            config.admin.unwrap().address,
            "127.0.0.1:9180".parse().unwrap()
        );
        assert_eq!(config.server.health_path.as_deref(), Some("/health"));
        assert_eq!(config.server.user_agent_header.as_deref(), Some("tidegate"));
        assert_eq!(config.server.grace_period, Duration::from_secs(30));
        assert_eq!(config.store.memory_max_keys, 1_000_000);
        assert!(config.response_headers.x_ratelimit && config.response_headers.ietf);
        assert!(!config.response_headers.debug);
        assert_eq!(
            config.auth.failures,
            FailureGuard {
                count: 30,
                period: Duration::from_secs(60)
            }
        );
    }

    #[test]
    fn null_switches_off_what_can_be_switched_off() {
        let config =
            loaded("admin: null\nserver: { user_agent_header: null, health: { path: null } }")
                .config;
        assert!(config.admin.is_none());
        assert_eq!(
            (config.server.user_agent_header, config.server.health_path),
            (None, None)
        );
        assert_eq!(
            loaded("response_headers: []").config.response_headers,
            ResponseHeaders {
                x_ratelimit: false,
                ietf: false,
                debug: false
            }
        );
    }

    #[test]
    fn duplicate_and_missing_listeners_are_errors() {
        assert_eq!(
            errors(
                "listeners:\n  - address: 0.0.0.0:1\n  - address: 0.0.0.0:0\n  - address: 0.0.0.0:0\n  - address: 0.0.0.0:1\n"
            ),
            ["5:14 listeners[3].address: `0.0.0.0:1` is listened on twice"]
        );
        assert_eq!(
            errors("listeners: []"),
            ["1:1 listeners: there is no listener"]
        );
    }

    #[test]
    fn admin_without_a_token_is_for_loopback_only() {
        assert_eq!(
            errors("admin:\n  address: 0.0.0.0:9180\n  token: ''\n"),
            ["2:12 admin.address: `0.0.0.0:9180` needs a token: it is not a loopback address"]
        );
        assert!(errors("admin: { address: 0.0.0.0:9180, token: x }").is_empty());
        assert!(errors("admin: { address: '[::1]:9180' }").is_empty());
    }

    #[test]
    fn durations_of_zero_are_refused_where_they_mean_never() {
        assert_eq!(
            errors("auth:\n  failures: { period: 0s }\n"),
            ["2:23 auth.failures.period: `0s` is not allowed"]
        );
        assert!(problems("server: { grace_period: 0s }").is_empty());
    }
}
