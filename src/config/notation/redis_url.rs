//! URLs of Redis servers. Their hints never repeat any of the text: it may hold a password.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;

use super::Notation;
use super::address::is_host;
use crate::config::model::Secret;
use crate::config::problem::without_login;

/// The longest path of a Unix socket (`sun_path` without its final zero).
const LONGEST_SOCKET_PATH: usize = 107;

/// The URL of a Redis server, checked to be one that its client understands; empty means none.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct RedisUrl {
    /// The URL itself.
    pub(in crate::config) text: Secret,
    /// How the server is reached.
    pub(in crate::config) transport: Transport,
    /// The user and the password, as written.
    pub(in crate::config) login: Login,
    /// The number of the database.
    pub(in crate::config) database: u32,
    /// Whether the port is written.
    pub(in crate::config) has_port: bool,
}

/// How a Redis server is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Transport {
    /// `redis://`
    Tcp,
    /// `rediss://`
    Tls,
    /// `unix://`, `redis+unix://`
    Socket,
}

/// User and password in a URL, as written.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct Login {
    user: Secret,
    password: Secret,
}

impl Login {
    fn new(user: &str, password: &str) -> Login {
        Login {
            user: Secret::new(user.to_owned()),
            password: Secret::new(password.to_owned()),
        }
    }

    /// Whether it names a user but has no password; Redis clients then do not log in at all.
    pub(in crate::config) fn lacks_password(&self) -> bool {
        !self.user.expose().is_empty() && self.password.expose().is_empty()
    }
}

type Refusal = Option<String>;

fn refusal<T>(hint: &str) -> Result<T, Refusal> {
    Err(Some(hint.to_owned()))
}

impl RedisUrl {
    /// Whether it is the empty text.
    pub(in crate::config) fn is_empty(&self) -> bool {
        self.text.expose().is_empty()
    }

    fn of(text: &str, transport: Transport, login: Login) -> RedisUrl {
        RedisUrl {
            text: Secret::new(text.to_owned()),
            transport,
            login,
            database: 0,
            has_port: false,
        }
    }
}

impl Notation for RedisUrl {
    const FORMAT: &'static str = "tidegate-redis-url";
    const WHAT: &'static str = "the URL of a Redis server";
    const HINT: &'static str = "write `redis://[user[:password]@]host[:port][/db]`, the same with `rediss://` for TLS, \
                                or `unix:///path` for a socket";
    const PATTERN: Option<&'static str> = Some("^$|^(redis|rediss|unix|redis\\+unix)://");
    const SECRET: bool = true;

    fn masked(text: &str) -> Cow<'_, str> {
        without_login(text)
    }

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() {
            return Ok(RedisUrl::of(text, Transport::Tcp, Login::new("", "")));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return refusal("percent-encode what is not visible ASCII, such as `%20` for a space");
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return refusal(without_scheme(text));
        };
        match scheme {
            "redis" => server(text, Transport::Tcp, rest),
            "rediss" => server(text, Transport::Tls, rest),
            "unix" | "redis+unix" => socket(text, rest),
            "valkey" => refusal("write `redis://`: Valkey speaks the same protocol"),
            "valkeys" => refusal("write `rediss://`: Valkey speaks the same protocol"),
            _ if scheme.contains("sentinel") || scheme.contains("cluster") => refusal(
                "write one `redis://host:port` for each in `urls`, and set `mode: sentinel` or `mode: cluster`",
            ),
            _ => Err(None),
        }
    }
}

fn without_scheme(text: &str) -> &'static str {
    if text.starts_with('/') {
        "write `unix://` in front of a socket's path"
    } else if text.starts_with("unix:") || text.starts_with("redis+unix:") {
        "three slashes begin a socket's path: `unix:///run/redis/redis.sock`"
    } else {
        "the scheme is missing: write `redis://` in front of the host, `rediss://` for TLS"
    }
}

/// `[user[:password]@]host[:port][/db]`
fn server(text: &str, transport: Transport, rest: &str) -> Result<RedisUrl, Refusal> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if tail.contains('@') {
        return refusal(
            "percent-encode `/`, `?` and `#` in user and password: `%2F`, `%3F` and `%23`",
        );
    }
    let (login, host_and_port) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let login = login_of(user, password)?;
    let (host, port) = host_and_port_of(host_and_port)?;
    check_host(host)?;
    if port.is_some_and(|port| !is_port(port)) {
        return refusal("the port is a number from 1 to 65535");
    }
    Ok(RedisUrl {
        database: database_of_path(tail)?,
        has_port: port.is_some(),
        ..RedisUrl::of(text, transport, login)
    })
}

