//! THE REQUEST PATH: Pingora's phases in the order they run, top to bottom.

mod answer_headers;
mod client_address;
mod context;
mod deciding;
mod header_map;
mod hygiene;
mod ratelimit_headers;
mod rejection;
mod upstream_headers;
mod waiting;

use crate::admission::Rejection;
use crate::snapshot::Running;
use async_trait::async_trait;
use bytes::Bytes;
use context::Context;
use deciding::Decided;
use http::{Method, StatusCode, Version, header};
use pingora::prelude::{Error, HttpPeer, Result};
use pingora::{ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use std::sync::Arc;
use std::time::Duration;

/// The gateway: one value for each worker and kind of listener.
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
    // boxed: Pingora moves it by value through futures that are copied with every request
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new(self.running.clone()))
    }

    /// No modules: compression is the upstream's business.
    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    /// How long the connection is kept, unless client or framing already say that it is not.
    async fn early_request_filter(
        &self,
        session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> Result<()> {
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
        session.set_write_timeout(Some(hygiene::SEND_TIMEOUT));
        hygiene::unnominate(session.req_header_mut())
    }

    /// Health check, then the decision. `true`: answered here. What answers is boxed, so that the
    /// future of an admitted request stays small.
    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        if let Some(answer) = self.health_answer(session, ctx) {
            return Box::pin(answer.send(session, ctx)).await;
        }
        let decided = match self.decide(session, ctx) {
            Ok(Decided::Identifying(identifying)) => {
                Box::pin(self.wait_for_identity(identifying, session, ctx)).await
            }
            decided => decided,
        };
        let delay_us = match decided {
            Ok(Decided::Now(delay_us)) => Ok(delay_us),
            Ok(Decided::Later(pending)) => self.wait_for_store(pending, ctx).await,
            // identity is found out once
            Ok(Decided::Identifying(_)) => Err(Rejection::Internal),
            Err(rejection) => Err(rejection),
        };
        match delay_us {
            Ok(0) => Ok(false),
            Ok(delay_us) => {
                let held = tokio::time::sleep(Duration::from_micros(delay_us));
                Box::pin(waiting::unless_client_leaves(session, held)).await?;
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
        ctx: &mut Self::CTX,
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
        ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        let chosen = ctx.upstream.and_then(|index| ctx.snapshot.upstream(index));
        let (Some(upstream), Some(route)) = (chosen, ctx.route()) else {
            ctx.rejection = Some(Rejection::Internal);
            return Error::e_explain(
                ErrorType::InternalError,
                "a request without a route came to its upstream",
            );
        };
        if let (Some(gate), None) = (&route.gate, &ctx.route_place) {
            let place = gate.enter_now();
            if place.is_none() {
                self.running.metrics.queue_refused.inc();
                ctx.rejection = Some(Rejection::QueueFull);
                return Error::e_explain(ErrorType::HTTPStatus(503), "no place on the route");
            }
            ctx.route_place = place;
        }
        // who has waited looks at the clock again
        let mut now_us = ctx.decided_us;
        if ctx.spent.delay_us > 0 || ctx.waited || ctx.tries > 0 {
            now_us = self.running.clock.now_us();
        }
        if ctx.place.is_none() {
            let place = match upstream.admission().enter_now() {
                Some(place) => Ok(place),
                None => {
                    let waits = upstream.admission().enter();
                    let place = Box::pin(waiting::unless_client_leaves(session, waits)).await?;
                    now_us = self.running.clock.now_us();
                    place
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
        match upstream.choose(now_us) {
            Some((index, peer)) => {
                ctx.tries += 1;
                ctx.upstream_peer = Some(index);
                let mut peer = Box::new(HttpPeer::clone(&peer));
                if let Some(timeout) = ctx.route().and_then(|route| route.read_timeout) {
                    peer.options.read_timeout = Some(timeout);
                }
                Ok(peer)
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
        ctx: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let (Some(upstream), Some(index)) = (ctx.upstream(), ctx.upstream_peer) {
            upstream.failed(index, self.running.clock.now_us());
            error.set_retry(ctx.tries <= upstream.retries());
        }
        error
    }

    /// Another attempt if a kept connection turned out to be closed and the request may be repeated:
    /// beyond `retries` once, so that a peer that restarted is not an error.
    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {peer}"));
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated();
        let left = ctx
            .upstream()
            .is_some_and(|upstream| ctx.tries <= upstream.retries() + 1);
        if repeatable && left {
            error.retry.decide_reuse(client_reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    /// What the upstream is told beside the request itself.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut pingora::http::RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        upstream_headers::rewrite(request, ctx)?;
        upstream_headers::set(request, session.req_header(), ctx)
    }

    /// Rate-limit headers on the upstream's answer.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut pingora::http::ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if !is_final(response.status) {
            return Ok(());
        }
        if let (Some(upstream), Some(index)) = (ctx.upstream(), ctx.upstream_peer) {
            upstream.answered(index);
        }
        // RFC 9112, 6.1: HTTP/1.0 knows no chunks; the end of the connection is the end of the body
        if session.req_header().version < Version::HTTP_11
            && !response.headers.contains_key(header::CONTENT_LENGTH)
            && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            response.remove_header(&header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        answer_headers::change(response, ratelimit_headers::ADDED, |put| {
            ratelimit_headers::add(ctx, None, put)
        })
    }

    /// Something went wrong after the decision: the same table of rejections answers.
    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        let rejection = ctx.rejection.take().or_else(|| rejection::of_error(error));
        let begun = session
            .response_written()
            .is_some_and(|header| is_final(header.status));
        let (Some(rejection), false) = (rejection, begun) else {
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        };
        let answer = rejection::answer(&rejection, session.req_header(), ctx);
        let error_code = answer.status();
        ctx.refused_with = Some(answer.means());
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

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        ctx.place = None;
        ctx.route_place = None;
        ctx.held = None;
        ctx.spent.permits = None;
        let answered = session
            .response_written()
            .map(|header| header.status.as_u16());
        let status = ctx.refused_with.or(answered).unwrap_or(CLIENT_CLOSED);
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
    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, _error: &Error) -> bool {
        true
    }
}

/// Is this the answer itself? After 101 the connection belongs to another protocol.
fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
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
        ctx.refused_with = Some(answer.means());
        answer.send(session, ctx).await
    }
}
