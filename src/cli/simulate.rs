//! `tidegate simulate`: decides a timeline with exactly the code that decides traffic.

use super::{Failure, load, run};
use crate::config;
use crate::limit::algorithm::Answer;
use crate::limit::decision::{Charge, Decision, Terms};
use crate::limit::store::memory::MemoryStore;
use crate::limit::store::redis::timeline::Timeline;
use crate::policy::Policy;
use crate::telemetry::Metrics;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;

/// Options of `tidegate simulate`.
#[derive(Args)]
pub(super) struct Options {
    /// Where the buckets are kept
    #[arg(long, value_enum, default_value_t = Store::Memory)]
    store: Store,
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    /// in this process
    Memory,
    /// in the Redis of the configuration, by the real scripts, under keys of their own
    Redis,
}

/// Where this simulation's buckets are.
enum Buckets {
    Memory(MemoryStore),
    Redis(Box<Timeline>),
}

impl Buckets {
    fn decide(&self, charge: Charge<'_>, now_us: u64, op: Op) -> Result<Decision, String> {
        match (self, op) {
            (Buckets::Memory(store), Op::Spend) => Ok(store.spend(&[charge], now_us)),
            (Buckets::Memory(store), Op::Peek) => Ok(store.peek(&[charge], now_us)),
            (Buckets::Redis(timeline), op) => timeline
                .decide(&charge, now_us, matches!(op, Op::Spend))
                .map_err(|error| format!("store.redis: {error}")),
        }
    }
}

/// Longest line of a timeline, bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// Latest time of a timeline, milliseconds since the Unix epoch: the year 9999.
const MAX_T_MS: f64 = 253_402_300_799_999.0;

/// One line in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// store's time, milliseconds since the Unix epoch; fractions allowed, may step back
    t_ms: f64,
    policy: String,
    #[serde(default)]
    key: String,
    /// units; absent: the policy's cost
    cost: Option<u64>,
    #[serde(default)]
    op: Op,
    /// whose quota: absent, the policy's own
    tier: Option<String>,
    client: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    #[default]
    Spend,
    Peek,
}

/// One line out.
#[derive(Serialize)]
struct Line {
    allowed: bool,
    remaining: u64,
    retry_after_ms: Option<Ms>,
    reset_after_ms: Ms,
    /// leaky_bucket only: how long the request is held
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<Ms>,
}

/// Milliseconds; whole ones print without a fraction.
#[derive(Serialize)]
#[serde(untagged)]
enum Ms {
    Whole(u64),
    Fraction(f64),
}

impl Ms {
    fn from_us(us: u64) -> Self {
        if us.is_multiple_of(1_000) {
            Ms::Whole(us / 1_000)
        } else {
            Ms::Fraction(us as f64 / 1_000.0)
        }
    }
}

struct Simulation {
    policies: HashMap<String, Policy>,
    buckets: Buckets,
}

/// One answer per line, flushed; a line that cannot be decided answers `{"error": ...}` and makes
/// the command fail at the end.
pub(super) fn simulate(file: Option<PathBuf>, options: Options) -> Result<(), Failure> {
    let simulation = Simulation::new(file, options.store)?;
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let mut failed = 0u64;
    let mut text = Vec::new();
    loop {
        text.clear();
        std::io::Read::take(&mut input, MAX_LINE + 1).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        if text.len() as u64 > MAX_LINE {
            return Err(Failure::Other(format!(
                "a line is longer than {MAX_LINE} bytes"
            )));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        match simulation.decide(&text) {
            Ok(line) => serde_json::to_writer(&mut output, &line).map_err(std::io::Error::from)?,
            Err(error) => {
                failed += 1;
                write!(output, "{}", serde_json::json!({ "error": error }))?;
            }
        }
        output.write_all(b"\n")?;
        output.flush()?;
    }
    if failed > 0 {
        return Err(Failure::Other(format!(
            "{failed} lines could not be decided"
        )));
    }
    Ok(())
}

fn buckets(store: &config::Store, wanted: Store) -> Result<Buckets, Failure> {
    if let Store::Memory = wanted {
        return Ok(Buckets::Memory(MemoryStore::new(store.memory_max_keys)));
    }
    let redis = store.redis.as_ref().ok_or_else(|| {
        Failure::Other("--store redis needs store.redis.url in the configuration".to_owned())
    })?;
    Timeline::connect(&run::link(redis), &redis.prefix)
        .map(|timeline| Buckets::Redis(Box::new(timeline)))
        .map_err(|error| Failure::Other(error.to_string()))
}

impl Simulation {
    fn new(file: Option<PathBuf>, store: Store) -> Result<Self, Failure> {
        let loaded = load(file)?;
        let metrics = Metrics::new().map_err(|error| Failure::Other(error.to_string()))?;
        // finds what is wrong with any part of the configuration, as `run` would
        let sources = crate::auth::Sources::new(metrics.auth.clone(), None);
        crate::snapshot::assemble(&loaded, &metrics, &sources, None)
            .map_err(Failure::Configuration)?;
        let compile = |(name, source): (&String, &crate::config::Policy)| {
            Policy::compile(source, &metrics)
                .ok()
                .map(|policy| (name.clone(), policy))
        };
        Ok(Simulation {
            policies: loaded.config.policies.iter().filter_map(compile).collect(),
            buckets: buckets(&loaded.config.store, store)?,
        })
    }

    fn decide(&self, text: &[u8]) -> Result<Line, String> {
        let step: Step = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let policy = self
            .policies
            .get(&step.policy)
            .ok_or_else(|| self.unknown(&step.policy))?;
        if !(0.0..=MAX_T_MS).contains(&step.t_ms) {
            return Err(format!(
                "t_ms: {} is not between 0 and {MAX_T_MS}",
                step.t_ms
            ));
        }
        let now_us = (step.t_ms * 1_000.0).round() as u64;
        let index = policy.quota_for(step.client.as_deref(), step.tier.as_deref(), now_us);
        let quota = &policy.quota(index).quota;
        let cost = step.cost.unwrap_or(policy.cost());
        let charge = Charge {
            key: policy.bucket_key_of(&step.key),
            quota,
            cost,
            enforce: true,
            terms: Terms::STRICT,
        };
        let decision = self.buckets.decide(charge, now_us, step.op)?;
        let bucket = decision.buckets.first().ok_or("no decision")?;
        let (retry_after_ms, delay_us) = match bucket.answer {
            Answer::Admit { delay_us } => (None, delay_us),
            Answer::Refuse { retry_after_us } => (retry_after_us.map(Ms::from_us), 0),
        };
        Ok(Line {
            allowed: decision.allowed,
            remaining: bucket.reading.remaining,
            retry_after_ms,
            reset_after_ms: Ms::from_us(bucket.reading.reset_after_us),
            delay_ms: (delay_us > 0).then(|| Ms::from_us(delay_us)),
        })
    }

    fn unknown(&self, name: &str) -> String {
        let mut names: Vec<&str> = self.policies.keys().map(String::as_str).collect();
        names.sort_unstable();
        let closest = names
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        match closest {
            Some(closest) => format!("policy: {name:?} does not exist; the closest is {closest:?}"),
            None => format!("policy: {name:?} does not exist; the configuration has none"),
        }
    }
}
