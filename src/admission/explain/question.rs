//! The request that is asked about, as people write it.

use crate::route::host;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Most header lines, as in traffic.
const MAX_HEADERS: usize = 128;

/// A request to be explained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExplainRequest")]
pub struct Question {
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The URL, such as `http://api.example.com/search`; a path alone where `headers` has a `Host`.
    pub url: String,
    /// Headers by name; a list where one comes several times. They are never echoed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Values>,
    /// The client's address; absent: 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ip: Option<IpAddr>,
}

/// The value of a header, or the values of several lines.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "HeaderValues")]
pub enum Values {
    /// one line
    One(String),
    /// several
    Several(Vec<String>),
}

/// What is wrong with a question; never repeats a header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuestion {
    /// the field
    pub path: String,
    /// why it cannot be used
    pub message: String,
    /// what to write instead
    pub hint: &'static str,
}

/// The same, taken apart.
pub struct Parsed {
    method: Method,
    host: String,
    path: String,
    headers: HeaderMap,
    ip: IpAddr,
}

impl Parsed {
    /// What admission decides about.
    pub fn request(&self) -> crate::admission::Request<'_> {
        crate::admission::Request {
            method: &self.method,
            scheme: "http",
            host: &self.host,
            path: &self.path,
            query: None,
            headers: &self.headers,
            ip: self.ip,
        }
    }
}

fn get() -> String {
    "GET".to_owned()
}

impl Question {
    /// Takes it apart, or says everything that is wrong with it.
    pub fn parse(&self) -> Result<Parsed, Vec<BadQuestion>> {
        let mut bad = Vec::new();
        let method = Method::from_bytes(self.method.as_bytes());
        if method.is_err() {
            bad.push(BadQuestion {
                path: "method".into(),
                message: "not a method".into(),
                hint: "write it in capitals, such as `GET` or `POST`",
            });
        }
        let headers = self.header_map(&mut bad);
        let target = target(&self.url, &headers).map_err(|error| bad.push(error));
        match (method, target) {
            (Ok(method), Ok((host, path))) if bad.is_empty() => Ok(Parsed {
                method,
                host: host::normalise(&host).into_owned(),
                path,
                headers,
                ip: self
                    .ip
                    .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
                    .to_canonical(),
            }),
            _ => Err(bad),
        }
    }

    fn header_map(&self, bad: &mut Vec<BadQuestion>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let lines = self.headers.iter().flat_map(|(name, values)| {
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::Several(values) => values.as_slice(),
            };
            values.iter().map(move |value| (name, value))
        });
        for (number, (name, value)) in lines.enumerate() {
            if number >= MAX_HEADERS {
                bad.push(BadQuestion {
                    path: "headers".into(),
                    message: format!("more than {MAX_HEADERS} lines"),
                    hint: "traffic with so many is answered with 431; leave out what does not matter",
                });
                break;
            }
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .zip(HeaderValue::from_bytes(value.as_bytes()).ok());
            match parsed {
                Some((name, value)) => drop(headers.append(name, value)),
                None => bad.push(BadQuestion {
                    path: format!("headers.{}", name.escape_default()),
                    message: "the name or the value is not one a header can have".into(),
                    hint: "names have letters, digits and `-`; values no control characters",
                }),
            }
        }
        headers
    }
}

/// Host and path; the `Host` header wins, as it does on the wire.
fn target(url: &str, headers: &HeaderMap) -> Result<(String, String), BadQuestion> {
    let bad = |message: &str| BadQuestion {
        path: "url".into(),
        message: message.into(),
        hint: "write it like `http://api.example.com/search`; the query may be left out",
    };
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    if uri.scheme().is_none() && !url.starts_with('/') {
        return Err(bad("neither a URL nor a path"));
    }
    let http = matches!(uri.scheme_str(), None | Some("http" | "https"));
    if !http {
        return Err(bad("neither http nor https"));
    }
    let named = headers.get(header::HOST).map(|host| host.to_str());
    let host = match (named, uri.authority()) {
        (Some(Ok(host)), _) => host.to_owned(),
        (Some(Err(_)), _) => return Err(bad("the Host header is not visible ASCII")),
        (None, Some(authority)) => authority.as_str().to_owned(),
        (None, None) => return Err(bad("there is no host in it, and no Host header")),
    };
    let path = match uri.path() {
        "" => "/",
        path => path,
    };
    Ok((host, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(question: serde_json::Value) -> Result<Parsed, Vec<BadQuestion>> {
        serde_json::from_value::<Question>(question)
            .unwrap()
            .parse()
    }

    fn wrong(question: serde_json::Value) -> Vec<String> {
        let bad = parse(question).err().unwrap();
        bad.into_iter().map(|bad| bad.path).collect()
    }

    #[test]
    fn a_url_is_taken_apart_and_a_host_header_wins() {
        let parsed = parse(serde_json::json!({ "url": "http://API.example.com:8080/a?b=c" }))
            .unwrap_or_else(|bad| panic!("{bad:?}"));
        assert_eq!(
            (parsed.host.as_str(), parsed.path.as_str()),
            ("api.example.com", "/a")
        );
        assert_eq!(parsed.method, Method::GET);
        let parsed = parse(serde_json::json!({
            "url": "/x", "headers": { "Host": "other", "A": ["1", "2"] }, "ip": "::ffff:10.0.0.1"
        }))
        .unwrap_or_else(|bad| panic!("{bad:?}"));
        assert_eq!(parsed.host, "other");
        assert_eq!(parsed.headers.get_all("a").iter().count(), 2);
        assert_eq!(parsed.ip.to_string(), "10.0.0.1");
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_no_value_of_a_header() {
        assert_eq!(
            wrong(
                serde_json::json!({ "method": "G T", "url": "ftp://x/", "headers": { "a b": "s3cret" } })
            ),
            ["method", "headers.a b", "url"]
        );
        assert_eq!(wrong(serde_json::json!({ "url": "/no-host" })), ["url"]);
        let bad = parse(serde_json::json!({ "url": "http://h/", "headers": { "k": "s3\ncret" } }));
        assert!(!format!("{:?}", bad.err().unwrap()).contains("cret"));
        let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        assert_eq!(
            wrong(serde_json::json!({ "url": "http://h/", "headers": { "k": many } })),
            ["headers"]
        );
    }
}
