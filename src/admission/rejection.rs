//! Every reason not to forward a request.

use crate::auth::Unavailable;
use crate::auth::forward_auth::Refusal;
use crate::route::PathProblem;
use std::sync::Arc;

/// Why a request is refused. What a client is told about each is one table in [`super::told`].
#[derive(Debug)]
pub enum Rejection {
    /// the path could mean something else to the upstream
    BadPath(PathProblem),
    /// the request target or the headers are not acceptable, and why
    BadRequest(&'static str),
    /// nothing is served there
    NoRoute,
    /// what is served there pauses
    Maintenance,
    /// something is served there, for other methods
    MethodNotAllowed {
        /// the methods, for `Allow`
        allow: String,
    },
    /// the route does not take requests from this address
    AddressRefused,
    /// the route wants a credential
    Unauthenticated(BadCredentials),
    /// the credentials are not good for what the route wants
    ScopeMissing {
        /// did a token come with the request?
        by_token: bool,
    },
    /// the URL of `forward_auth` said no
    ForwardAuthRefused(Arc<Refusal>),
    /// nobody can say now whether the credentials are valid
    IdentityUnavailable(Unavailable),
    /// too many wrong credentials came from this address
    TooManyFailures {
        /// microseconds until one is looked at again
        retry_after_us: u64,
    },
    /// a bucket has no room
    OverLimit {
        /// index into the snapshot's policies: the one with the longest wait
        policy: usize,
        /// its wait in microseconds; absent: no wait helps, or nobody knows
        retry_after_us: Option<u64>,
        /// nobody knows when there will be room, but there will (requests in flight)
        soon: bool,
    },
    /// the body is larger than the route takes
    BodyTooLarge,
    /// more headers than we take
    HeadersTooLarge,
    /// the upstream has as many requests as it may, and so has its queue
    QueueFull,
    /// the wait in the upstream's queue was too long
    QueueTimedOut,
    /// no connection to the upstream, or it broke the protocol
    UpstreamFailed,
    /// the upstream did not answer in time
    UpstreamTimedOut,
    /// the shared store does not answer, and a policy refuses without it
    StoreUnavailable,
    /// the gateway is about to stop
    Draining,
    /// a bug of ours
    Internal,
}

/// What is wrong with the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCredentials {
    /// there are none
    Missing,
    /// they are not valid
    Invalid,
    /// the token is not valid
    InvalidToken,
}
