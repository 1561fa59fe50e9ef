//! `tidegate keys create|list|revoke`: API keys, on the database directly.

use super::connection::{self, Connection, told, who};
use super::{Failure, table};
use crate::clock::Clock;
use crate::database::{DatabaseError, NewKey, StoredKey, generated_key};
use clap::{Args, Subcommand};
use jiff::{Span, SpanRelativeTo, Timestamp};
use std::io::Write;
use std::path::PathBuf;

/// Keys asked for at once.
const PAGE: u32 = 500;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a key; the key itself goes to standard output, once and never again
    Create(Create),
    /// List keys, without their secrets
    List(List),
    /// Revoke a key; every gateway refuses it within a second
    Revoke(Revoke),
}

#[derive(Args)]
pub(super) struct Create {
    /// The client it stands for, of the database or of the file
    #[arg(long)]
    client: String,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// What it is good for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// When it expires: in 30d, 12h, 90m, or at 2026-12-31T00:00:00Z [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Everything as one JSON object, the key itself as `key`
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct List {
    /// Of this client only
    #[arg(long)]
    client: Option<String>,
    /// As a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Revoke {
    /// The key's id: the middle part of the key, tg_<id>_<secret>; the whole key will do
    #[arg(value_name = "ID")]
    id: String,
    /// As a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn keys(file: Option<PathBuf>, command: Command) -> Result<(), Failure> {
    let now_us = Clock::new().now_us();
    match command {
        Command::Create(options) => {
            // before anything is connected to
            let expires = options.expires.as_deref();
            let expires_at_us = expires.map(|when| expiry(when, now_us)).transpose()?;
            create(&connection::open(file)?, options, expires_at_us)
        }
        Command::List(options) => list(&connection::open(file)?, &options, now_us),
        Command::Revoke(options) => revoke(&connection::open(file)?, &options),
    }
}

fn create(
    connection: &Connection,
    options: Create,
    expires_at_us: Option<u64>,
) -> Result<(), Failure> {
    let new = NewKey {
        client_of_file: connection
            .loaded
            .config
            .clients
            .contains_key(&options.client),
        client: options.client,
        name: options.name,
        scopes: options.scopes,
        expires_at_us,
    };
    let wanted = new.clone();
    let made = connection.run(|database| async move { database.create_key(&wanted, &who()).await });
    let made = made.map_err(|error| match error {
        DatabaseError::NotFound(_) => Failure::Other(format!(
            "client `{}` does not exist: make it with PUT /api/v1/clients/{} of the admin API, or \
             write it under `clients` in the file",
            new.client, new.client
        )),
        error => told(error),
    })?;
    let mut out = std::io::stdout().lock();
    if options.json {
        let mut document = serde_json::to_value(&made.key).map_err(std::io::Error::from)?;
        if let Some(document) = document.as_object_mut() {
            document.insert("key".to_owned(), made.text.into());
        }
        writeln!(out, "{document}")?;
        return Ok(());
    }
    writeln!(out, "{}", made.text)?;
    let until = made.key.expires_at.as_deref().unwrap_or("revoked");
    writeln!(
        std::io::stderr(),
        "key {} of client {}, valid until {until}; it is not shown again",
        made.key.id,
        made.key.client
    )?;
    Ok(())
}

fn list(connection: &Connection, options: &List, now_us: u64) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut after: Option<String> = None;
    let mut separator = "[";
    loop {
        let client = options.client.as_deref();
        let from = after.as_deref();
        let page = connection
            .run(|database| async move { database.list_keys(client, from, PAGE).await })
            .map_err(told)?;
        if options.json {
            for key in &page.items {
                let key = serde_json::to_string(key).map_err(std::io::Error::from)?;
                write!(out, "{separator}{key}")?;
                separator = ",\n";
            }
        } else if after.is_none() || !page.items.is_empty() {
            let rows: Vec<_> = page.items.iter().map(|key| columns(key, now_us)).collect();
            table::write(&mut out, &COLUMNS, &rows)?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if options.json {
        writeln!(out, "{}]", if separator == "[" { "[" } else { "" })?;
    }
    Ok(())
}

fn revoke(connection: &Connection, options: &Revoke) -> Result<(), Failure> {
    let id = id_of(&options.id);
    let revoked = connection
        .run(|database| async move { database.revoke_key(id, &who()).await })
        .map_err(told)?;
    if options.json {
        let key = serde_json::to_string(&revoked).map_err(std::io::Error::from)?;
        writeln!(std::io::stdout(), "{key}")?;
    } else {
        let since = revoked.revoked_at.as_deref().unwrap_or_default();
        writeln!(
            std::io::stderr(),
            "key {} of client {} is revoked since {since}",
            revoked.id,
            revoked.client
        )?;
    }
    Ok(())
}

/// Whoever found a key somewhere need not take it apart.
fn id_of(text: &str) -> &str {
    if !generated_key::is_well_formed(text.as_bytes()) {
        return text;
    }
    text.split('_').nth(1).unwrap_or(text)
}

const COLUMNS: [&str; 7] = [
    "ID",
    "CLIENT",
    "NAME",
    "SCOPES",
    "CREATED",
    "VALID UNTIL",
    "LAST USED",
];

fn columns(key: &StoredKey, now_us: u64) -> [String; 7] {
    let or_dash = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), Clone::clone);
    let is_past = |time: &String| {
        let time = time.parse::<Timestamp>().map(|time| time.as_microsecond());
        time.is_ok_and(|us| us <= i64::try_from(now_us).unwrap_or(i64::MAX))
    };
    let until = match (&key.revoked_at, &key.expires_at) {
        (Some(revoked), _) => format!("revoked {}", to_the_second(revoked)),
        (None, Some(end)) if is_past(end) => format!("expired {}", to_the_second(end)),
        (None, Some(end)) => to_the_second(end),
        (None, None) => "-".to_owned(),
    };
    let scopes = match key.scopes.is_empty() {
        true => "-".to_owned(),
        false => key.scopes.join(" "),
    };
    [
        key.id.clone(),
        key.client.clone(),
        or_dash(key.name.as_ref()),
        scopes,
        to_the_second(&key.created_at),
        until,
        or_dash(key.last_used_at.as_deref().map(to_the_second).as_ref()),
    ]
}

