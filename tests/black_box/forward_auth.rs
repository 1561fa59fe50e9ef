//! A URL that is asked about every request, as nginx's `auth_request` does.

use crate::gateway::{Gateway, app};
use crate::upstream::{Exchange, Then, Upstream, header_in, headers_in, nobody};
use std::io::Result;
use std::net::SocketAddr;

/// Says yes to `Bearer good-<name>`, no to `Bearer banned`, 401 to the rest; other words cause other answers.
fn authority() -> Upstream {
    Upstream::scripted(|exchange| {
        let said = exchange.header("authorization").unwrap_or("").to_owned();
        let answer = |head: String| format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        match said.strip_prefix("Bearer ").unwrap_or("") {
            "banned" => exchange.write(answer("403 Forbidden".into()))?,
            "broken" => exchange.write(answer("500 Oops".into()))?,
            "chatty" => {
                exchange.answer("a body nobody wants")?;
            }
            "redirect" => exchange.write(answer("302 Found\r\nLocation: /login".into()))?,
            "bare" => exchange.write(answer("401 Unauthorized".into()))?,
            "two" => exchange.write(answer(
                "401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic realm=\"x\"".into(),
            ))?,
            "slow" => {
                std::thread::sleep(std::time::Duration::from_millis(300));
                exchange.write(answer("204 No Content".into()))?;
            }
            "closes" => return Ok(Then::Close),
            "silent" => return silent(exchange),
            good if good.starts_with("good-") => exchange.write(answer(format!(
                "204 No Content\r\nX-User: {0}\r\nX-Group: a\r\nX-Group: b\r\nX-Plan: pro\r\nX-Secret: s\r\nX-Tidegate-Client: evil",
                &good[5..]
            )))?,
            _ => exchange.write(answer(
                "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"authority\"".into(),
            ))?,
        }
        Ok(Then::Keep)
    })
}

/// Waits until the other side gives up.
fn silent(exchange: &mut Exchange) -> Result<Then> {
    use std::io::Read;
    let _ = exchange.stream.read(&mut [0; 1]);
    Ok(Then::Close)
}

fn with(upstream: &Upstream, authority: SocketAddr, settings: &str, rest: &str) -> Gateway {
    Gateway::start(&configuration(upstream, authority, settings, rest))
}

fn configuration(upstream: &Upstream, authority: SocketAddr, settings: &str, rest: &str) -> String {
    format!(
        "{}tiers: {{ pro: {{}} }}
clients: {{ acme: {{ api_keys: [{{ plain: key-of-acme }}] }} }}
routes:
  - name: app
    upstream: app
    forward_auth: {{ url: 'http://{authority}/verify?x=1', copy_headers: [X-User, X-Group], timeout: 300ms{settings} }}
{rest}",
        app(upstream.address)
    )
}

fn ask(gateway: &Gateway, said: &str) -> crate::client::Response {
    let said = format!("Bearer {said}");
    gateway.get_with("/a/b?c=d", &[("Authorization", &said)])
}

#[test]
fn a_yes_lets_the_request_pass_with_the_headers_it_brings() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, "", "");
    let headers = [
        ("Authorization", "Bearer good-ann"),
        ("Cookie", "session=1"),
        ("Cookie", "other=2"),
        ("X-User", "root"),
        ("X_User", "root"),
        ("X-Group", "admins"),
        ("X-Other", "mine"),
        ("Connection", "keep-alive, X-User"),
        ("Host", "api.example.com"),
    ];
    let answer = gateway.get_with("/a/b?c=d", &headers);
    assert_eq!(answer.status, 200, "{answer}");
    let seen = answer.text();
    assert_eq!(header_in(&seen, "x-user"), Some("ann"));
    assert_eq!(header_in(&seen, "x_user"), None);
    assert_eq!(headers_in(&seen, "x-group"), ["a", "b"]);
    let nominated = headers_in(&seen, "connection").concat().to_lowercase();
    assert!(!nominated.contains("x-user"), "{seen}");
    assert_eq!(header_in(&seen, "x-other"), Some("mine"));
    assert_eq!(header_in(&seen, "x-secret"), None);
    assert_eq!(header_in(&seen, "x-tidegate-client"), None);
    assert_eq!(header_in(&seen, "authorization"), Some("Bearer good-ann"));
    let asked = authority.only_head();
    assert!(asked.starts_with("GET /verify?x=1 HTTP/1.1\r\n"), "{asked}");
    for (name, value) in [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "api.example.com"),
        ("x-forwarded-uri", "/a/b?c=d"),
        ("x-forwarded-for", "127.0.0.1"),
        ("authorization", "Bearer good-ann"),
    ] {
        assert_eq!(header_in(&asked, name), Some(value), "{asked}");
    }
    assert_eq!(headers_in(&asked, "cookie"), ["session=1", "other=2"]);
    assert_eq!(header_in(&asked, "x-other"), None);
}

