//! The store: its Redis, where there is one, is described without contradiction.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Review;
use crate::config::model::{Redis, RedisMode, Store};
use crate::config::notation::{RedisUrl, Transport, Written};
use crate::config::place::Place;
use crate::config::raw;

/// The bounds of a request's deadline.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(10)];
/// The largest file of certificates accepted, in bytes; that of a whole system has a quarter of it.
const MAX_CA_FILE_BYTES: u64 = 1 << 20;
/// How a certificate begins in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

pub(super) fn resolve(raw: raw::Store, place: &Place<'_>, review: &mut Review<'_>) -> Store {
    Store {
        memory_max_keys: raw.memory.max_keys,
        redis: raw
            .redis
            .and_then(|raw| shared(raw, &place.then("redis"), review)),
        max_local_keys: raw.max_local_keys,
        expected_gateways: raw.expected_gateways,
    }
}

/// The Redis that gateways share; absent where no URL is given.
fn shared(raw: raw::Redis, place: &Place<'_>, review: &mut Review<'_>) -> Option<Redis> {
    let timeout = review.between(&raw.timeout, TIMEOUTS, &place.then("timeout"));
    let mode = mode(&raw, place, review);
    let urls = urls(raw.url, raw.urls, place, review);
    if urls.is_empty() && !review.is_broken(place) {
        if raw.mode != raw::RedisMode::Single {
            let hint = "give the servers in `urls`, or leave the mode out";
            let message = "without a URL buckets stay in this process, whatever the mode";
            review.warning(&place.then("mode"), message, hint);
        }
        return None;
    }
    for (index, url) in urls.iter().enumerate() {
        let finding = fits_mode(url, raw.mode).or_else(|| differs(url, &urls[0], index));
        if let Some((message, hint)) = finding {
            url.place(place, |place| review.error(place, message, hint));
        }
        if let Some((message, hint)) = questionable(url, raw.mode) {
            url.place(place, |place| review.warning(place, message, hint));
        }
    }
    let is_list = urls.iter().all(|given| given.index.is_some());
    if raw.mode == raw::RedisMode::Single && urls.len() > 1 && is_list {
        several_in_single_mode(urls.len(), place, review);
    }
    let ca_file = raw
        .ca_file
        .map(|path| ca_file(path, &urls, &place.then("ca_file"), review));
    Some(Redis {
        mode: mode?,
        urls: urls.into_iter().map(|given| given.url.text).collect(),
        timeout,
        max_waiting: raw.max_waiting,
        prefix: raw.prefix.value.0,
        ca_file,
    })
}

/// The mode and what belongs to it; absent where that is missing.
fn mode(raw: &raw::Redis, place: &Place<'_>, review: &mut Review<'_>) -> Option<RedisMode> {
    let at = place.then("master");
    let is_known = !review.is_broken(&place.then("mode"));
    match (raw.mode, &raw.master) {
        (raw::RedisMode::Sentinel, Some(master)) => Some(RedisMode::Sentinel {
            master: master.value.0.clone(),
        }),
        (raw::RedisMode::Sentinel, None) => {
            let hint = "add `master:` with the name in the sentinels' `sentinel monitor`, such as `mymaster`";
            review.error(&at, "mode sentinel needs the name of the master", hint);
            None
        }
        (_, Some(_)) if is_known => {
            let hint = "set `mode: sentinel`, or remove it";
            review.error(&at, "`master` belongs to mode sentinel", hint);
            None
        }
        (raw::RedisMode::Single, _) => Some(RedisMode::Single),
        (raw::RedisMode::Cluster, _) => Some(RedisMode::Cluster),
    }
}

/// A URL and where it stands: in `url`, or at an index of `urls`.
struct Given {
    url: RedisUrl,
    index: Option<usize>,
}

impl Given {
    /// Hands on the place where it stands.
    fn place(&self, redis: &Place<'_>, report: impl FnOnce(&Place<'_>)) {
        match self.index {
            None => report(&redis.then("url")),
            Some(index) => report(&redis.then("urls").then(index)),
        }
    }
}

