//! The decision about a request, as the gateway asks for it: hygiene, client address, admission, and
//! the waits for an identity and for a shared store.

use super::context::{Context, Held};
use super::{Gateway, client_address, hygiene, upstream_headers};
use crate::admission::{
    self, Admission, Admitted, Identifying, Pending, Refused, Rejection, Request, Spending, Spent,
};
use crate::route::host;
use pingora::http::RequestHeader;
use pingora_proxy::Session;

/// A request that may pass after so many microseconds, or one that waits.
pub(super) enum Decided {
    Now(u64),
    /// for who is calling
    Identifying(Box<Identifying>),
    /// for the store
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
        ctx.decided_us = self.running.clock.at_start_of(ctx.arrived);
        let request = request(header, &host, ctx);
        match admission::admit(&self.running, &ctx.snapshot, &request, ctx.decided_us) {
            Ok(Admission::Admitted(admitted)) => {
                let (found, path) = admitted.split(header.uri.path());
                ctx.path = path;
                self.admitted(header, ctx, found)
            }
            Ok(Admission::Identifying(identifying)) => Ok(Decided::Identifying(identifying)),
            Err(refused) => Err(Self::refused(ctx, *refused)),
        }
    }

    /// Who is calling, however long it takes to find out (never longer than the deadlines), then the limits.
    pub(super) async fn wait_for_identity(
        &self,
        mut identifying: Box<Identifying>,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Decided, Rejection> {
        ctx.waited = true;
        let snapshot = ctx.snapshot.clone();
        let identified = identifying.identified(&self.running, &snapshot).await;
        let identity = identified.map_err(|refused| Self::refused(ctx, *refused))?;
        // spent now, not when it arrived
        ctx.decided_us = self.running.clock.now_us();
        let header = session.req_header();
        let host = host::normalise(&ctx.host);
        let request = request(header, &host, ctx);
        let (route, path) = (identifying.route, identifying.path.into());
        let now_us = ctx.decided_us;
        match admission::admit_as(
            &self.running,
            &snapshot,
            &request,
            route,
            path,
            identity,
            now_us,
        ) {
            Ok(admitted) => {
                let (found, path) = admitted.split(header.uri.path());
                ctx.path = path;
                self.admitted(header, ctx, found)
            }
            Err(refused) => Err(Self::refused(ctx, *refused)),
        }
    }

    fn admitted(
        &self,
        header: &RequestHeader,
        ctx: &mut Context,
        admitted: Admitted<'static>,
    ) -> Result<Decided, Rejection> {
        ctx.route = Some(admitted.route);
        ctx.identity = admitted.identity;
        ctx.upstream = ctx.upstream_for_client();
        ctx.declared_bytes = hygiene::declared_length(header);
        match admitted.spending {
            Spending::Done(spent) => self.has_spent(ctx, spent),
            Spending::Pending(pending) => return Ok(Decided::Later(pending)),
        }
        Self::fits(ctx).map(Decided::Now)
    }

    fn refused(ctx: &mut Context, refused: Refused) -> Rejection {
        ctx.route = refused.route;
        ctx.refused_client = refused.client;
        ctx.spent = refused.spent;
        refused.rejection
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

/// The parts of a request that admission decides by.
fn request<'a>(header: &'a RequestHeader, host: &'a str, ctx: &Context) -> Request<'a> {
    Request {
        method: &header.method,
        scheme: upstream_headers::scheme(header, ctx),
        host,
        path: header.uri.path(),
        query: header.uri.query(),
        headers: &header.headers,
        ip: ctx.ip,
    }
}