#[test]
fn the_question_is_a_get_without_a_body_whatever_the_request_is() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, "", "");
    let headers = [("Authorization", "Bearer good-ann")];
    let mut connection = gateway.connect();
    for _ in 0..3 {
        let answer = connection.request("POST", "/form", &headers, b"a body");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(upstream.bodies(), vec![b"a body".to_vec(); 3]);
    for asked in authority.heads() {
        assert!(asked.starts_with("GET "), "{asked}");
        assert_eq!(header_in(&asked, "x-forwarded-method"), Some("POST"));
        assert_eq!(header_in(&asked, "content-length"), None);
    }
}

#[test]
fn it_is_asked_about_the_path_the_upstream_gets() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, "", "");
    let headers = [("Authorization", "Bearer good-ann")];
    for (came, asked) in [
        ("/public/../admin/x", "/admin/x"),
        ("/%61dmin/x?y=%61", "/admin/x?y=%61"),
        ("/admin?y=\u{fc}", "/admin?y=%C3%BC"),
    ] {
        let seen = gateway.get_with(came, &headers).text();
        let path = asked.split('?').next().unwrap();
        let line = seen.lines().next().unwrap_or_default();
        assert!(line.starts_with(&format!("GET {path}")), "{came}: {seen}");
        let question = authority.heads().pop().unwrap();
        assert_eq!(header_in(&question, "x-forwarded-uri"), Some(asked));
    }
}

#[test]
fn the_log_has_no_query_of_the_url_and_no_proxy_comes_between() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let proxy = format!("http://{}", nobody());
    let gateway = Gateway::start_in(
        &[
            ("HTTP_PROXY", &proxy),
            ("http_proxy", &proxy),
            ("ALL_PROXY", &proxy),
        ],
        &configuration(&upstream, authority.address, "", ""),
    );
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    assert_eq!(ask(&gateway, "broken").status, 503);
    let line = gateway
        .stderr
        .line_with("forward_auth says neither yes nor no");
    assert!(line.contains("/verify?***"), "{line}");
    assert!(!line.contains("x=1"), "{line}");
}

#[test]
fn a_no_is_passed_on_with_its_challenge() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, "", "");
    let refusal = ask(&gateway, "nonsense");
    assert_eq!(refusal.status, 401, "{refusal}");
    assert_eq!(
        refusal.header("WWW-Authenticate"),
        Some("Bearer realm=\"authority\"")
    );
    let refusal = ask(&gateway, "banned");
    assert_eq!(
        (refusal.status, refusal.header("WWW-Authenticate")),
        (403, None)
    );
    assert_eq!(refusal.json()["status"], 403);
    let refusal = ask(&gateway, "bare");
    assert_eq!(
        (refusal.status, refusal.header("WWW-Authenticate")),
        (401, Some("ApiKey realm=\"tidegate\"")),
        "no 401 without a challenge"
    );
    let refusal = ask(&gateway, "two").to_string();
    for challenge in ["\"Bearer\"", "Basic realm="] {
        assert!(refusal.contains(challenge), "{refusal}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn whatever_says_neither_yes_nor_no_is_503_and_named_in_the_log() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, "", "");
    for said in ["broken", "redirect", "closes", "silent"] {
        let refusal = ask(&gateway, said);
        assert_eq!(refusal.status, 503, "{said}: {refusal}");
        assert!(refusal.number("Retry-After") >= 1);
    }
    assert_eq!(upstream.requests(), 0);
    gateway
        .stderr
        .line_with("forward_auth says neither yes nor no");
    let unavailable =
        "tidegate_authentications_total{method=\"forward_auth\",outcome=\"unavailable\"}";
    assert_eq!(gateway.metric(unavailable), 4.0);
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    let gateway = with(&upstream, nobody(), "", "");
    assert_eq!(ask(&gateway, "good-ann").status, 503);
}

#[test]
fn it_may_name_client_and_tier_which_policies_count_by() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let policy = "policies: { p: { key: [client], algorithm: sliding_window, quota: { count: 1, period: 1h }, tiers: { pro: { count: 2, period: 1h } } } }\n";
    let gateway = with(
        &upstream,
        authority.address,
        ", client_header: X-User, tier_header: X-Plan",
        policy,
    );
    let seen = ask(&gateway, "good-ann").text();
    assert_eq!(header_in(&seen, "x-tidegate-client"), Some("ann"));
    assert_eq!(header_in(&seen, "x-tidegate-tier"), Some("pro"));
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    assert_eq!(ask(&gateway, "good-ann").status, 429);
    assert_eq!(ask(&gateway, "good-bob").status, 200);
    assert_eq!(ask(&gateway, "good-a b").status, 503, "no client's id");
}

#[test]
fn with_a_cache_it_is_asked_once_for_the_same_credentials() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, ", cache: 1h", "");
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "good-ann").status, 200);
        assert_eq!(ask(&gateway, "banned").status, 403);
        assert_eq!(ask(&gateway, "broken").status, 503);
    }
    let seen = ask(&gateway, "good-ann").text();
    assert_eq!(header_in(&seen, "x-user"), Some("ann"));
    let asked = |said: &str| {
        let heads = authority.heads();
        heads.iter().filter(|head| head.contains(said)).count()
    };
    assert_eq!(
        [asked("good-ann"), asked("banned"), asked("broken")],
        [1, 1, 3]
    );
    assert_eq!(ask(&gateway, "good-bob").status, 200);
    assert_eq!(asked("good-bob"), 1);
}

