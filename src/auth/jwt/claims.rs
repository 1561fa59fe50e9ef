//! What a token's claims must be and what they say.

use super::Claimed;
use crate::config;
use serde_json::{Map, Value};
use std::time::Duration;

/// The longest client id.
const MAX_CLIENT_ID: usize = 128;

/// The longest value of a claim that policies count by.
const MAX_COUNTED_BYTES: usize = 1_024;

const SECOND_US: f64 = 1_000_000.0;

/// What is expected of claims.
#[derive(PartialEq, Eq)]
pub(super) struct Expected {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_us: u64,
    client: String,
    tier: String,
    scopes: String,
    counted: Vec<String>,
}

impl Expected {
    pub(super) fn new(written: &config::Jwt, counted: Vec<String>) -> Self {
        Expected {
            issuer: written.issuer.clone(),
            audience: written.audience.clone(),
            leeway_us: micros(written.leeway),
            client: written.client_claim.clone(),
            tier: written.tier_claim.clone(),
            scopes: written.scopes_claim.clone(),
            counted,
        }
    }

    /// What the claims say, if they are as expected at `now_us`; otherwise why not.
    pub(super) fn of(
        &self,
        claims: &Map<String, Value>,
        now_us: u64,
    ) -> Result<Claimed, &'static str> {
        let expires_us = self.valid_until(claims, now_us)?;
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err("it is from another issuer");
        }
        if let Some(audience) = &self.audience
            && !is_for(claims.get("aud"), audience)
        {
            return Err("it is for somebody else");
        }
        let client = claim(claims, &self.client)
            .and_then(text_of)
            .filter(|id| is_client_id(id))
            .ok_or("it names no client")?;
        let counted = |name: &String| {
            let value = claim(claims, name).and_then(text_of)?;
            let fits = value.len() <= MAX_COUNTED_BYTES;
            fits.then(|| (name.as_str().into(), value.into()))
        };
        Ok(Claimed {
            client,
            tier: claim(claims, &self.tier)
                .and_then(Value::as_str)
                .map(str::to_owned),
            scopes: claim(claims, &self.scopes).map_or(Vec::new(), scopes_of),
            counted: self.counted.iter().filter_map(counted).collect(),
            expires_us,
        })
    }

    /// The end of its validity, leeway included (RFC 7519, 4.1.4 and 4.1.5); `exp` is mandatory.
    fn valid_until(&self, claims: &Map<String, Value>, now_us: u64) -> Result<u64, &'static str> {
        let expires_us = match claims.get("exp") {
            None => return Err("it never expires"),
            Some(exp) => date_us(exp).ok_or("its `exp` is no date")?,
        };
        let until_us = expires_us.saturating_add(self.leeway_us);
        if until_us <= now_us {
            return Err("it has expired");
        }
        if let Some(nbf) = claims.get("nbf") {
            let from_us = date_us(nbf).ok_or("its `nbf` is no date")?;
            if from_us > now_us.saturating_add(self.leeway_us) {
                return Err("it is not valid yet");
            }
        }
        Ok(until_us)
    }
}

/// A claim by its name, or by a dotted path into nested ones. A name with dots comes first: names
/// may be URLs.
pub(super) fn claim<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    claim(claims.get(first)?.as_object()?, rest)
}

/// Seconds since the epoch, with a fraction or without.
fn date_us(value: &Value) -> Option<u64> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    // beyond what fits, `as` stays at the largest number
    Some((seconds * SECOND_US) as u64)
}

fn is_for(aud: Option<&Value>, audience: &str) -> bool {
    match aud {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one == audience),
        _ => false,
    }
}

/// A text, a whole number or a truth value as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Visible ASCII, as everywhere a client is named.
pub(in crate::auth) fn is_client_id(id: &str) -> bool {
    (1..=MAX_CLIENT_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

/// Words in one text (RFC 8693, 4.2), or a list of texts.
fn scopes_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(words) => words.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(list) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