fn urls(
    one: Option<Written<RedisUrl>>,
    several: Vec<Option<Written<RedisUrl>>>,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Vec<Given> {
    let one = one.map(|url| url.value).filter(|url| !url.is_empty());
    if one.is_some() && !several.is_empty() {
        let hint = "keep one of the two";
        review.error_even_if_broken(&place.then("urls"), "`url` and `urls` are both given", hint);
    }
    let several = several
        .into_iter()
        .enumerate()
        .filter_map(|(index, url)| Some((Some(index), url?.value)));
    let mut given = Vec::new();
    for (index, url) in one.map(|url| (None, url)).into_iter().chain(several) {
        let url = Given { url, index };
        if url.url.is_empty() {
            let hint = "write a URL, or remove it from the list";
            url.place(place, |place| review.error(place, "the URL is empty", hint));
        } else {
            given.push(url);
        }
    }
    given
}

/// A message and its hint.
type Finding = (String, &'static str);

fn fits_mode(given: &Given, mode: raw::RedisMode) -> Option<Finding> {
    let url = &given.url;
    let name = match mode {
        raw::RedisMode::Single => return None,
        raw::RedisMode::Sentinel => "sentinel",
        raw::RedisMode::Cluster => "cluster",
    };
    if url.transport == Transport::Socket {
        let message =
            format!("mode {name} has no sockets: its servers tell each other's addresses");
        return Some((
            message,
            "write `redis://host:port`, or `rediss://host:port`",
        ));
    }
    if mode == raw::RedisMode::Cluster && url.database != 0 {
        let message = format!("a cluster has no database {}", url.database);
        return Some((message, "a cluster has database 0 alone: remove the number"));
    }
    None
}

/// What the URLs of one Redis must have in common.
fn differs(given: &Given, first: &Given, index: usize) -> Option<Finding> {
    let (url, first) = (&given.url, &first.url);
    let what = if url.transport != first.transport {
        "scheme"
    } else if url.login != first.login {
        "user or password"
    } else if url.database != first.database {
        "database"
    } else {
        return None;
    };
    let message = format!("URL {} has another {what} than the first", index + 1);
    Some((
        message,
        "the URLs of one Redis differ in host and port alone",
    ))
}

fn questionable(given: &Given, mode: raw::RedisMode) -> Option<Finding> {
    if given.url.login.lacks_password() {
        let hint = "write `user:password@`, or `:password@` where there is no user";
        return Some((
            "a user without a password: nobody is logged in".to_owned(),
            hint,
        ));
    }
    if mode == raw::RedisMode::Sentinel && !given.url.has_port {
        let hint = "write the port; sentinels usually listen on 26379";
        return Some(("without a port this is port 6379".to_owned(), hint));
    }
    None
}

fn several_in_single_mode(number: usize, place: &Place<'_>, review: &mut Review<'_>) {
    if !review.is_broken(&place.then("mode")) {
        let message = format!("mode single has one server, here are {number}");
        let hint = "set `mode: cluster` or `mode: sentinel`, or keep one";
        review.error_even_if_broken(&place.then("urls"), message, hint);
    }
}

fn ca_file(path: String, urls: &[Given], place: &Place<'_>, review: &mut Review<'_>) -> PathBuf {
    let path = PathBuf::from(path);
    let shown = review.shown(place);
    if !urls.is_empty()
        && urls
            .iter()
            .all(|given| given.url.transport != Transport::Tls)
    {
        let message = format!("{shown} is for TLS, and the URL has none");
        review.error(
            place,
            message,
            "write `rediss://` in the URL, or remove `ca_file`",
        );
        return path;
    }
    readable(path, shown, place, review)
}

/// A PEM file of certificates; reported where it cannot be used.
pub(super) fn certificates_of(path: String, place: &Place<'_>, review: &mut Review<'_>) -> PathBuf {
    let shown = review.shown(place);
    readable(PathBuf::from(path), shown, place, review)
}

fn readable(path: PathBuf, shown: String, place: &Place<'_>, review: &mut Review<'_>) -> PathBuf {
    if let Err(reason) = certificates(&path) {
        let hint = "give a PEM file of the CA's certificate; a relative path starts at the working directory";
        review.error(place, format!("{shown} {reason}"), hint);
    }
    path
}

/// Whether a file holds certificates; if not, why.
fn certificates(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by the user that runs this".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    // opening a pipe would wait for a writer
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_CA_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_CA_FILE_BYTES {
        return Err("is larger than 1 MiB".to_owned());
    }
    if String::from_utf8_lossy(&bytes).contains(CERTIFICATE) {
        Ok(())
    } else {
        Err("holds no certificate in PEM".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{errors, loaded, problems};

    fn redis(lines: &str) -> String {
        let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
        format!("store:\n  redis:\n{lines}")
    }

    fn read(lines: &str) -> Redis {
        loaded(&redis(lines)).config.store.redis.unwrap()
    }

    fn urls_of(redis: &Redis) -> Vec<&str> {
        redis.urls.iter().map(|url| url.expose()).collect()
    }

    #[test]
    fn without_a_url_buckets_stay_in_this_process() {
        for text in [
            "",
            "store:\n",
            "store:\n  redis:\n",
            "store: { redis: null }",
            "store: { redis: { url: null } }",
            "store: { redis: { url: '', urls: [] } }",
            "store:\n  redis:\n    url: ${REDIS_URL:-}\n    timeout: 5ms\n    ca_file: /nonexistent\n",
        ] {
            let store = loaded(text).config.store;
            assert_eq!(store.redis, None, "{text}");
            assert_eq!(
                (
                    store.memory_max_keys,
                    store.max_local_keys,
                    store.expected_gateways
                ),
                (1_000_000, 100_000, 1)
            );
            assert!(problems(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_url_alone_takes_every_default() {
        let redis = read("url: redis://127.0.0.1:6379/2");
        assert_eq!(urls_of(&redis), ["redis://127.0.0.1:6379/2"]);
        assert_eq!(
            redis,
            Redis {
                mode: RedisMode::Single,
                urls: redis.urls.clone(),
                timeout: Duration::from_millis(25),
                max_waiting: 1024,
                prefix: "tg:".to_owned(),
                ca_file: None,
            }
        );
    }

    #[test]
    fn every_key_is_read_as_written() {
        let redis = read(
            "urls: [redis://:p@a:26379/1, redis://:p@b:26379/1]\nmode: sentinel\nmaster: main\n\
             timeout: 40ms\nmax_waiting: 7\nprefix: ''",
        );
        assert_eq!(
            urls_of(&redis),
            ["redis://:p@a:26379/1", "redis://:p@b:26379/1"]
        );
        let master = "main".to_owned();
        assert_eq!(
            (
                redis.mode,
                redis.timeout,
                redis.max_waiting,
                redis.prefix.as_str()
            ),
            (
                RedisMode::Sentinel { master },
                Duration::from_millis(40),
                7,
                ""
            )
        );
        let redis = read("url: rediss://a:1\nmode: cluster");
        assert_eq!((redis.mode, redis.urls.len()), (RedisMode::Cluster, 1));
        let store = loaded("store: { max_local_keys: 5, expected_gateways: 3 }")
            .config
            .store;
        assert_eq!((store.max_local_keys, store.expected_gateways), (5, 3));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (lines, error) in [
            (
                "timeout: 0s",
                "3:14 store.redis.timeout: `0s` is not allowed",
            ),
            (
                "timeout: 10001ms",
                "3:14 store.redis.timeout: `10001ms` is not allowed",
            ),
            (
                "timeout: 25",
                "3:14 store.redis.timeout: `25` is not a duration",
            ),
            (
                "max_waiting: 0",
                "3:18 store.redis.max_waiting: 0 is not allowed",
            ),
            (
                "max_waiting: 1000001",
                "3:18 store.redis.max_waiting: 1000001 is not allowed",
            ),
            (
                "prefix: 'a b'",
                "3:13 store.redis.prefix: `a b` is not a prefix of keys",
            ),
            (
                "prefix: '{tg}'",
                "3:13 store.redis.prefix: `{tg}` is not a prefix of keys",
            ),
            (
                "prefix: grün",
                "3:13 store.redis.prefix: `grün` is not a prefix of keys",
            ),
            (
                "prefix: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "3:13 store.redis.prefix: `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` is not a prefix of keys",
            ),
            (
                "mode: clustre",
                "3:11 store.redis.mode: `clustre` is not allowed",
            ),
            (
                "url: 127.0.0.1:6379",
                "3:10 store.redis.url: this is not the URL of a Redis server",
            ),
            (
                "urls: redis://a",
                "3:11 store.redis.urls: expected a list, found a scalar",
            ),
        ] {
            assert_eq!(errors(&redis(lines)), [error], "{lines}");
        }
        for (key, error) in [
            ("max_local_keys: 0", "0 is not allowed"),
            ("expected_gateways: 0", "0 is not allowed"),
            ("expected_gateways: 10001", "10001 is not allowed"),
        ] {
            assert!(
                errors(&format!("store: {{ {key} }}"))[0].ends_with(error),
                "{key}"
            );
        }
    }

    #[test]
    fn a_bad_url_says_what_to_write_also_where_it_comes_from_the_environment() {
        assert_eq!(
            problems(&redis("url: redis://host:port")),
            [
                "3:10: store.redis.url: this is not the URL of a Redis server; \
              hint: the port is a number from 1 to 65535"
            ]
        );
        assert_eq!(
            problems(&redis("url: ${SECRET}")),
            [
                "3:10: store.redis.url: this is not the URL of a Redis server; \
              hint: the scheme is missing: write `redis://` in front of the host, `rediss://` for TLS"
            ]
        );
        assert!(
            problems(&redis("url: ftp://h"))[0].contains("write `redis://[user[:password]@]host")
        );
    }

    #[test]
    fn there_is_one_way_to_name_the_servers() {
        assert_eq!(
            errors(&redis("url: redis://a\nurls: [redis://b]")),
            ["4:5 store.redis.urls: `url` and `urls` are both given"]
        );
        assert_eq!(
            errors(&redis("urls: [redis://a, redis://b]")),
            ["3:5 store.redis.urls: mode single has one server, here are 2"]
        );
        assert_eq!(
            errors(&redis("urls: [redis://a, '']\nmode: cluster")),
            ["3:23 store.redis.urls[1]: the URL is empty"]
        );
        // A bad mode is no single one.
        assert_eq!(
            errors(&redis("urls: [redis://a, redis://b]\nmode: x")).len(),
            1
        );
    }

    #[test]
    fn a_master_belongs_to_sentinel_and_is_needed_there() {
        assert_eq!(
            errors(&redis("url: redis://a:1\nmode: sentinel")),
            ["2:3 store.redis.master: mode sentinel needs the name of the master"]
        );
        assert_eq!(
            errors(&redis("url: redis://a:1\nmode: sentinel\nmaster: a b")),
            ["5:13 store.redis.master: `a b` is not the name of a master"]
        );
        for mode in ["single", "cluster"] {
            assert_eq!(
                errors(&redis(&format!("url: redis://a\nmode: {mode}\nmaster: m"))),
                ["5:13 store.redis.master: `master` belongs to mode sentinel"]
            );
        }
    }

    #[test]
    fn a_cluster_has_neither_sockets_nor_databases() {
        let found = problems(&redis("urls: [redis://a/3]\nmode: cluster"));
        assert_eq!(
            found,
            ["3:12: store.redis.urls[0]: a cluster has no database 3; \
              hint: a cluster has database 0 alone: remove the number"]
        );
        for mode in ["cluster", "sentinel\nmaster: m"] {
            let found = errors(&redis(&format!("url: unix:///s\nmode: {mode}")));
            assert!(
                found[0].starts_with("3:10 store.redis.url: mode "),
                "{found:?}"
            );
        }
    }

    #[test]
    fn urls_of_one_redis_differ_in_host_and_port_alone() {
        let with = |second: &str| {
            errors(&redis(&format!(
                "urls: ['redis://:p@a:1/0', '{second}']\nmode: sentinel\nmaster: m"
            )))
        };
        assert!(with("redis://:p@b:2").is_empty());
        for (second, what) in [
            ("rediss://:p@b:2", "scheme"),
            ("redis://:q@b:2", "user or password"),
            ("redis://:p@b:2/1", "database"),
        ] {
            let message =
                format!("3:32 store.redis.urls[1]: URL 2 has another {what} than the first");
            assert_eq!(with(second), [message]);
        }
    }

    #[test]
    fn what_is_probably_not_meant_draws_a_warning() {
        for (lines, warning) in [
            (
                "mode: cluster",
                "3:11: warning: store.redis.mode: without a URL",
            ),
            (
                "url: redis://secret@host",
                "3:10: warning: store.redis.url: a user without a password",
            ),
            (
                "url: redis://host\nmode: sentinel\nmaster: m",
                "3:10: warning: store.redis.url: without a port",
            ),
        ] {
            let found = problems(&redis(lines));
            assert!(
                found.len() == 1 && found[0].starts_with(warning),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_ca_file_is_readable_and_for_tls() {
        let file = std::env::temp_dir().join(format!("tidegate-{}-ca.pem", std::process::id()));
        let path = file.display();
        let with = |url: &str, path: &str| errors(&redis(&format!("url: {url}\nca_file: {path}")));
        let tls = |path: &str| with("rediss://a", path);
        fs::write(&file, CERTIFICATE).unwrap();
        let read = read(&format!("url: rediss://a\nca_file: {path}"));
        let plain = with("redis://a", &path.to_string());
        fs::write(&file, "DER").unwrap();
        let der = tls(&path.to_string());
        fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        let large = tls(&path.to_string());
        fs::remove_file(&file).unwrap();
        assert_eq!(read.ca_file, Some(file.clone()));
        let at = "4:14 store.redis.ca_file";
        assert_eq!(
            plain,
            [format!("{at}: `{path}` is for TLS, and the URL has none")]
        );
        assert_eq!(der, [format!("{at}: `{path}` holds no certificate in PEM")]);
        assert_eq!(large, [format!("{at}: `{path}` is larger than 1 MiB")]);
        assert_eq!(
            tls("/nonexistent/ca"),
            [format!("{at}: `/nonexistent/ca` does not exist")]
        );
        assert_eq!(tls("/"), [format!("{at}: `/` is not a file")]);
        // A bad URL does not hide a bad file.
        assert_eq!(with("x", "/nonexistent/ca").len(), 2);
    }
}