#[test]
fn without_a_cache_it_is_asked_every_time() {
    let connections = || {
        let (upstream, authority) = (Upstream::echo(), authority());
        let gateway = with(&upstream, authority.address, "", "");
        for _ in 0..3 {
            assert_eq!(ask(&gateway, "good-ann").status, 200);
        }
        assert_eq!(authority.requests(), 3);
        for _ in 0..3 {
            assert_eq!(ask(&gateway, "chatty").status, 200);
        }
        assert_eq!(authority.requests(), 6);
        authority.connections()
    };
    // on a busy machine a question may come before the last one's connection is back, but not each time
    let fewest = (0..4).map(|_| connections()).min();
    assert_eq!(fewest, Some(1), "one connection is used again");
}

#[test]
fn credentials_of_our_own_come_first_and_must_agree_with_its_word() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(
        &upstream,
        authority.address,
        ", client_header: X-User",
        "    auth: optional\n",
    );
    let status = |key: &str, said: &str| {
        let headers = [("X-API-Key", key), ("Authorization", said)];
        gateway.get_with("/", &headers).status
    };
    assert_eq!(status("wrong", "Bearer good-acme"), 401);
    assert_eq!(authority.requests(), 0, "a wrong key costs no question");
    assert_eq!(status("key-of-acme", "Bearer good-acme"), 200);
    assert_eq!(status("key-of-acme", "Bearer good-ann"), 401);
}

#[test]
fn a_preflight_is_not_asked_about() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(&upstream, authority.address, "", "");
    let preflight = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "PUT"),
    ];
    assert_eq!(gateway.send("OPTIONS", "/", &preflight).status, 200);
    assert_eq!(authority.requests(), 0);
}

#[test]
fn with_a_cache_those_who_come_at_once_are_one_question() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let text = configuration(&upstream, authority.address, ", cache: 1h", "");
    let gateway = Gateway::start(&text.replace("timeout: 300ms", "timeout: 10s"));
    let ready = std::sync::Barrier::new(20);
    let one = || {
        let mut connection = gateway.connect();
        ready.wait();
        let headers = [("Authorization", "Bearer slow")];
        connection.request("GET", "/", &headers, b"").status
    };
    std::thread::scope(|threads| {
        let all: Vec<_> = (0..20).map(|_| threads.spawn(one)).collect();
        for one in all {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
    assert_eq!(authority.requests(), 1);
}

#[test]
fn wrong_credentials_count_and_under_guard_none_are_asked_about() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(
        &upstream,
        authority.address,
        ", cache: 1h",
        "auth: { failures: { count: 3, period: 1h } }\n",
    );
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    assert_eq!(ask(&gateway, "banned").status, 403);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 401, "no credential, no guess");
    }
    for guess in ["a", "b", "c"] {
        assert_eq!(ask(&gateway, guess).status, 401);
    }
    let before = authority.requests();
    let refusal = ask(&gateway, "good-bob");
    assert_eq!(refusal.status, 429, "{refusal}");
    assert!(refusal.number("Retry-After") >= 1);
    assert_eq!(authority.requests(), before, "a guess costs no question");
    assert_eq!(ask(&gateway, "good-ann").status, 200, "remembered");
    assert_eq!(gateway.get("/").status, 401);
    assert_eq!(gateway.metric("tidegate_auth_failures_total "), 3.0);
}

#[test]
fn another_client_than_the_proven_one_counts_as_a_wrong_credential() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let gateway = with(
        &upstream,
        authority.address,
        ", client_header: X-User",
        "    auth: optional\nauth: { failures: { count: 2, period: 1h } }\n",
    );
    let status = |said: &str| {
        let headers = [("X-API-Key", "key-of-acme"), ("Authorization", said)];
        gateway.get_with("/", &headers).status
    };
    assert_eq!(status("Bearer good-acme"), 200);
    assert_eq!(status("Bearer good-ann"), 401);
    assert_eq!(status("Bearer good-ann"), 401);
    assert_eq!(status("Bearer good-acme"), 429);
}

#[test]
fn answers_stay_remembered_when_a_policy_changes() {
    let (upstream, authority) = (Upstream::echo(), authority());
    let text = |rest: &str| configuration(&upstream, authority.address, ", cache: 1h", rest);
    let gateway = Gateway::start(&text(""));
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    gateway.reload(&text(
        "policies: { p: { key: [ip], algorithm: token_bucket, quota: { count: 9, period: 1h } } }\n",
    ));
    crate::waiting::until("it is reloaded", || {
        gateway.lines_with("configuration reloaded") == 1
    });
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    assert_eq!(authority.requests(), 1);
    gateway.reload(&text("").replace("pro: {}", "gold: {}"));
    crate::waiting::until("it is reloaded", || {
        gateway.lines_with("configuration reloaded") == 2
    });
    assert_eq!(ask(&gateway, "good-ann").status, 200);
    assert_eq!(
        authority.requests(),
        2,
        "a tier may mean something else now"
    );
}
