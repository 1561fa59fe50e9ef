//! Keys of issuers over HTTPS, and redirects on the way to them.

use crate::gateway::{Gateway, Reaped, app};
use crate::redis::certificates::Certificates;
use crate::redis::ports;
use crate::scratch::Scratch;
use crate::token::{by_rsa, published};
use crate::upstream::Upstream;
use crate::waiting;
use serde_json::json;
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// `openssl s_server` that answers `/jwks` with keys, over TLS.
struct Issuer {
    _process: Reaped,
    port: u16,
    certificates: Certificates,
    _scratch: Scratch,
}

impl Issuer {
    fn start() -> Self {
        let scratch = Scratch::new();
        let certificates = Certificates::make(scratch.path());
        let keys = published(&[("rsa", "a")]);
        // it sends files as they are: header and body
        let length = keys.len();
        scratch.file(
            "jwks",
            &format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{keys}"),
        );
        for _ in 0..ports::ATTEMPTS {
            let port = ports::probably_free();
            let child = Command::new("openssl")
                .current_dir(scratch.path())
                .args(["s_server", "-quiet", "-HTTP", "-accept"])
                .arg(format!("127.0.0.1:{port}"))
                .arg("-cert")
                .arg(&certificates.cert)
                .arg("-key")
                .arg(&certificates.key)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut process = Reaped(child);
            let answers = waiting::find("the issuer listens or has ended", || {
                match process.0.try_wait().unwrap() {
                    Some(_) => Some(false),
                    None => TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true),
                }
            });
            if answers {
                return Issuer {
                    _process: process,
                    port,
                    certificates,
                    _scratch: scratch,
                };
            }
        }
        panic!("no port is free for the issuer");
    }
}

fn configuration(upstream: &Upstream, url: &str) -> String {
    format!(
        "{}routes: [{{ name: app, upstream: app, auth: required }}]\nauth: {{ jwt: {{ algorithms: [RS256], jwks_url: \"{url}\" }} }}\n",
        app(upstream.address)
    )
}

fn status(gateway: &Gateway) -> u16 {
    let token = by_rsa("rsa", "a", json!({ "sub": "acme" }));
    gateway.get_with("/", &[("Authorization", &token)]).status
}

#[test]
fn an_issuers_certificate_must_be_one_that_the_system_trusts() {
    let issuer = Issuer::start();
    let upstream = Upstream::echo();
    let url = format!("https://localhost:{}/jwks", issuer.port);
    let configuration = configuration(&upstream, &url);
    let ca = issuer.certificates.ca.to_str().unwrap();
    let trusting = Gateway::start_in(&[("SSL_CERT_FILE", ca)], &configuration);
    assert_eq!(status(&trusting), 200, "{}", trusting.stderr.text());
    let wary = Gateway::start(&configuration);
    assert_eq!(status(&wary), 503, "nobody knows the issuer's keys");
    wary.stderr.line_with("certificate");
}

#[test]
fn redirects_are_followed_a_few_times_and_never_in_a_circle() {
    let keys = published(&[("rsa", "a")]);
    let target = Upstream::scripted(move |exchange| exchange.answer(&keys));
    let to = format!("http://{}/keys", target.address);
    let once = Upstream::scripted(move |exchange| {
        exchange.write(format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
        ))?;
        Ok(crate::upstream::Then::Keep)
    });
    let circle = Upstream::scripted(|exchange| {
        exchange.write("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")?;
        Ok(crate::upstream::Then::Keep)
    });
    let upstream = Upstream::echo();
    let led = Gateway::start(&configuration(
        &upstream,
        &format!("http://{}/", once.address),
    ));
    assert_eq!(status(&led), 200);
    let lost = Gateway::start(&configuration(
        &upstream,
        &format!("http://{}/", circle.address),
    ));
    assert_eq!(status(&lost), 503);
    assert!(circle.requests() <= 8, "{}", circle.requests());
}
