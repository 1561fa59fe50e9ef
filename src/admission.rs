//! The decision about one request: route, identity, spend; what was decided and why.
//!
//! Pure over the parts of a request, so traffic and explanations ask the same code. The order is
//! the order of the statements in [`admit`].

pub mod explain;
mod rejection;
mod spend;

pub use rejection::{BadCredentials, Rejection};
pub use spend::{Applied, Pending, Spending, Spent};

use crate::auth::{Client, Identity, Looking};
use crate::config::RouteAuth;
use crate::policy::Facts;
use crate::route::{Found, NotFound};
use crate::snapshot::{Route, RouteState, Running, Snapshot};
use http::{HeaderMap, Method, header};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The parts of a request that a decision needs.
pub struct Request<'a> {
    /// the method
    pub method: &'a Method,
    /// the host: lower case, without port and trailing dot
    pub host: &'a str,
    /// the path as it came, without the query
    pub path: &'a str,
    /// all headers
    pub headers: &'a HeaderMap,
    /// the client's address, found through trusted proxies only
    pub ip: IpAddr,
}

/// A request that may pass, as far as is known.
pub struct Admitted<'p> {
    /// index into the snapshot's routes
    pub route: usize,
    /// the normalised path: what was matched is what the upstream gets
    pub path: Cow<'p, str>,
    /// who is calling; absent: anonymous
    pub client: Option<Arc<Client>>,
    /// what was taken from which bucket, or the store that has been asked
    pub spending: Spending,
}

/// A request that may not pass, and how far it came.
pub struct Refused {
    /// index into the snapshot's routes, if one matched
    pub route: Option<usize>,
    /// who is calling, if known by then
    pub client: Option<Arc<Client>>,
    /// what the buckets said, if they were asked
    pub spent: Spent,
    /// why
    pub rejection: Rejection,
}

/// Decides about a request at `now_us`. Where buckets live in this process, what it costs has been
/// taken when this returns; a shared store has been asked.
pub fn admit<'p>(
    running: &Running,
    snapshot: &Snapshot,
    request: &Request<'p>,
    now_us: u64,
) -> Result<Admitted<'p>, Box<Refused>> {
    let located = locate(snapshot, request).map_err(|rejection| refused(None, None, rejection))?;
    let Some(route) = snapshot.routes.get(located.found.index) else {
        return Err(refused(None, None, Rejection::NoRoute));
    };
    let found = located.found;
    is_open(route).map_err(|rejection| refused(Some(found.index), None, rejection))?;
    let client = if located.preflight {
        None
    } else {
        identify(running, snapshot, route, request, now_us)
            .map_err(|rejection| refused(Some(found.index), None, rejection))?
    };
    let facts = Facts {
        client: client.as_ref().map(|client| client.id.as_str()),
        tier: client.as_ref().and_then(|client| client.tier.as_deref()),
        ip: request.ip,
        route: &route.name,
        method: request.method,
        host: request.host,
        path: &found.path,
        headers: request.headers,
    };
    match spend::spend(running, snapshot, route, &facts, now_us) {
        Ok(spending) => Ok(Admitted {
            route: found.index,
            path: found.path,
            client,
            spending,
        }),
        Err(no_room) => {
            let (spent, rejection) = *no_room;
            Err(Box::new(Refused {
                route: Some(found.index),
                client,
                spent,
                rejection,
            }))
        }
    }
}

fn refused(
    route: Option<usize>,
    client: Option<Arc<Client>>,
    rejection: Rejection,
) -> Box<Refused> {
    Box::new(Refused {
        route,
        client,
        spent: Spent::default(),
        rejection,
    })
}

/// The route of a request, and whether a preflight asks for it.
struct Located<'p> {
    found: Found<'p>,
    preflight: bool,
}

fn locate<'p>(snapshot: &Snapshot, request: &Request<'p>) -> Result<Located<'p>, Rejection> {
    let preflight = preflight_for(request);
    let method = preflight.as_ref().unwrap_or(request.method);
    let found = snapshot.table.find(request.host, request.path, method);
    Ok(Located {
        found: found.map_err(not_routed)?,
        preflight: preflight.is_some(),
    })
}

/// A route that serves nothing now refuses before anybody is asked who they are, and charges nothing.
fn is_open(route: &Route) -> Result<(), Rejection> {
    match route.state {
        RouteState::Enabled => Ok(()),
        RouteState::Disabled => Err(Rejection::NoRoute),
        RouteState::Maintenance => Err(Rejection::Maintenance),
    }
}

fn not_routed(not_found: NotFound) -> Rejection {
    match not_found {
        NotFound::BadPath(problem) => Rejection::BadPath(problem),
        NotFound::NoRoute => Rejection::NoRoute,
        NotFound::MethodNotAllowed { allow } => {
            let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
            Rejection::MethodNotAllowed {
                allow: names.join(", "),
            }
        }
    }
}

/// The method a CORS preflight asks for. A preflight carries no credentials by design (Fetch,
/// "CORS-preflight request"), so it is routed like the request it announces and counted by address.
fn preflight_for(request: &Request<'_>) -> Option<Method> {
    if *request.method != Method::OPTIONS || !request.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

fn identify(
    running: &Running,
    snapshot: &Snapshot,
    route: &Route,
    request: &Request<'_>,
    now_us: u64,
) -> Result<Option<Arc<Client>>, Rejection> {
    if route.auth == RouteAuth::None {
        return Ok(None);
    }
    let mut guarded = None;
    let looking = || match running.failures.check(request.ip, now_us) {
        Ok(()) => Looking::Allowed,
        Err(too_many) => {
            guarded = Some(too_many);
            Looking::RememberedOnly
        }
    };
    match snapshot.authenticator.identify(request.headers, looking) {
        Identity::Known(client) => Ok(Some(client)),
        Identity::Anonymous if route.auth == RouteAuth::Optional => Ok(None),
        Identity::Anonymous => Err(Rejection::Unauthenticated(BadCredentials::Missing)),
        Identity::Invalid => {
            running.failures.failed(request.ip, now_us);
            running.metrics.auth_failures.inc();
            Err(Rejection::Unauthenticated(BadCredentials::Invalid))
        }
        Identity::NotLookedAt => {
            running.metrics.auth_guarded.inc();
            let retry_after_us = guarded.map_or(1_000_000, |too_many| too_many.retry_after_us);
            Err(Rejection::TooManyFailures { retry_after_us })
        }
    }
}
