//! From `database.url` to where Postgres is and how much of TLS is wanted.

use super::settings::Settings;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// Idle connections are asked whether they live, so that a firewall's forgetting is noticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// How a server's certificate is looked at, as `sslmode` of libpq says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// not at all: whoever answers may read along
    Anybody,
    /// it is signed by a certificate that is trusted
    Chain,
    /// and it is for the host's name
    ChainAndName,
}

/// Where Postgres is.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) trust: Trust,
}

impl Address {
    /// Reads the URL; what it says of a mistake repeats nothing of the URL but names of parameters.
    pub(super) fn read(settings: &Settings) -> Result<Self, String> {
        let (rest, mode) = without_sslmode(&settings.url);
        let mut config: Config = rest
            .parse()
            .map_err(|error| format!("database.url: {}", super::failure::with_causes(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(
                "database.url: it names no host; for the socket of this machine write \
                 `?host=/run/postgresql`"
                    .to_owned(),
            );
        }
        let with_ca = settings.ca_file.is_some();
        let (ssl, trust) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, Trust::Anybody),
            Some("prefer" | "allow") => (SslMode::Prefer, chain_if(with_ca)),
            Some("require") => (SslMode::Require, chain_if(with_ca)),
            Some("verify-ca") => (SslMode::Require, Trust::Chain),
            Some("verify-full") => (SslMode::Require, Trust::ChainAndName),
            Some(other) => {
                return Err(format!(
                    "database.url: sslmode is `{other}`; write disable, prefer, require, verify-ca or verify-full"
                ));
            }
            // who names a CA wants it to be asked
            None if with_ca => (SslMode::Require, Trust::ChainAndName),
            None => (SslMode::Prefer, Trust::Anybody),
        };
        let local = |host: &Host| matches!(host, Host::Unix(_));
        let only_sockets =
            config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(local);
        config.ssl_mode(if only_sockets { SslMode::Disable } else { ssl });
        complete(&mut config, settings.timeout);
        Ok(Address { config, trust })
    }
}

fn chain_if(with_ca: bool) -> Trust {
    if with_ca {
        Trust::Chain
    } else {
        Trust::Anybody
    }
}

/// What the URL leaves open.
fn complete(config: &mut Config, timeout: Duration) {
    if config.get_application_name().is_none() {
        config.application_name("tidegate");
    }
    if config.get_connect_timeout().is_none() {
        // of several hosts the last one is reached in time, too
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        config.connect_timeout(timeout / u32::try_from(hosts.max(1)).unwrap_or(1));
    }
    config
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
}

/// Takes `sslmode` out of the URL: the client library knows but three of its values.
fn without_sslmode(url: &str) -> (String, Option<String>) {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let (head, parameters, separator) = match url.split_once('?') {
        Some((head, query)) if is_url => (format!("{head}?"), split(query, |c| c == '&'), "&"),
        None if is_url => return (url.to_owned(), None),
        _ => (String::new(), split(url, char::is_whitespace), " "),
    };
    let mut mode = None;
    let mut kept = Vec::new();
    for parameter in parameters {
        match parameter.trim().strip_prefix("sslmode") {
            Some(rest) if rest.trim_start().starts_with('=') => {
                let value = rest.trim_start().trim_start_matches('=').trim();
                mode = Some(value.trim_matches('\'').to_owned());
            }
            _ => kept.push(parameter),
        }
    }
    (format!("{head}{}", kept.join(separator)), mode)
}

/// Splits outside of single quotes, which hold values with spaces in `host=.. password='a b'`.
fn split(text: &str, is_separator: impl Fn(char) -> bool) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => quoted = !quoted,
            _ => return !quoted && is_separator(c),
        }
        false
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn read(url: &str, with_ca: bool) -> Result<Address, String> {
        Address::read(&Settings {
            url: url.to_owned(),
            ca_file: with_ca.then(|| PathBuf::from("ca.pem")),
            pool: 8,
            timeout: Duration::from_secs(1),
            max_cached: 1,
            state_dir: None,
            keep_revisions: None,
        })
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        for (query, with_ca, ssl, trust) in [
            ("", false, SslMode::Prefer, Trust::Anybody),
            ("", true, SslMode::Require, Trust::ChainAndName),
            ("?sslmode=disable", true, SslMode::Disable, Trust::Anybody),
            ("?sslmode=require", false, SslMode::Require, Trust::Anybody),
            ("?sslmode=require", true, SslMode::Require, Trust::Chain),
            (
                "?a=b&sslmode=verify-ca",
                false,
                SslMode::Require,
                Trust::Chain,
            ),
            (
                "?sslmode=verify-full&connect_timeout=3",
                false,
                SslMode::Require,
                Trust::ChainAndName,
            ),
        ] {
            let url = format!("postgres://u:p@db.example/gate{query}").replace("a=b", "port=1");
            let address = read(&url, with_ca).unwrap();
            assert_eq!(address.config.get_ssl_mode(), ssl, "{url}");
            assert_eq!(address.trust, trust, "{url}");
        }
        let address = read(
            "host=db user=u sslmode=verify-ca password='a sslmode=b'",
            false,
        );
        let address = address.unwrap();
        assert_eq!(address.trust, Trust::Chain);
        assert_eq!(address.config.get_password(), Some(&b"a sslmode=b"[..]));
    }

    #[test]
    fn sockets_need_no_tls_and_mistakes_are_named_without_the_password() {
        let address = read(
            "postgres:///gate?host=/run/postgresql&user=u&sslmode=require",
            false,
        );
        assert_eq!(address.unwrap().config.get_ssl_mode(), SslMode::Disable);
        for (url, word) in [
            ("postgres://u:s3cret@h/d?sslmode=yes", "verify-full"),
            ("postgres://u:s3cret@h:x/d", "port"),
            ("postgres://u:s3cret@h/d?colour=red", "colour"),
            ("user=u password=s3cret", "/run/postgresql"),
            ("s3cret", "database.url"),
        ] {
            let error = read(url, false).err().unwrap();
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{url}: {error}");
        }
    }
}
