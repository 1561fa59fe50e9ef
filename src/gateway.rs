//! THE REQUEST PATH: Pingora's phases in the order they run, top to bottom.

mod client_address;
mod context;
mod hygiene;
mod ratelimit_headers;
mod rejection;
mod upstream_headers;

use crate::admission::{self, Admitted, Rejection, Request};
use crate::route::host;
use crate::snapshot::Running;
use async_trait::async_trait;
use bytes::Bytes;
use context::{Context, Held};
use http::Method;
use pingora::prelude::{Error, HttpPeer, Result};
use pingora::{ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use std::sync::Arc;
use std::time::Duration;

/// The gateway: one value for all listeners.
pub struct Gateway {
    running: Arc<Running>,
}

impl Gateway {
    /// Serves what runs.
    pub fn new(running: Arc<Running>) -> Self {
        Gateway { running }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.running.clone())
    }

    /// No modules: compression is the upstream's business.
    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _ctx: &mut Context) -> Result<()> {
        if self.running.is_draining() {
            session.set_keepalive(None);
        } else {
            session.set_keepalive(Some(hygiene::KEEPALIVE_SECONDS));
        }
        Ok(())
    }

    /// Health check, hygiene, client address, then the decision. `true`: answered here.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let snapshot = ctx.snapshot.clone();
        if let Some(answer) = self.health_answer(session, ctx) {
            return answer.send(session, ctx).await;
        }
        match hygiene::check(session.req_header()) {
            Ok(checked) => {
                ctx.spoofed = checked.spoofed;
                ctx.host = checked.host;
            }
            Err(rejection) => return self.refuse(session, ctx, rejection).await,
        }
        ctx.peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .map_or(ctx.peer, |inet| inet.ip());
        let header = session.req_header();
        ctx.peer_trusted = client_address::is_trusted(ctx.peer, &snapshot.trusted_proxies);
        ctx.ip = client_address::find(ctx.peer, &header.headers, &snapshot.trusted_proxies);
        if self.running.is_draining() {
            return self.refuse(session, ctx, Rejection::Draining).await;
        }
        let host = host::normalise(&ctx.host);
        let request = Request {
            method: &header.method,
            host: &host,
            path: header.uri.path(),
            headers: &header.headers,
            ip: ctx.ip,
        };
        let now_us = self.running.clock.now_us();
        let decided = admission::admit(&self.running, &snapshot, &request, now_us);
        let Admitted {
            route,
            path,
            client,
            spent,
        } = match decided {
            Ok(admitted) => admitted,
            Err(refused) => {
                ctx.route = refused.route;
                ctx.client = refused.client;
                ctx.spent = refused.spent;
                return self.refuse(session, ctx, refused.rejection).await;
            }
        };
        ctx.path = (path != header.uri.path()).then(|| path.into_owned());
        ctx.route = Some(route);
        ctx.client = client;
        ctx.held = Held::new(&self.running, &spent.held);
        let delay_us = spent.delay_us;
        ctx.spent = spent;
        let declared = hygiene::declared_length(session.req_header());
        if ctx
            .route()
            .and_then(|route| route.max_body_bytes)
            .is_some_and(|most| declared > most)
        {
            return self.refuse(session, ctx, Rejection::BodyTooLarge).await;
        }
        if delay_us > 0 {
            tokio::time::sleep(Duration::from_micros(delay_us)).await;
        }
        Ok(false)
    }

    /// Counts a streamed body against the route's limit.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        let Some(most) = ctx.route().and_then(|route| route.max_body_bytes) else {
            return Ok(());
        };
        ctx.body_bytes += body.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if ctx.body_bytes > most {
            ctx.rejection = Some(Rejection::BodyTooLarge);
            return Error::e_explain(ErrorType::HTTPStatus(413), "request body too large");
        }
        Ok(())
    }

    /// A place at the upstream, once; then a peer, anew for every attempt.
    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let Some(upstream) = ctx.upstream() else {
            ctx.rejection = Some(Rejection::Internal);
            return Error::e_explain(
                ErrorType::InternalError,
                "a request without a route came to its upstream",
            );
        };
        if ctx.place.is_none() {
            match upstream.admission().enter().await {
                Ok(place) => ctx.place = Some(place),
                Err(no_place) => {
                    self.running.metrics.queue_refused.inc();
                    ctx.rejection = Some(no_place.into());
                    return Error::e_explain(
                        ErrorType::HTTPStatus(503),
                        "no place at the upstream",
                    );
                }
            }
        }
        match upstream.choose(self.running.clock.now_us()) {
            Some((index, peer)) => {
                ctx.tries += 1;
                ctx.upstream_peer = Some(index);
                Ok(Box::new(peer))
            }
            None => {
                ctx.rejection = Some(Rejection::UpstreamFailed);
                Error::e_explain(
                    ErrorType::HTTPStatus(502),
                    "no peer of the upstream has an address",
                )
            }
        }
    }

    /// Another attempt if the upstream may have one: nothing was sent, so any method may be tried again.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let (Some(upstream), Some(index)) = (ctx.upstream(), ctx.upstream_peer) {
            upstream.failed(index, self.running.clock.now_us());
            error.set_retry(ctx.tries <= upstream.retries());
        }
        error
    }

    /// What the upstream is told beside the request itself.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut pingora::http::RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        upstream_headers::rewrite(request, ctx)?;
        upstream_headers::set(request, session.req_header(), ctx)
    }

    /// Rate-limit headers on the upstream's answer.
    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut pingora::http::ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        if let (Some(upstream), Some(index)) = (ctx.upstream(), ctx.upstream_peer) {
            upstream.answered(index);
        }
        let wall_us = self.running.clock.now_us();
        ratelimit_headers::add(response, &ctx.snapshot, &ctx.spent, None, wall_us)
    }

    /// Something went wrong after the decision: the same table of rejections answers.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let rejection = ctx.rejection.take().or_else(|| rejection_of(error));
        let begun = session
            .response_written()
            .is_some_and(|header| !header.status.is_informational());
        let (Some(rejection), false) = (rejection, begun) else {
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        };
        let answer = rejection::answer(&rejection, session.req_header(), ctx);
        let error_code = answer.status();
        session.set_keepalive(None);
        if answer.send(session, ctx).await.is_err() {
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        }
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        ctx.place = None;
        ctx.held = None;
        let answered = session
            .response_written()
            .map(|header| header.status.as_u16());
        let status = answered.unwrap_or(CLIENT_CLOSED);
        let metrics = ctx
            .route()
            .map_or(self.running.metrics.no_route(), |route| &route.metrics);
        metrics.observe(status, ctx.arrived.elapsed());
        if let Some(error) = error.filter(|error| *error.esource() == ErrorSource::Upstream) {
            tracing::warn!(
                route = ctx.route().map(|route| route.name.as_str()),
                request_id = ctx.request_id(),
                status,
                tries = ctx.tries,
                "upstream failed: {error}"
            );
        }
    }

    /// Logged in `logging`, once, with what an operator needs.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }
}

