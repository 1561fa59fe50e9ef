//! `tidegate explain`: what would happen to a request and why, in words; the running gateway is asked, or the file.

use super::{Failure, load};
use crate::admission::explain::{
    self, BadQuestion, DefinedIn, Explanation, Outcome, PolicyAnswer, Question, QuotaOf, Values,
    Verdict,
};
use crate::auth::Sources;
use crate::config::{Admin, Loaded};
use crate::limit::limiter::Limiter;
use crate::snapshot::{Running, assemble};
use crate::telemetry::Metrics;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How long the running gateway may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer read, bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Options of `tidegate explain`.
#[derive(Args)]
pub(super) struct Options {
    /// The method
    #[arg(long, default_value = "GET")]
    method: String,
    /// The URL, such as http://api.example.com/search
    #[arg(long)]
    url: String,
    /// A header, such as 'X-API-Key: ...'; may be given several times
    #[arg(long = "header", value_name = "K: V")]
    headers: Vec<String>,
    /// The client's address [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Decide from the file alone, with empty buckets, without asking the running gateway
    #[arg(long)]
    offline: bool,
}

pub(super) fn explain(file: Option<PathBuf>, options: Options) -> Result<(), Failure> {
    let loaded = load(file)?;
    let offline = options.offline;
    let question = question(options)?;
    // what is wrong with the question is told in the same words whoever decides
    let parsed = question.parse().map_err(unusable)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = match offline {
        true => Err("asked to with --offline".to_owned()),
        false => runtime.block_on(ask(loaded.config.admin.as_ref(), &question))?,
    };
    let (source, explanation) = match answer {
        Ok((address, explanation)) => (format!("the gateway at {address}"), explanation),
        Err(why) => {
            let running = offline_gateway(&loaded)?;
            let snapshot = running.snapshot();
            let now_us = running.clock.now_us();
            let request = parsed.request();
            let explained = explain::explain(&running, &snapshot, &request, now_us);
            let mut explained = runtime.block_on(explained);
            if loaded.config.database.is_some() {
                without_database(&mut explained);
            }
            (
                format!("the file alone, with empty buckets ({why})"),
                explained,
            )
        }
    };
    std::io::stdout().write_all(words(&source, &explanation).as_bytes())?;
    Ok(())
}

fn question(options: Options) -> Result<Question, Failure> {
    let mut headers: BTreeMap<String, Values> = BTreeMap::new();
    for line in &options.headers {
        // the line may be a credential, so it is not repeated
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Failure::Other("--header must read 'Name: value': there is no colon in one".to_owned())
        })?;
        let values = headers
            .entry(name.trim().to_ascii_lowercase())
            .or_insert_with(|| Values::Several(Vec::new()));
        if let Values::Several(values) = values {
            values.push(value.trim().to_owned());
        }
    }
    Ok(Question {
        method: options.method,
        url: options.url,
        headers,
        ip: options.ip,
    })
}

fn unusable(bad: Vec<BadQuestion>) -> Failure {
    let lines: Vec<String> = bad
        .iter()
        .map(|bad| {
            format!(
                "tidegate: {}: {}; hint: {}",
                bad.path, bad.message, bad.hint
            )
        })
        .collect();
    Failure::Other(lines.join("\n").trim_start_matches("tidegate: ").to_owned())
}

/// The gateway's address and what it answered.
type Asked = (SocketAddr, Explanation);

/// Asks the running gateway; the inner error says why none answers.
async fn ask(admin: Option<&Admin>, question: &Question) -> Result<Result<Asked, String>, Failure> {
    let Some(admin) = admin else {
        return Ok(Err("`admin` is null in the configuration".to_owned()));
    };
    let address = reachable(admin.address);
    // building a client needs a provider of cryptography, even for plain HTTP; another may be set
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let failed = |error: &dyn std::error::Error| Failure::Other(error.to_string());
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|error| failed(&error))?;
    let body = serde_json::to_vec(question).map_err(|error| failed(&error))?;
    let mut request = client
        .post(format!("http://{address}/api/v1/explain"))
        .header("content-type", "application/json")
        .body(body);
    if let Some(token) = &admin.token {
        request = request.bearer_auth(token.expose());
    }
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_timeout() => {
            return Ok(Err(format!("no answer from {address} in time")));
        }
        Err(_) => return Ok(Err(format!("no gateway answers at {address}"))),
    };
    let status = response.status();
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_ANSWER {
            return Err(Failure::Other(format!("{address} answers without end")));
        }
    }
    match serde_json::from_slice(&text) {
        Ok(explanation) if status.is_success() => Ok(Ok((address, explanation))),
        _ => Err(Failure::Other(refusal(address, status.as_u16(), &text))),
    }
}

/// A listener on all addresses is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn refusal(address: SocketAddr, status: u16, text: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let detail = body["detail"].as_str().unwrap_or("no detail");
    let hint = match status {
        401 => "; is the gateway running with the same admin.token? --offline asks the file alone",
        _ => "; --offline asks the file alone",
    };
    format!("{address} answers {status}: {detail}{hint}")
}