/// `2026-12-31T00:00:00.123Z` without the fraction.
fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None => time.to_owned(),
    }
}

/// From `30d` or a time to microseconds since the Unix epoch.
fn expiry(when: &str, now_us: u64) -> Result<u64, Failure> {
    let hint = "write 30d, 12h, 90m or a time such as 2026-12-31T00:00:00Z";
    let bad = |what: &str| Failure::Other(format!("--expires: `{when}` {what}: {hint}"));
    let at_us = match when.parse::<Timestamp>() {
        Ok(time) => u64::try_from(time.as_microsecond()).unwrap_or(0),
        Err(_) => {
            let span: Span = when
                .parse()
                .map_err(|_| bad("is no duration and no time"))?;
            let long = span.to_duration(SpanRelativeTo::days_are_24_hours());
            let long = long.map_err(|_| bad("has months or years, which differ in length"))?;
            let us = u64::try_from(long.as_micros());
            now_us.saturating_add(us.map_err(|_| bad("is in the past"))?)
        }
    };
    if at_us <= now_us {
        return Err(bad("is in the past"));
    }
    if Timestamp::from_microsecond(i64::try_from(at_us).unwrap_or(i64::MAX)).is_err() {
        return Err(bad("is beyond the year 9999"));
    }
    Ok(at_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000_000;

    #[test]
    fn expiry_is_a_duration_or_a_time() {
        let after = |when| expiry(when, NOW).ok().map(|us| (us - NOW) / 1_000_000);
        assert_eq!(after("30d"), Some(30 * 86_400));
        assert_eq!(after("1h30m"), Some(5_400));
        assert_eq!(after("2w"), Some(14 * 86_400));
        let time = expiry("2099-01-01T00:00:00Z", NOW).ok();
        assert_eq!(time, Some(4_070_908_800_000_000));
        for when in [
            "",
            "30",
            "-1d",
            "0s",
            "1mo",
            "2020-01-01T00:00:00Z",
            "9999999w",
            "soon",
        ] {
            let error = expiry(when, NOW).err().unwrap().to_string();
            assert!(
                error.contains("--expires") && error.contains("30d"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_whole_key_names_its_id() {
        let key = generated_key::generate().unwrap();
        assert_eq!(id_of(&key.text), key.id);
        assert_eq!(id_of("0123456789ab"), "0123456789ab");
        assert_eq!(id_of("tg_x_y"), "tg_x_y");
    }

    #[test]
    fn a_row_says_whether_a_key_is_still_good() {
        let mut key = StoredKey {
            id: "0123456789ab".to_owned(),
            client: "acme".to_owned(),
            name: None,
            scopes: vec!["a".to_owned(), "b".to_owned()],
            created_at: "2026-01-01T00:00:00.5Z".to_owned(),
            expires_at: Some("2020-01-01T00:00:00Z".to_owned()),
            revoked_at: None,
            last_used_at: None,
        };
        assert_eq!(
            columns(&key, NOW)[3..6],
            [
                "a b",
                "2026-01-01T00:00:00Z",
                "expired 2020-01-01T00:00:00Z"
            ]
        );
        key.revoked_at = Some("2026-02-01T00:00:00.123456Z".to_owned());
        assert_eq!(columns(&key, NOW)[5], "revoked 2026-02-01T00:00:00Z");
    }
}
