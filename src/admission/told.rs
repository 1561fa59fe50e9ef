//! One table from rejections to what a client is told, the same for traffic and for explanations.

use super::{BadCredentials, Rejection};
use crate::snapshot::Snapshot;

/// A row: what a client is told.
pub struct Row {
    /// the HTTP status
    pub status: u16,
    /// for the client; tells what to fix, and an attacker nothing
    pub detail: &'static str,
    /// canonical code of gRPC
    pub grpc: u8,
    /// microseconds, for `Retry-After`
    retry_after_us: Option<u64>,
}

impl Row {
    /// `Retry-After`: whole seconds, rounded up, at least one.
    pub fn retry_after(&self) -> Option<u64> {
        let seconds = |micros: u64| micros.div_ceil(SECOND_US).max(1);
        self.retry_after_us.map(seconds)
    }
}

/// Canonical codes of gRPC (grpc.io, "Status codes").
mod grpc {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

const SECOND_US: u64 = 1_000_000;

/// When to come back to a route in maintenance; nobody knows how long it takes.
const MAINTENANCE_US: u64 = 30 * SECOND_US;

/// The table. Columns: HTTP status, gRPC status, text for the client.
#[rustfmt::skip]
pub fn row(rejection: &Rejection, snapshot: &Snapshot) -> Row {
    use Rejection::*;
    let row = |status, grpc, detail| Row { status, grpc, detail, retry_after_us: None };
    let table = match rejection {
        BadPath(_)               => row(400, grpc::INVALID_ARGUMENT, "The path is ambiguous or malformed."),
        BadRequest(detail)       => row(400, grpc::INVALID_ARGUMENT, detail),
        Unauthenticated(BadCredentials::Missing)
                                 => row(401, grpc::UNAUTHENTICATED, "This route needs credentials; see the WWW-Authenticate header."),
        Unauthenticated(BadCredentials::Invalid)
                                 => row(401, grpc::UNAUTHENTICATED, "The credentials are not valid."),
        Unauthenticated(BadCredentials::InvalidToken)
                                 => row(401, grpc::UNAUTHENTICATED, "The token is not valid or has expired."),
        ForwardAuthRefused(refusal) if refusal.status == 401
                                 => row(401, grpc::UNAUTHENTICATED, "This route needs valid credentials."),
        ForwardAuthRefused(_)    => row(403, grpc::PERMISSION_DENIED, "These credentials may not be used here."),
        AddressRefused           => row(403, grpc::PERMISSION_DENIED, "This address may not be used here."),
        ScopeMissing { .. }      => row(403, grpc::PERMISSION_DENIED, "These credentials are not good for this route."),
        NoRoute                  => row(404, grpc::UNIMPLEMENTED, "Nothing is served here."),
        MethodNotAllowed { .. }  => row(405, grpc::UNIMPLEMENTED, "This method is not served here; see the Allow header."),
        BodyTooLarge             => row(413, grpc::RESOURCE_EXHAUSTED, "The body is larger than this route takes."),
        TooManyFailures { .. }   => row(429, grpc::RESOURCE_EXHAUSTED, "Too many failed authentications."),
        OverLimit { policy, .. } => row(refusal_status(snapshot, *policy), grpc::RESOURCE_EXHAUSTED, "Too many requests. Please retry later."),
        HeadersTooLarge          => row(431, grpc::RESOURCE_EXHAUSTED, "Too many or too large headers."),
        Internal                 => row(500, grpc::INTERNAL, "Something is wrong with this gateway."),
        UpstreamFailed           => row(502, grpc::UNAVAILABLE, "The upstream could not be reached."),
        QueueFull | QueueTimedOut
                                 => row(503, grpc::UNAVAILABLE, "The upstream is at capacity. Please retry later."),
        Maintenance              => row(503, grpc::UNAVAILABLE, "This route is in maintenance. Please retry later."),
        IdentityUnavailable(_)   => row(503, grpc::UNAVAILABLE, "Credentials cannot be checked now. Please retry later."),
        StoreUnavailable         => row(503, grpc::UNAVAILABLE, "Requests cannot be counted now. Please retry later."),
        Draining                 => row(503, grpc::UNAVAILABLE, "This gateway is stopping. Please retry."),
        UpstreamTimedOut         => row(504, grpc::DEADLINE_EXCEEDED, "The upstream did not answer in time."),
    };
    let retry_after_us = match rejection {
        TooManyFailures { retry_after_us } => Some(*retry_after_us),
        OverLimit { retry_after_us, soon, .. } => retry_after_us.or(soon.then_some(SECOND_US)),
        Maintenance => Some(MAINTENANCE_US),
        IdentityUnavailable(_) | QueueFull | QueueTimedOut | StoreUnavailable | Draining => Some(SECOND_US),
        _ => None,
    };
    Row { retry_after_us, ..table }
}

fn refusal_status(snapshot: &Snapshot, policy: usize) -> u16 {
    let policy = snapshot.policies.get(policy);
    policy.map_or(429, |policy| policy.status())
}