/// The client left before there was an answer (nginx's status for it).
const CLIENT_CLOSED: u16 = 499;

impl Gateway {
    fn health_answer(&self, session: &Session, ctx: &Context) -> Option<rejection::Answer> {
        let header = session.req_header();
        let is_health = ctx.snapshot.health_path.as_deref() == Some(header.uri.path());
        if !is_health || !matches!(header.method, Method::GET | Method::HEAD) {
            return None;
        }
        let health = self.running.health(ctx.snapshot.health_detail);
        Some(rejection::Answer::json(
            health.status,
            health.body,
            header.method == Method::HEAD,
        ))
    }

    async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        rejection: Rejection,
    ) -> Result<bool> {
        if matches!(rejection, Rejection::Draining) || !hygiene::read_away_body(session).await {
            session.set_keepalive(None);
        }
        let answer = rejection::answer(&rejection, session.req_header(), ctx);
        answer.send(session, ctx).await
    }
}

/// What an error of Pingora's means for the client; `None`: there is nobody left to tell.
fn rejection_of(error: &Error) -> Option<Rejection> {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ConnectTimedout | ReadTimedout | WriteTimedout) => {
            Some(Rejection::UpstreamTimedOut)
        }
        (ErrorSource::Upstream, _) => Some(Rejection::UpstreamFailed),
        (ErrorSource::Downstream, ReadError | WriteError | ConnectionClosed | WriteTimedout) => {
            None
        }
        (ErrorSource::Downstream, _) => Some(Rejection::BadRequest("the request is malformed")),
        (ErrorSource::Internal | ErrorSource::Unset, _) => Some(Rejection::Internal),
    }
}