fn login_of(user: &str, password: &str) -> Result<Login, Refusal> {
    let readable = |text| percent_decode_str(text).decode_utf8().is_ok();
    if readable(user) && readable(password) {
        Ok(Login::new(user, password))
    } else {
        refusal("user and password are UTF-8 before they are percent-encoded")
    }
}

/// The host, with the brackets that it has, and the port where there is one.
fn host_and_port_of(text: &str) -> Result<(&str, Option<&str>), Refusal> {
    let name_end = text.find(']').map_or(0, |at| at + 1);
    let (host, port) = match text[name_end..].find(':') {
        Some(at) => {
            let (host, port) = text.split_at(name_end + at);
            (host, Some(&port[1..]))
        }
        None => (text, None),
    };
    if host.is_empty() {
        return refusal("the host is missing: `redis://127.0.0.1:6379`");
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return refusal("an IPv6 address needs brackets: `redis://[::1]:6379`");
    }
    Ok((host, port))
}

fn is_port(text: &str) -> bool {
    let number = text.parse::<u16>().is_ok_and(|port| port > 0);
    number && text.bytes().all(|b| b.is_ascii_digit())
}

fn check_host(host: &str) -> Result<(), Refusal> {
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip = match bracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => host.parse().ok(),
    };
    if ip.is_some_and(|ip| ip.is_unspecified()) {
        return refusal("nobody can connect to a wildcard address: write `127.0.0.1` or `[::1]`");
    }
    if ip.is_none() && (bracketed.is_some() || !is_host(host)) {
        return refusal("the host is a name, an IPv4 address, or an IPv6 address in brackets");
    }
    Ok(())
}

/// `/db`, or nothing.
fn database_of_path(tail: &str) -> Result<u32, Refusal> {
    if tail.contains('#') {
        return refusal(
            "remove `#`; certificates are always verified: give your own CA's in `ca_file`",
        );
    }
    if tail.contains('?') {
        return refusal("remove `?` and what follows");
    }
    match tail.strip_prefix('/') {
        None | Some("") => Ok(0),
        Some(number) => database(number),
    }
}

fn database(number: &str) -> Result<u32, Refusal> {
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    match number.parse::<i32>().ok().map(u32::try_from) {
        Some(Ok(number)) if digits => Ok(number),
        _ => refusal("behind the host stands the number of a database: `/0`"),
    }
}

