//! The main story: `tidegate demo`, and what a newcomer sees with curl.

use crate::gateway::{Output, Reaped, free_port, tidegate};
use crate::scratch::Scratch;
use crate::waiting;
use serde_json::Value;
use std::process::{Command, Stdio};

struct Demo {
    _child: Reaped,
    stdout: Output,
    port: u16,
    admin_port: u16,
    _scratch: Scratch,
}

/// Starts the demo; with other ports where somebody was quicker.
fn demo() -> Demo {
    for _ in 0..10 {
        let scratch = Scratch::new();
        let (port, admin_port) = (free_port(), free_port());
        let child = tidegate(scratch.path())
            .args(["demo", "--port", &port.to_string()])
            .args(["--admin-port", &admin_port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = Reaped(child.unwrap());
        let stdout = Output::of(child.0.stdout.take().unwrap());
        let mut ended = false;
        waiting::until("the demo has said what to try or ended", || {
            ended = child.0.try_wait().unwrap().is_some();
            ended || stdout.text().contains("Ctrl-C")
        });
        if !ended {
            return Demo {
                _child: child,
                stdout,
                port,
                admin_port,
                _scratch: scratch,
            };
        }
    }
    panic!("the demo does not start");
}

impl Demo {
    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Status codes of so many requests.
    fn statuses(&self, count: usize, path: &str, arguments: &[&str]) -> Vec<String> {
        let url = self.url(path);
        let one = |_| {
            let mut all = vec!["-o", "/dev/null", "-w", "%{http_code}"];
            all.extend(arguments);
            all.push(&url);
            curl(&all)
        };
        (0..count).map(one).collect()
    }
}

fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command
        .args(["-q", "-s", "--noproxy", "*", "--max-time", "10"])
        .args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn key(key: &str) -> [String; 2] {
    ["-H".into(), format!("X-API-Key: {key}")]
}

fn expected(passed: usize, refused: usize) -> Vec<String> {
    let mut all = vec!["200".to_owned(); passed];
    all.extend(vec!["429".to_owned(); refused]);
    all
}

#[test]
fn the_demo_says_what_to_try() {
    let demo = demo();
    let text = demo.stdout.text();
    for part in [
        &format!("localhost:{}", demo.port),
        &format!("localhost:{}", demo.admin_port),
        "curl",
        "X-API-Key: demo-free",
        "/api/data",
        "/api/search",
        "/api/upload",
        "/api/resource",
        "demo-pro",
        "test-client",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn the_demo_shows_a_line_of_what_passes() {
    let demo = demo();
    demo.statuses(11, "/api/data", &["-H", "X-API-Key: demo-free"]);
    demo.stdout
        .line_with("requests 11  passed 10  over a limit 1");
}

#[test]
fn demo_free_gets_ten_and_then_429_in_the_documented_form() {
    let demo = demo();
    let [flag, free] = key("demo-free");
    assert_eq!(
        demo.statuses(15, "/api/data", &[&flag, &free]),
        expected(10, 5)
    );
    let answer = curl(&["-i", &flag, &free, &demo.url("/api/data")]);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
        "{head}"
    );
    let lower = head.to_ascii_lowercase();
    for part in [
        "x-ratelimit-limit: 10",
        "x-ratelimit-remaining: 0",
        "x-ratelimit-strategy: sliding_window",
        "ratelimit-policy: \"data-per-client\";q=10;w=60",
        "ratelimit: \"data-per-client\";r=0;t=",
        "x-ratelimit-reset: 1",
        "retry-after: ",
        "content-type: application/problem+json",
    ] {
        assert!(lower.contains(part), "{part} is not in {head}");
    }
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["title"], "Too Many Requests");
    assert_eq!(body["status"], 429);
    assert_eq!(body["detail"], "Too many requests. Please retry later.");
    assert_eq!(body["policy"], "data-per-client");
    let wait = body["retry_after_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&wait), "{body}");
    assert!(!body["request_id"].as_str().unwrap().is_empty(), "{body}");
}

#[test]
fn demo_pro_gets_a_hundred() {
    let demo = demo();
    let [flag, pro] = key("demo-pro");
    let url = demo.url("/api/data");
    let mut arguments = vec![flag.as_str(), &pro];
    arguments.extend(std::iter::repeat_n(url.as_str(), 105));
    let answers = curl(&arguments);
    assert_eq!(
        answers.matches("\"sample\":\"data\"").count(),
        100,
        "{answers}"
    );
    assert_eq!(
        answers.matches("Please retry later").count(),
        5,
        "{answers}"
    );
}

#[test]
fn each_free_client_and_each_address_has_a_bucket_of_its_own() {
    let demo = demo();
    for name in ["demo-free", "test", "test-client"] {
        let [flag, value] = key(name);
        assert_eq!(
            demo.statuses(11, "/api/data", &[&flag, &value]),
            expected(10, 1),
            "{name}"
        );
    }
    assert_eq!(
        demo.statuses(11, "/api/data", &[]),
        expected(10, 1),
        "anonymous"
    );
}

#[test]
fn an_unknown_key_is_refused_and_not_taken_for_anonymous() {
    let demo = demo();
    assert_eq!(
        demo.statuses(1, "/api/data", &["-H", "X-API-Key: wrong"]),
        ["401"]
    );
}

#[test]
fn upload_takes_five_posts_and_nothing_else() {
    let demo = demo();
    let [flag, free] = key("demo-free");
    let answer = curl(&["-i", &flag, &free, &demo.url("/api/upload")]);
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("\r\nallow: post\r\n"),
        "{answer}"
    );
    let post = [flag.as_str(), &free, "-d", "some=thing"];
    assert_eq!(demo.statuses(6, "/api/upload", &post), expected(5, 1));
}

#[test]
fn search_and_resource_have_their_documented_limits() {
    let demo = demo();
    for (path, limit, window, strategy) in [
        ("/api/search", 30, 60, "token_bucket"),
        ("/api/resource", 100, 60, "sliding_window"),
    ] {
        let answer = curl(&["-i", "-H", "X-API-Key: test", &demo.url(path)]).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        assert!(
            answer.contains(&format!("x-ratelimit-limit: {limit}\r\n")),
            "{answer}"
        );
        assert!(
            answer.contains(&format!("q={limit};w={window}\r\n")),
            "{answer}"
        );
        assert!(
            answer.contains(&format!("x-ratelimit-strategy: {strategy}\r\n")),
            "{answer}"
        );
    }
}

#[test]
fn the_upstream_of_the_demo_hears_who_is_calling() {
    let demo = demo();
    let known: Value = serde_json::from_str(&curl(&[
        "-H",
        "X-API-Key: demo-pro",
        &demo.url("/api/search?q=1"),
    ]))
    .unwrap();
    assert_eq!(known["client"], "demo-pro");
    assert_eq!(known["tier"], "pro");
    assert_eq!(known["query"], "q=1");
    let unknown: Value = serde_json::from_str(&curl(&[&demo.url("/api/search")])).unwrap();
    assert_eq!(unknown["client"], Value::Null);
    assert_eq!(unknown["address"], "127.0.0.1");
}

#[test]
fn the_demo_has_health_metrics_and_a_start_page() {
    let demo = demo();
    demo.statuses(11, "/api/data", &["-H", "X-API-Key: demo-free"]);
    let admin = |path: &str| format!("http://localhost:{}{path}", demo.admin_port);
    assert!(curl(&[&admin("/health")]).contains("\"status\":\"ok\""));
    assert!(curl(&[&admin("/")]).contains("<html"));
    let metrics = curl(&[&admin("/metrics")]);
    for line in [
        "tidegate_decisions_total{outcome=\"allowed\",policy=\"data-per-client\"} 10",
        "tidegate_decisions_total{outcome=\"refused\",policy=\"data-per-client\"} 1",
        "tidegate_requests_total{route=\"data\",status=\"429\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(curl(&[&demo.url("/health")]).contains("\"status\":\"ok\""));
}
