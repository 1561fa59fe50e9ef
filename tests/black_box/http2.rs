//! HTTP/2 without TLS, end to end: bodies, trailers, gRPC refusals.

use crate::gateway::Gateway;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// What came back over HTTP/2.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// An upstream that answers every request with its path and a `grpc-status` trailer.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let path = request.uri().path().to_owned();
                    let answer = Response::builder().header("content-type", "application/grpc");
                    let mut body = respond
                        .send_response(answer.body(()).unwrap(), false)
                        .unwrap();
                    body.send_data(Bytes::from(path), false).unwrap();
                    let trailers = [("grpc-status", "0"), ("x-checksum", "42")];
                    let trailers = trailers.map(|(name, value)| {
                        (
                            name.parse::<http::HeaderName>().unwrap(),
                            value.parse().unwrap(),
                        )
                    });
                    body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
                }
            });
        }
    });
    address
}

async fn ask(gateway: SocketAddr, path: &str) -> Answer {
    let socket = TcpStream::connect(gateway).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://{gateway}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (response, _) = client
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let (head, mut incoming) = response.await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = incoming.data().await {
        body.extend_from_slice(&chunk.unwrap());
    }
    let trailers = incoming.trailers().await.unwrap();
    driver.abort();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        trailers,
    }
}

fn start(upstream: SocketAddr) -> Gateway {
    Gateway::start_with_http2(&format!(
        "upstreams: {{ app: {{ protocol: h2c, peers: [{{ address: \"{upstream}\" }}] }} }}\n\
         routes: [{{ name: app, upstream: app, rewrite: {{ strip_prefix: /api }} }}]\n\
         policies: {{ two: {{ key: [client], algorithm: sliding_window, quota: {{ count: 2, period: 1h }} }} }}\n"
    ))
}

#[tokio::test]
async fn trailers_pass_and_a_refusal_is_a_grpc_status() {
    let gateway = start(upstream().await);
    for _ in 0..2 {
        let answer = ask(gateway.address, "/api/service/Method").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, b"/service/Method");
        let trailers = answer.trailers.expect("trailers pass");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-checksum"], "42");
    }
    let refused = ask(gateway.address, "/api/service/Method").await;
    assert_eq!(refused.status, 200);
    assert_eq!(refused.headers["grpc-status"], "8");
    assert_eq!(refused.headers["content-type"], "application/grpc");
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.body.is_empty());
}

#[tokio::test]
async fn a_listener_for_http2_takes_http1_too() {
    let gateway = start(upstream().await);
    assert_eq!(gateway.get("/health").status, 200);
}