/// `/path[?db=N&user=U&pass=P]`
fn socket(text: &str, rest: &str) -> Result<RedisUrl, Refusal> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.len() < 2 {
        return refusal("three slashes begin a socket's path: `unix:///run/redis/redis.sock`");
    }
    if percent_decode_str(path).count() > LONGEST_SOCKET_PATH {
        return refusal("the path of a socket has at most 107 bytes");
    }
    if rest.contains('#') || query.contains('+') {
        return refusal("percent-encode `#` and `+`: `%23` and `%2B`");
    }
    let (mut user, mut password, mut number) = ("", "", "0");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("user", value)) => user = value,
            Some(("pass", value)) => password = value,
            Some(("db", value)) => number = value,
            _ => {
                return refusal(
                    "behind a socket's path stands `?db=0&user=name&pass=word` at most",
                );
            }
        }
    }
    Ok(RedisUrl {
        database: database(number)?,
        ..RedisUrl::of(text, Transport::Socket, login_of(user, password)?)
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    fn read(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|hint| panic!("{text}: {hint:?}"))
    }

    #[test]
    fn every_form_is_read() {
        for (text, database, has_port) in [
            ("redis://127.0.0.1", 0, false),
            ("redis://127.0.0.1:6379", 0, true),
            ("redis://redis_1.internal:6379/", 0, true),
            ("redis://:pass@host/3", 3, false),
            ("redis://user:p%40ss:w%2Ford@host:1/15", 15, true),
            ("redis://user:p@ss@host", 0, false),
            ("redis://user@host", 0, false),
            ("rediss://[::1]:6380/2", 2, true),
            ("rediss://[2001:db8::1]", 0, false),
            ("unix:///run/redis/redis.sock", 0, false),
            (
                "redis+unix:///run/redis.sock?db=4&user=u&pass=p%20w",
                4,
                false,
            ),
        ] {
            let url = read(text);
            assert_eq!(
                (url.text.expose(), url.database, url.has_port),
                (text, database, has_port)
            );
        }
        assert!(read("").is_empty());
        assert!(read("rediss://h").transport == Transport::Tls);
        assert!(read("unix:///s").transport == Transport::Socket);
    }

    #[test]
    fn the_login_is_known() {
        assert!(read("redis://user@host").login.lacks_password());
        assert!(read("unix:///s?user=u").login.lacks_password());
        assert!(!read("redis://user:p@host").login.lacks_password());
        assert!(!read("redis://:p@host").login.lacks_password());
        assert!(read("redis://u:p@a").login == read("redis://u:p@b").login);
        assert!(read("redis://u:p@a").login != read("redis://u:q@a").login);
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write() {
        for (text, hint) in [
            ("127.0.0.1:6379", "the scheme is missing"),
            ("redis:6379", "the scheme is missing"),
            ("/run/redis.sock", "write `unix://`"),
            ("unix:/run/redis.sock", "three slashes"),
            ("unix://run/redis.sock", "three slashes"),
            ("unix:///", "three slashes"),
            ("redis://", "the host is missing"),
            ("redis:///0", "the host is missing"),
            ("redis://:6379", "the host is missing"),
            ("redis://:pass@:6379", "the host is missing"),
            ("redis://::1", "the host is missing"),
            ("redis://fe80::1", "needs brackets"),
            ("redis://host:", "the port is a number"),
            ("redis://host:0", "the port is a number"),
            ("redis://host:65536", "the port is a number"),
            ("redis://host:+1", "the port is a number"),
            ("redis://ho st", "percent-encode what is not visible"),
            ("redis://hö", "percent-encode what is not visible"),
            ("redis://host!", "the host is a name"),
            ("redis://[::1", "the host is a name"),
            ("redis://[::1]x", "the host is a name"),
            ("redis://[a]", "the host is a name"),
            ("redis://300.1.1.1", "the host is a name"),
            ("redis://0.0.0.0:6379", "nobody can connect"),
            ("redis://[::]:6379", "nobody can connect"),
            ("redis://host/x", "the number of a database"),
            ("redis://host/-1", "the number of a database"),
            ("redis://host/+1", "the number of a database"),
            ("redis://host/1/", "the number of a database"),
            ("redis://host/99999999999", "the number of a database"),
            ("redis://host/0?protocol=resp3", "remove `?`"),
            ("rediss://host#insecure", "certificates are always verified"),
            ("redis://:pa/ss@host", "percent-encode `/`"),
            ("redis://:pa#ss@host", "percent-encode `/`"),
            ("redis://:%ff@host", "UTF-8"),
            ("unix:///s#x", "percent-encode `#`"),
            ("unix:///s?user=u&pass=a+b", "`%2B`"),
            ("unix:///s?x=1", "behind a socket's path"),
            ("unix:///s?db", "behind a socket's path"),
            ("unix:///s?db=x", "the number of a database"),
            ("valkey://host", "write `redis://`"),
            ("valkeys://host", "write `rediss://`"),
            ("redis+sentinel://host", "`mode: sentinel`"),
            ("http://host", ""),
        ] {
            let found = instead::<RedisUrl>(text);
            assert!(found.contains(hint), "{text}: {found}");
        }
        let long = format!("unix:///{}", "x".repeat(107));
        assert!(instead::<RedisUrl>(&long).contains("107 bytes"));
        assert!(!read(&long[..long.len() - 1]).is_empty());
    }

    #[test]
    fn the_pattern_for_editors_is_no_stricter_than_the_parser() {
        let pattern = regex_automata::meta::Regex::new(RedisUrl::PATTERN.unwrap()).unwrap();
        for text in [
            "",
            "redis://h",
            "rediss://h",
            "unix:///s",
            "redis+unix:///s",
        ] {
            assert!(
                pattern.is_match(text) && RedisUrl::parse(text).is_ok(),
                "{text}"
            );
        }
    }
}
