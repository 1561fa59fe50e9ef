//! The command line: check, run, schema, help, and what they say when something is wrong.

use crate::gateway::{EVERYTHING, app, outcome, tidegate};
use crate::scratch::Scratch;
use crate::upstream::nobody;
use std::net::TcpListener;

const MISTAKES: &str = "listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
upstreams: { app: { peers: [{ address: 127.0.0.1:1 }], conect_timeout: 1s } }
routes:
  - { name: app, upstream: ap }
policies:
  p:
    key: [client]
    algorithm: token_buckt
    quota: { count: 0, period: 60 }
";

/// Where each of [`MISTAKES`] is, and a word its hint must contain.
const PLACES: [(&str, &str); 5] = [
    ("bad.yaml:3:56: ", "connect_timeout"),
    ("bad.yaml:5:28: ", "`app`"),
    ("bad.yaml:9:16: ", "token_bucket"),
    ("bad.yaml:10:21: ", "1"),
    ("bad.yaml:10:32: ", "60s"),
];

fn sound() -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\n{}{EVERYTHING}",
        app(nobody())
    )
}

#[test]
fn check_and_run_name_every_mistake_with_its_place_and_a_hint() {
    let scratch = Scratch::new();
    scratch.file("bad.yaml", MISTAKES);
    for command in ["check", "run", "simulate"] {
        let (code, out, err) = outcome(tidegate(scratch.path()).args([command, "-c", "bad.yaml"]));
        assert_eq!(code, Some(1), "{command}: {err}");
        assert_eq!(out, "", "{command}");
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), PLACES.len(), "{command}: {err}");
        for (line, (place, hint)) in lines.iter().zip(PLACES) {
            assert!(line.starts_with(place), "{place} is not where {line} is");
            let said = line
                .split_once("hint: ")
                .unwrap_or_else(|| panic!("no hint: {line}"))
                .1;
            assert!(said.contains(hint), "{line}");
        }
        assert!(!err.contains("serving"), "{err}");
    }
}

#[test]
fn a_file_that_is_no_yaml_is_an_error_with_a_place() {
    let scratch = Scratch::new();
    for (text, place) in [("routes: [\n", "bad.yaml:2:"), ("a: b: c\n", "bad.yaml:1:")] {
        scratch.file("bad.yaml", text);
        let (code, _, err) = outcome(tidegate(scratch.path()).args(["check", "-c", "bad.yaml"]));
        assert_eq!(code, Some(1), "{text:?}");
        assert!(err.starts_with(place), "{text:?}: {err}");
    }
    for text in ["", "\0\u{1}\n", "- a\n- b\n", "42\n", "&a [*a]\n"] {
        scratch.file("bad.yaml", text);
        let (code, _, err) = outcome(tidegate(scratch.path()).args(["check", "-c", "bad.yaml"]));
        assert!(matches!(code, Some(0 | 1)), "{text:?}: {code:?} {err}");
        assert!(!err.contains("panicked"), "{text:?}: {err}");
    }
}