/// A gateway that serves nobody, made of the file.
fn offline_gateway(loaded: &Loaded) -> Result<Running, Failure> {
    let other = |error: &dyn std::error::Error| Failure::Other(error.to_string());
    let metrics = Metrics::new().map_err(|error| other(&error))?;
    let sources = Sources::new(metrics.auth.clone(), None);
    let snapshot = assemble(loaded, &metrics, &sources, None).map_err(Failure::Configuration)?;
    let limiter = Limiter::embedded(loaded.config.store.memory_max_keys);
    Ok(Running::new(snapshot, limiter, sources, metrics))
}

/// What the file alone says is not the whole: the database may have other policies, and know the key.
fn without_database(explanation: &mut Explanation) {
    let what = "what the database has: policies, settings of routes, clients and keys";
    explanation.not_evaluated.push(what.to_owned());
    explanation.outcome.verdict = Verdict::Unknown;
    let detail = &mut explanation.outcome.detail;
    detail.insert_str(0, "by the file alone, ");
}

fn words(source: &str, explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |label: &str, what: String| {
        // writing into a string does not fail
        let _ = writeln!(text, "{label:<15}{what}");
    };
    let Explanation {
        method,
        host,
        path,
        ip,
        ..
    } = explanation;
    line("request", format!("{method} {host}{path} from {ip}"));
    line("answered by", source.to_owned());
    line("route", route(explanation));
    line("client", client(explanation));
    for answer in &explanation.policies {
        let (first, rest) = policy(answer);
        line("policy", first);
        rest.into_iter().for_each(|more| line("", more));
    }
    for why in &explanation.not_applied {
        line("not applied", why.clone());
    }
    for what in &explanation.not_evaluated {
        line("not evaluated", what.clone());
    }
    line("outcome", outcome(&explanation.outcome));
    text
}

fn route(explanation: &Explanation) -> String {
    match &explanation.route {
        None => "none".to_owned(),
        Some(route) => format!(
            "{} ({}) -> upstream {}{}",
            route.name,
            route.takes,
            route.upstream,
            if route.canary { ", the canary" } else { "" }
        ),
    }
}

fn client(explanation: &Explanation) -> String {
    match &explanation.client {
        None => "not known".to_owned(),
        Some(caller) => {
            let id = caller.id.as_deref().unwrap_or("anonymous");
            let tier = caller.tier.as_ref();
            let tier = tier.map_or_else(String::new, |tier| format!(", tier {tier}"));
            format!("{id}{tier} ({})", caller.found_by)
        }
    }
}

fn policy(answer: &PolicyAnswer) -> (String, Vec<String>) {
    let says = match (answer.has_room, answer.shadow) {
        (None, _) => "what it says is not known",
        (Some(true), _) => "has room",
        (Some(false), false) => "refuses",
        (Some(false), true) => "would refuse, but is shadow",
    };
    let name = answer.quota_name.as_deref().unwrap_or_default();
    let whose = match answer.quota_of {
        QuotaOf::Policy => "the policy's own".to_owned(),
        QuotaOf::Tier => format!("that of tier {name}"),
        QuotaOf::Override => format!("that of client {name}"),
    };
    let place = match answer.defined_in {
        DefinedIn::File => "file",
        DefinedIn::Database => "database",
    };
    let mut rest = vec![
        format!(
            "{} {}: {whose}, from the {place}",
            answer.algorithm, answer.quota
        ),
        format!("bucket {}", answer.key),
    ];
    if let (Some(remaining), Some(reset)) = (answer.remaining, answer.reset_after_ms) {
        let limit = answer.limit;
        let reset = seconds(reset);
        rest.push(format!(
            "{remaining} of {limit} left, whole again in {reset}"
        ));
    }
    rest.push(match (answer.has_room, answer.retry_after_ms) {
        (Some(false), Some(wait)) => {
            format!(
                "the request takes {}; room in {}",
                answer.cost,
                seconds(wait)
            )
        }
        (Some(true), _) if answer.delay_ms > 0 => format!(
            "the request takes {} and is held for {}",
            answer.cost,
            seconds(answer.delay_ms)
        ),
        _ => format!("the request takes {}", answer.cost),
    });
    (format!("{} {says}", answer.policy), rest)
}

fn outcome(outcome: &Outcome) -> String {
    let verdict = match outcome.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Refused => "refused",
        Verdict::Unknown => "not known",
    };
    let mut text = verdict.to_owned();
    let mut add = |what: String| text.push_str(&what);
    if let Some(status) = outcome.status {
        add(format!(" with {status}"));
    }
    if let Some(policy) = &outcome.policy {
        add(format!(" by policy {policy}"));
    }
    add(format!(": {}", outcome.detail));
    if let Some(allow) = &outcome.allow {
        add(format!("; Allow: {allow}"));
    }
    if let Some(wait) = outcome.retry_after {
        add(format!("; Retry-After: {wait}"));
    }
    if outcome.delay_ms > 0 {
        add(format!("; held for {}", seconds(outcome.delay_ms)));
    }
    text
}

fn seconds(milliseconds: u64) -> String {
    format!("{} s", milliseconds as f64 / 1_000.0)
}
