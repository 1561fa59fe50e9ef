//! The demo's sample upstreams: small JSON answers that show what the gateway forwarded.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Starts them on a free port of their own thread; the thread lives as long as the process.
pub(super) fn start() -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("samples".into())
        .spawn(move || {
            let served = runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, Router::new().fallback(answer)).await
            });
            if let Err(error) = served {
                tracing::error!("the sample upstreams stopped: {error}");
            }
        })?;
    Ok(address)
}

async fn answer(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let seen = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    Json(json!({
        "sample": uri.path().trim_start_matches("/api/").trim_matches('/'),
        "method": method.as_str(),
        "path": uri.path(),
        "query": uri.query(),
        "body_bytes": body.len(),
        "client": seen("x-tidegate-client"),
        "tier": seen("x-tidegate-tier"),
        "address": seen("x-forwarded-for"),
        "request_id": seen("x-request-id"),
    }))
}
