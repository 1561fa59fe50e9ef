//! Host, path and method of a request -> the route that serves it, and the path that its upstream gets.
//!
//! Every way in which an upstream may plausibly read the forwarded path selects the route that was
//! chosen here; a path for which that cannot be promised is refused. So no spelling of a path leads
//! around a policy.

pub mod host;
mod inspection;
mod methods;
pub mod path;
mod reading;
mod table;
mod tree;

use std::borrow::Cow;

use http::Method;

pub use path::PathProblem;
pub use table::RouteTable;

/// Which paths a route takes. Exact and prefix patterns are normalised as requests are, and
/// compared percent-decoded: `/café` and `/caf%C3%A9` are one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// By whole segments: `/api` takes `/api` and `/api/x`, never `/apix`; `/api/` takes `/api/x`, not `/api`.
    Prefix(String),
    Exact(String),
    /// Must match the whole percent-decoded path; `.` is any character.
    Regex(String),
}

/// The conditions of one route; all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    pub name: String,
    /// `api.example.com`, or `*.example.com` for any depth of subdomain but not the apex; empty: any host.
    pub hosts: Vec<String>,
    pub path: PathPattern,
    /// Absent: all. GET implies HEAD.
    pub methods: Option<Vec<Method>>,
    /// Accept `%2F`, `%00`, `\`, empty segments and bytes that are not UTF-8, where no reading of
    /// them leads to another route.
    pub raw_path: bool,
}

/// The route of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'p> {
    /// Position in the routes that the table was built from.
    pub index: usize,
    /// What the upstream gets: normalised, visible ASCII, borrowed if the request's was normal already.
    pub path: Cow<'p, str>,
}

/// Why a request has no route: 400, 404 or 405.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error("bad path: {0}")]
    BadPath(PathProblem),
    #[error("no route matches")]
    NoRoute,
    /// `allow` is sorted, without duplicates, with HEAD wherever GET is.
    #[error("a route matches, but not with this method")]
    MethodNotAllowed { allow: Vec<Method> },
}

/// What is wrong with one route of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route `{name}`: {problem}")]
pub struct RouteError {
    /// Position in the routes given to [`RouteTable::build`].
    pub index: usize,
    pub name: String,
    pub problem: RouteProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    #[error(
        "matches the same requests as route `{other_name}` (host {host}); change its host, path or methods"
    )]
    SameRequests {
        other: usize,
        other_name: String,
        host: String,
    },
    #[error(
        "host `{host}` is not a host name; write `api.example.com`, `*.example.com`, or no hosts for any (international names as xn--)"
    )]
    Host { host: String },
    #[error("path `{pattern}` can never match: {problem}")]
    Path {
        pattern: String,
        problem: PathProblem,
    },
    #[error("path_regex `{pattern}`: {reason}")]
    Regex { pattern: String, reason: String },
    #[error("the regexes of host {host} are too large together; write some as prefixes")]
    RegexesTooLarge { host: String },
    #[error("methods is an empty list; leave it out to take all methods")]
    NoMethods,
}
