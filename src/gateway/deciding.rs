//! The decision about a request, as the gateway asks for it: hygiene, client address, admission, and
//! the wait for a shared store.

use super::context::{Context, Held};
use super::{Gateway, client_address, hygiene};
use crate::admission::{self, Admitted, Pending, Rejection, Request, Spending, Spent};
use crate::route::host;
use pingora_proxy::Session;

/// A request that may pass after so many microseconds, or one that waits for the store.
pub(super) enum Decided {
    Now(u64),
    Later(Box<Pending>),
}

impl Gateway {
    /// Hygiene, client address, then route, identity and limits.
    pub(super) fn decide(
        &self,
        session: &Session,
        ctx: &mut Context,
    ) -> Result<Decided, Rejection> {
        let header = session.req_header();
        let checked = hygiene::check(header)?;
        ctx.spoofed = checked.spoofed;
        ctx.host = checked.host;
        if let Some(inet) = session.client_addr().and_then(|address| address.as_inet()) {
            ctx.peer = inet.ip();
        }
        let trusted = &ctx.snapshot.trusted_proxies;
        ctx.peer_trusted = client_address::is_trusted(ctx.peer, trusted);
        ctx.ip = client_address::find(ctx.peer, &header.headers, trusted);
        if ctx.peer_trusted {
            ctx.given_request_id = hygiene::request_id(header);
        }
        if self.running.is_draining() {
            return Err(Rejection::Draining);
        }
        let host = host::normalise(&ctx.host);
        if host.is_empty() && !ctx.host.is_empty() {
            // what we cannot read, an upstream may read as the host of another route
            return Err(Rejection::BadRequest(
                "the host is not a host name or address",
            ));
        }
        let request = Request {
            method: &header.method,
            host: &host,
            path: header.uri.path(),
            headers: &header.headers,
            ip: ctx.ip,
        };
        ctx.decided_us = self.running.clock.at_start_of(ctx.arrived);
        match admission::admit(&self.running, &ctx.snapshot, &request, ctx.decided_us) {
            Ok(Admitted {
                route,
                path,
                client,
                spending,
            }) => {
                ctx.path = (path != header.uri.path()).then(|| path.into_owned());
                ctx.route = Some(route);
                ctx.client = client;
                ctx.upstream = ctx.upstream_for_client();
                match spending {
                    Spending::Done(spent) => self.has_spent(ctx, spent),
                    Spending::Pending(pending) => {
                        ctx.declared_bytes = hygiene::declared_length(header);
                        return Ok(Decided::Later(pending));
                    }
                }
            }
            Err(refused) => {
                ctx.route = refused.route;
                ctx.client = refused.client;
                ctx.spent = refused.spent;
                return Err(refused.rejection);
            }
        }
        ctx.declared_bytes = hygiene::declared_length(header);
        Self::fits(ctx).map(Decided::Now)
    }

    /// The shared store's answer, or outage mode's at the deadline.
    pub(super) async fn wait_for_store(
        &self,
        pending: Box<Pending>,
        ctx: &mut Context,
    ) -> Result<u64, Rejection> {
        ctx.waited = true;
        let snapshot = ctx.snapshot.clone();
        let decided = pending.decided(&self.running, &snapshot, ctx.decided_us);
        match decided.await {
            Ok(spent) => self.has_spent(ctx, spent),
            Err(no_room) => {
                let (spent, rejection) = *no_room;
                ctx.spent = spent;
                return Err(rejection);
            }
        }
        Self::fits(ctx)
    }

    fn has_spent(&self, ctx: &mut Context, mut spent: Spent) {
        ctx.held = Held::new(&self.running, std::mem::take(&mut spent.held));
        ctx.spent = spent;
    }

    /// The body as announced is not too large; how long to hold the request, in microseconds.
    fn fits(ctx: &Context) -> Result<u64, Rejection> {
        match ctx.route().and_then(|route| route.max_body_bytes) {
            Some(most) if ctx.declared_bytes > most => Err(Rejection::BodyTooLarge),
            _ => Ok(ctx.spent.delay_us),
        }
    }
}
