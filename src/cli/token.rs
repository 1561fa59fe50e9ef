//! `tidegate token`: signs a token for development.

use super::{Failure, load};
use crate::auth::jwt::{Unproven, Verifier, Wanted, sign};
use crate::clock::Clock;
use crate::config;
use clap::Args;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What the token says.
#[derive(Args)]
pub(super) struct Options {
    /// The client's id
    #[arg(long, value_name = "ID")]
    client: String,
    /// The client's tier
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    /// How long it is valid, such as 10m
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = config::duration)]
    expires: Duration,
    /// What it may be used for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Another claim, NAME=VALUE; a value that is JSON is taken as such
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// A private key (PKCS #8 in PEM) to sign with, instead of the first configured secret
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The key's id in the token's header
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
}

pub(super) fn token(file: Option<PathBuf>, options: Options) -> Result<(), Failure> {
    let loaded = load(file)?;
    let jwt = loaded.config.auth.jwt.as_ref().ok_or_else(|| {
        Failure::Other(
            "auth.jwt has neither keys nor jwks_url, so no token would be accepted".to_owned(),
        )
    })?;
    let now_us = Clock::new().now_us();
    let now = now_us / 1_000_000;
    let wanted = Wanted {
        client: &options.client,
        tier: options.tier.as_deref(),
        scopes: &options.scopes,
        claims: &options.claims,
        key_file: options.key.as_deref(),
        kid: options.kid.as_deref(),
        now,
        expires: now + options.expires.as_secs(),
    };
    let token = sign(jwt, &wanted).map_err(Failure::Other)?;
    writeln!(std::io::stdout(), "{token}")?;
    if let Some(doubt) = doubt(jwt, &token, now_us) {
        writeln!(
            std::io::stderr(),
            "tidegate: this token is not accepted: {doubt}"
        )?;
    }
    Ok(())
}

/// Why the gateway would refuse it, as far as the configuration tells.
fn doubt(jwt: &config::Jwt, token: &str, now_us: u64) -> Option<&'static str> {
    let verifier = Verifier::new(jwt, Vec::new(), None).ok()?;
    match verifier.verify(token, now_us) {
        Err(Unproven::Invalid(why)) if jwt.jwks_url.is_none() => Some(why),
        // the issuer may publish the key
        _ => None,
    }
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}
