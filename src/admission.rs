//! The decision about one request: route, addresses, identity, spend; what was decided and why.
//!
//! Pure over the parts of a request, so traffic and explanations ask the same code. The order is
//! the order of the statements in [`admit`]; where identity must wait, [`identifying`] goes on.

pub mod explain;
mod identifying;
mod rejection;
mod spend;
pub mod told;

pub use identifying::{Identified, Identifying};
pub use rejection::{BadCredentials, Rejection};
pub use spend::{Applied, Pending, Spending, Spent};

use crate::auth::Client;
use crate::auth::forward_auth::Passed;
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
    /// `http` or `https`, as the client used it
    pub scheme: &'a str,
    /// the host: lower case, without port and trailing dot
    pub host: &'a str,
    /// the path as it came, without the query
    pub path: &'a str,
    /// the query as it came
    pub query: Option<&'a str>,
    /// all headers
    pub headers: &'a HeaderMap,
    /// the client's address, found through trusted proxies only
    pub ip: IpAddr,
}

/// Where a decision stands.
#[allow(
    clippy::large_enum_variant,
    reason = "moved once; a box would cost an allocation in each request"
)]
pub enum Admission<'p> {
    /// the request may pass, as far as is known
    Admitted(Admitted<'p>),
    /// nobody knows yet who is calling
    Identifying(Box<Identifying>),
}

/// A request that may pass, as far as is known.
pub struct Admitted<'p> {
    /// index into the snapshot's routes
    pub route: usize,
    /// the normalised path: what was matched is what the upstream gets
    pub path: Cow<'p, str>,
    /// who is calling
    pub identity: Identified,
    /// what was taken from which bucket, or the store that has been asked
    pub spending: Spending,
}

impl Admitted<'_> {
    /// Itself without its path, and the path where it is another than the one that came.
    pub fn split(self, came: &str) -> (Admitted<'static>, Option<String>) {
        let other = (self.path != came).then(|| self.path.into_owned());
        let rest = Admitted {
            route: self.route,
            path: Cow::Borrowed(""),
            identity: self.identity,
            spending: self.spending,
        };
        (rest, other)
    }
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
) -> Result<Admission<'p>, Box<Refused>> {
    let located = locate(snapshot, request).map_err(|rejection| refused(None, None, rejection))?;
    let found = located.found;
    let Some(route) = snapshot.routes.get(found.index) else {
        return Err(refused(None, None, Rejection::NoRoute));
    };
    is_open(route, request.ip).map_err(|rejection| refused(Some(found.index), None, rejection))?;
    let identity = if located.preflight {
        Identified::default()
    } else {
        match identifying::identify(running, snapshot, route, request, &found.path, now_us)
            .map_err(|rejection| refused(Some(found.index), None, rejection))?
        {
            identifying::Step::Done(identity) => identity,
            identifying::Step::Waits(waits) => {
                return Ok(Admission::Identifying(Box::new(Identifying {
                    route: found.index,
                    path: found.path.into_owned(),
                    waits,
                })));
            }
        }
    };
    admit_as(
        running,
        snapshot,
        request,
        found.index,
        found.path,
        identity,
        now_us,
    )
    .map(Admission::Admitted)
}

/// Goes on with a request once it is known who is calling.
pub fn admit_as<'p>(
    running: &Running,
    snapshot: &Snapshot,
    request: &Request<'_>,
    index: usize,
    path: Cow<'p, str>,
    identity: Identified,
    now_us: u64,
) -> Result<Admitted<'p>, Box<Refused>> {
    let Some(route) = snapshot.routes.get(index) else {
        return Err(refused(None, None, Rejection::NoRoute));
    };
    let client = identity.client();
    let facts = Facts {
        client: client.map(|client| client.id.as_str()),
        tier: client.and_then(|client| client.tier.as_deref()),
        ip: request.ip,
        route: &route.name,
        method: request.method,
        host: request.host,
        path: &path,
        headers: request.headers,
        claims: identity.proven.claims(),
    };
    match spend::spend(running, snapshot, route, &facts, now_us) {
        Ok(spending) => Ok(Admitted {
            route: index,
            path,
            identity,
            spending,
        }),
        Err(no_room) => {
            let (spent, rejection) = *no_room;
            Err(Box::new(Refused {
                route: Some(index),
                client: client.cloned(),
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

/// A route that is off, pauses, or is not for this address refuses before anybody is asked who they are, and
/// charges nothing.
fn is_open(route: &Route, ip: IpAddr) -> Result<(), Rejection> {
    match route.state {
        RouteState::Enabled if !route.addresses.admit(ip) => Err(Rejection::AddressRefused),
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