#[test]
fn check_accepts_a_sound_file_and_the_shipped_one() {
    let scratch = Scratch::new();
    let file = scratch.file("sound.yaml", &sound());
    let (code, out, err) = outcome(tidegate(scratch.path()).arg("check").arg("-c").arg(&file));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("ok"), "{out}");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/tidegate.yaml");
    let (code, _, err) = outcome(tidegate(scratch.path()).args(["check", "-c", shipped]));
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn the_file_may_be_named_before_and_after_the_command_or_found_by_default() {
    let scratch = Scratch::new();
    scratch.file("sound.yaml", &sound());
    for arguments in [
        ["-c", "sound.yaml", "check"],
        ["check", "-c", "sound.yaml"],
        ["--config", "sound.yaml", "check"],
    ] {
        let (code, _, err) = outcome(tidegate(scratch.path()).args(arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
    }
    std::fs::create_dir(scratch.path().join("conf")).unwrap();
    scratch.file("conf/tidegate.yaml", &sound());
    let (code, out, err) = outcome(tidegate(scratch.path()).arg("check"));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("conf/tidegate.yaml"), "{out}");
}

#[test]
fn a_missing_file_is_named_and_how_to_name_another() {
    let scratch = Scratch::new();
    for command in ["run", "check", "simulate"] {
        let (code, _, err) =
            outcome(tidegate(scratch.path()).args([command, "-c", "missing.yaml"]));
        assert_eq!(code, Some(1), "{command}");
        assert!(
            err.contains("missing.yaml") && err.contains("-c"),
            "{command}: {err}"
        );
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listener, admin) in [(address.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", &address)] {
        let text = format!(
            "listeners: [{{ address: \"{listener}\" }}]\nadmin: {{ address: \"{admin}\" }}\n{}{EVERYTHING}",
            app(nobody())
        );
        scratch.file("taken.yaml", &text);
        let (code, _, err) = outcome(tidegate(scratch.path()).args(["run", "-c", "taken.yaml"]));
        assert_eq!(code, Some(1), "{err}");
        assert!(
            err.contains(&address) && err.contains("another process"),
            "{err}"
        );
        assert!(!err.contains("serving"), "{err}");
    }
}

#[test]
fn the_demo_says_which_other_ports_to_take() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, err) = outcome(tidegate(scratch.path()).args(["demo", "--port", &port]));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&port) && err.contains("--port"), "{err}");
}

#[test]
fn variables_come_from_the_environment_and_from_dotenv() {
    let scratch = Scratch::new();
    let text = format!(
        "{}policies:
  p:
    key: [ip]
    algorithm: token_bucket
    quota:
      count: ${{BLACK_BOX_COUNT:-5}}
      period: ${{BLACK_BOX_PERIOD:-60000}}ms
",
        sound()
    );
    scratch.file("variables.yaml", &text);
    let check = |count: Option<&str>| {
        let mut command = tidegate(scratch.path());
        command.args(["check", "-c", "variables.yaml"]);
        if let Some(count) = count {
            command.env("BLACK_BOX_COUNT", count);
        }
        outcome(&mut command)
    };
    assert_eq!(check(None).0, Some(0));
    assert_eq!(check(Some("7")).0, Some(0));
    let (code, _, err) = check(Some("many"));
    assert_eq!(code, Some(1));
    assert!(err.contains("BLACK_BOX_COUNT"), "{err}");
    assert!(err.starts_with("variables.yaml:10:14: "), "{err}");
    scratch.file(".env", "BLACK_BOX_COUNT=several\n");
    let (code, _, err) = check(None);
    assert_eq!(code, Some(1));
    assert!(err.contains("BLACK_BOX_COUNT"), "{err}");
    assert_eq!(check(Some("7")).0, Some(0), "the environment beats .env");
}

#[test]
fn the_schema_is_json_and_names_every_top_level_key() {
    let scratch = Scratch::new();
    let (code, out, err) = outcome(tidegate(scratch.path()).arg("schema"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    for key in [
        "server",
        "listeners",
        "admin",
        "store",
        "trusted_proxies",
        "response_headers",
        "auth",
        "tiers",
        "clients",
        "upstreams",
        "routes",
        "policies",
    ] {
        assert!(properties.contains_key(key), "{key}");
    }
}

#[test]
fn help_names_every_command_and_mistakes_are_explained() {
    let scratch = Scratch::new();
    let (code, out, _) = outcome(tidegate(scratch.path()).arg("--help"));
    assert_eq!(code, Some(0));
    for word in [
        "run", "check", "demo", "simulate", "schema", "migrate", "keys", "explain", "--config",
    ] {
        assert!(out.contains(word), "{word} is not in\n{out}");
    }
    for command in [
        "run", "check", "demo", "simulate", "schema", "migrate", "keys", "explain",
    ] {
        let (code, out, _) = outcome(tidegate(scratch.path()).args([command, "--help"]));
        assert_eq!(code, Some(0), "{command}");
        assert!(out.contains("Usage:"), "{out}");
    }
    let (code, _, err) = outcome(tidegate(scratch.path()).arg("chekc"));
    assert_eq!(code, Some(2));
    assert!(err.contains("check"), "{err}");
    assert_eq!(outcome(&mut tidegate(scratch.path())).0, Some(2));
}
