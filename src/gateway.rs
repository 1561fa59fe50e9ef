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
use http::{Method, Version, header};
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

    /// How long the connection is kept, unless client or framing already say that it is not.
    async fn early_request_filter(&self, session: &mut Session, _ctx: &mut Context) -> Result<()> {
        let kept = session
            .as_http1()
            .is_some_and(|http1| http1.will_keepalive());
        if self.running.is_draining() {
            session.set_keepalive(None);
        } else if kept {
            session.set_keepalive(Some(hygiene::KEEPALIVE_SECONDS));
            // what follows a chunked body is the next request only if everybody reads chunks alike
            let chunked = session
                .req_header()
                .headers
                .contains_key(header::TRANSFER_ENCODING);
            session.set_pipelining_enabled(!chunked);
        }
        hygiene::unnominate(session.req_header_mut())
    }

    /// Health check, then the decision. `true`: answered here. What answers is boxed, so that the
    /// future of an admitted request stays small.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if let Some(answer) = self.health_answer(session, ctx) {
            return Box::pin(answer.send(session, ctx)).await;
        }
        match self.decide(session, ctx) {
            Ok(0) => Ok(false),
            Ok(delay_us) => {
                let held = tokio::time::sleep(Duration::from_micros(delay_us));
                Box::pin(unless_client_leaves(session, held)).await?;
                Ok(false)
            }
            Err(rejection) => Box::pin(self.refuse(session, ctx, rejection)).await,
        }
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
        session: &mut Session,
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
            let place = match upstream.admission().enter_now() {
                Some(place) => Ok(place),
                None => {
                    let waits = upstream.admission().enter();
                    Box::pin(unless_client_leaves(session, waits)).await?
                }
            };
            match place {
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
                Ok(Box::new(HttpPeer::clone(&peer)))
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
        session: &mut Session,
        response: &mut pingora::http::ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        if let (Some(upstream), Some(index)) = (ctx.upstream(), ctx.upstream_peer) {
            upstream.answered(index);
        }
        // RFC 9112, 6.1: HTTP/1.0 knows no chunks; the end of the connection is the end of the body
        if session.req_header().version < Version::HTTP_11
            && !response.headers.contains_key(header::CONTENT_LENGTH)
        {
            response.remove_header(&header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        ratelimit_headers::add(response, ctx, None)
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
        if Box::pin(answer.send(session, ctx)).await.is_err() {
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
    /// Hygiene, client address, then route, identity and limits; returns how long to hold the
    /// request, in microseconds.
    fn decide(&self, session: &Session, ctx: &mut Context) -> Result<u64, Rejection> {
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
        if self.running.is_draining() {
            return Err(Rejection::Draining);
        }
        let host = host::normalise(&ctx.host);
        let request = Request {
            method: &header.method,
            host: &host,
            path: header.uri.path(),
            headers: &header.headers,
            ip: ctx.ip,
        };
        ctx.decided_us = self.running.clock.now_us();
        match admission::admit(&self.running, &ctx.snapshot, &request, ctx.decided_us) {
            Ok(Admitted {
                route,
                path,
                client,
                spent,
            }) => {
                ctx.path = (path != header.uri.path()).then(|| path.into_owned());
                ctx.route = Some(route);
                ctx.client = client;
                ctx.held = Held::new(&self.running, &spent.held);
                ctx.spent = spent;
            }
            Err(refused) => {
                ctx.route = refused.route;
                ctx.client = refused.client;
                ctx.spent = refused.spent;
                return Err(refused.rejection);
            }
        }
        match ctx.route().and_then(|route| route.max_body_bytes) {
            Some(most) if hygiene::declared_length(header) > most => Err(Rejection::BodyTooLarge),
            _ => Ok(ctx.spent.delay_us),
        }
    }

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

/// Waits for something, but no longer than the client does. A request with a body cannot be
/// watched without reading it; it waits to the end.
async fn unless_client_leaves<T>(
    session: &mut Session,
    waits: impl Future<Output = T>,
) -> Result<T> {
    if !session.is_body_empty() {
        return Ok(waits.await);
    }
    tokio::select! {
        done = waits => Ok(done),
        left = session.downstream_session.read_body_or_idle(true) => match left {
            Ok(_) => Error::e_explain(ErrorType::ReadError, "a body where there is none").map_err(|e| e.into_down()),
            Err(error) => Err(error.into_down()),
        },
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
