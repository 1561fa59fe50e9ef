//! Walks the tree along the schema, reports everything of the wrong shape, and hands on the rest as a plain value.

use std::collections::BTreeMap;

use serde_yaml::{Mapping as YamlMapping, Value};

use super::place::{Place, Step};
use super::problem::{Report, closest, listed, quoted};
use super::scalar::Typed;
use super::shape::{Shape, ShapeKind};
use super::tree::{Kind, Mapping, Node, Position, Scalar};

/// The part of the tree that has the right shape, ready for serde. What is wrong is reported and left out; in a list
/// it becomes null, so that the other elements keep their index.
pub(super) fn check_shape(root: &Node, shape: &Shape, report: &mut Report) -> Value {
    let mut walk = Walk { report };
    walk.node(root, Position::START, shape, &Place::ROOT)
        .unwrap_or(Value::Mapping(YamlMapping::new()))
}

struct Walk<'r> {
    report: &'r mut Report,
}

impl Walk<'_> {
    /// The value of a node; `None` where it is left out. `at` is where messages about it point.
    fn node(
        &mut self,
        node: &Node,
        at: Position,
        shape: &Shape,
        place: &Place<'_>,
    ) -> Option<Value> {
        match (&node.kind, &shape.kind) {
            (Kind::Broken, _) => None,
            (Kind::Mapping(mapping), ShapeKind::Fields { fields, required }) => {
                let value = self.fields(mapping, shape, place);
                self.missing(mapping, fields, required, at, place);
                Some(value)
            }
            (Kind::Mapping(mapping), ShapeKind::Named { .. }) => {
                Some(self.named(mapping, shape, place))
            }
            (Kind::List(items), ShapeKind::List(item)) => {
                let mut values = Vec::with_capacity(items.len());
                for (index, node) in items.iter().enumerate() {
                    let value = self.node(node, node.at, item, &place.then(Step::Index(index)));
                    values.push(value.unwrap_or(Value::Null));
                }
                Some(Value::Sequence(values))
            }
            (Kind::Scalar(scalar), _) => self.scalar(scalar, at, shape, place),
            (Kind::List(_), _) => self.wrong_type("a list", at, shape, place),
            (Kind::Mapping(_), _) => self.wrong_type("a mapping", at, shape, place),
        }
    }

    fn fields(&mut self, mapping: &Mapping, shape: &Shape, place: &Place<'_>) -> Value {
        let ShapeKind::Fields { fields, .. } = &shape.kind else {
            return Value::Null;
        };
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let mut values = YamlMapping::new();
        for entry in &mapping.entries {
            let Some(field) = fields.get(&entry.key) else {
                self.unknown_key(&entry.key, entry.key_at, &names, shape.secret(), place);
                continue;
            };
            if let Some(value) = self.node(&entry.value, entry.at(), field, &place.then(&entry.key))
            {
                values.insert(Value::String(entry.key.clone()), value);
            }
        }
        Value::Mapping(values)
    }

    fn unknown_key(
        &mut self,
        key: &str,
        at: Position,
        names: &[&str],
        secret: bool,
        place: &Place<'_>,
    ) {
        let hint = match closest(key, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if names.is_empty() => "nothing is set here: write `{}`".to_owned(),
            None => format!("valid keys: {}", listed(names.iter().copied())),
        };
        if secret && closest(key, names.iter().copied()).is_none() {
            // A key far from any valid one, where secrets are written, may be a secret in the wrong place.
            self.report.error(at, place, "unknown key", hint);
        } else {
            self.report.error(
                at,
                &place.then(key),
                format!("unknown key {}", quoted(key)),
                hint,
            );
        }
    }

    fn missing(
        &mut self,
        mapping: &Mapping,
        fields: &BTreeMap<String, Shape>,
        required: &[String],
        at: Position,
        place: &Place<'_>,
    ) {
        for key in required.iter().filter(|key| mapping.get(key).is_none()) {
            let expected = fields.get(key).map(Shape::expected).unwrap_or_default();
            let hint = format!("add `{key}:` with {expected}");
            self.report
                .error(at, place, format!("the key `{key}` is missing"), hint);
        }
    }

    fn named(&mut self, mapping: &Mapping, shape: &Shape, place: &Place<'_>) -> Value {
        let ShapeKind::Named {
            names,
            values: value_shape,
        } = &shape.kind
        else {
            return Value::Null;
        };
        let mut values = YamlMapping::new();
        for entry in &mapping.entries {
            let place = place.then(&entry.key);
            if let Some(rules) = names
                && let Err(hint) = (rules.check)(&entry.key)
            {
                let message = format!("{} is not {}", quoted(&entry.key), rules.what);
                self.report.error(
                    entry.key_at,
                    &place,
                    message,
                    hint.unwrap_or_else(|| rules.hint.to_owned()),
                );
            }
            // A value under a bad name is still checked.
            if let Some(value) = self.node(&entry.value, entry.at(), value_shape, &place) {
                values.insert(Value::String(entry.key.clone()), value);
            }
        }
        Value::Mapping(values)
    }

    fn scalar(
        &mut self,
        scalar: &Scalar,
        at: Position,
        shape: &Shape,
        place: &Place<'_>,
    ) -> Option<Value> {
        let typed = scalar.typed();
        if typed == Typed::Null && shape.nullable {
            return Some(Value::Null);
        }
        match (&shape.kind, typed) {
            // A section whose lines are all commented out is an absent section.
            (ShapeKind::Fields { required, .. }, Typed::Null)
                if scalar.text.is_empty() && required.is_empty() =>
            {
                Some(Value::Mapping(YamlMapping::new()))
            }
            (ShapeKind::Named { .. }, Typed::Null) if scalar.text.is_empty() => {
                Some(Value::Mapping(YamlMapping::new()))
            }
            (ShapeKind::List(_), Typed::Null) if scalar.text.is_empty() => {
                Some(Value::Sequence(Vec::new()))
            }
            (ShapeKind::Bool, Typed::Bool(value)) => Some(Value::Bool(value)),
            (ShapeKind::Integer { min, max }, Typed::Integer(value)) => {
                self.integer(value, *min, *max, scalar, at, place)
            }
            (ShapeKind::Choice(words), Typed::Text(text)) => {
                self.choice(words, text, scalar, at, place)
            }
            // A key or a token may look like a number; where text is expected it is taken as it is written.
            (ShapeKind::Text(rules), typed) if typed != Typed::Null => {
                let Some(rules) = rules else {
                    return Some(Value::String(scalar.text.clone()));
                };
                let Err(better) = (rules.check)(&scalar.text) else {
                    return Some(Value::String(scalar.text.clone()));
                };
                // What is said of a secret repeats nothing of it, and so may be said of a variable's value too.
                let telling = rules.secret || scalar.template.is_none();
                let hint = better
                    .filter(|_| telling)
                    .unwrap_or_else(|| rules.hint.to_owned());
                let shown = if rules.secret {
                    "this".to_owned()
                } else {
                    scalar.shown()
                };
                self.report
                    .error(at, place, format!("{shown} is not {}", rules.what), hint);
                None
            }
            (_, typed) => {
                let found = if shape.secret() {
                    "a scalar".to_owned()
                } else {
                    scalar.found(typed)
                };
                self.wrong_type(&found, at, shape, place)
            }
        }
    }

    fn integer(
        &mut self,
        value: i128,
        min: i128,
        max: i128,
        scalar: &Scalar,
        at: Position,
        place: &Place<'_>,
    ) -> Option<Value> {
        if let Ok(number) = u64::try_from(value)
            && (min..=max).contains(&value)
        {
            return Some(Value::Number(number.into()));
        }
        let shown = if scalar.template.is_some() {
            scalar.shown()
        } else {
            value.to_string()
        };
        let hint = format!("write a whole number from {min} to {max}");
        self.report
            .error(at, place, format!("{shown} is not allowed"), hint);
        None
    }

    fn choice(
        &mut self,
        words: &[String],
        text: &str,
        scalar: &Scalar,
        at: Position,
        place: &Place<'_>,
    ) -> Option<Value> {
        if words.iter().any(|word| word == text) {
            return Some(Value::String(text.to_owned()));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let all = format!("one of: {}", listed(words.iter().copied()));
        let hint = match closest(text, words.iter().copied()) {
            Some(near) if scalar.template.is_none() => format!("did you mean `{near}`? {all}"),
            _ => all,
        };
        self.report.error(
            at,
            place,
            format!("{} is not allowed", scalar.shown()),
            hint,
        );
        None
    }

    fn wrong_type(
        &mut self,
        found: &str,
        at: Position,
        shape: &Shape,
        place: &Place<'_>,
    ) -> Option<Value> {
        let hint = match &shape.kind {
            ShapeKind::Text(Some(rules)) => Some(rules.hint.to_owned()),
            ShapeKind::Integer { min, max } => {
                Some(format!("write a whole number from {min} to {max}"))
            }
            ShapeKind::Bool => Some("write `true` or `false`".to_owned()),
            ShapeKind::List(_) => Some("write `[one, two]`, or one `- item` per line".to_owned()),
            ShapeKind::Fields { fields, .. } if !fields.is_empty() => Some(format!(
                "write keys and values; valid keys: {}",
                listed(fields.keys().map(String::as_str))
            )),
            _ => None,
        };
        self.report.error(
            at,
            place,
            format!("expected {}, found {found}", shape.expected()),
            hint,
        );
        None
    }
}

impl Scalar {
    /// The text for a message: as it stands in the file, so that no variable's value is told.
    pub(super) fn shown(&self) -> String {
        match &self.template {
            Some(template) => format!("the value of {}", quoted(template)),
            None => quoted(&self.text),
        }
    }

    /// What was found in place of something else.
    fn found(&self, typed: Typed<'_>) -> String {
        let kind = match typed {
            Typed::Null => return "nothing".to_owned(),
            _ if self.template.is_some() => return self.shown(),
            Typed::Bool(_) => "a boolean,",
            Typed::Integer(_) | Typed::Fraction => "the number",
            Typed::Text(_) => "the text",
        };
        format!("{kind} {}", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{errors, loaded, problems, with_route};

    #[test]
    fn all_errors_come_at_once_with_line_and_column() {
        let text = "\
server:
  treads: 4
  grace_period: 30
listeners:
  - address: 0.0.0.0
upstreams:
  orders:
    peers: [{ address: 127.0.0.1:9001, weight: -1 }]
    balance: roundrobin
routes:
  - name: Search
    match: { path: search }
    upstream: oders
    max_body: 10MB
policies:
  p:
    key: [client]
    algorithm: token_bucket
    quota:
      count: 0
      period: 60s
    routes: [serch]
    status: 200
";
        assert_eq!(
            problems(text),
            [
                "2:3: server.treads: unknown key `treads`; hint: did you mean `threads`?",
                "3:17: server.grace_period: `30` is not a duration; hint: a unit is missing: `30s` or `30ms`",
                "5:14: listeners[0].address: `0.0.0.0` is not an address to listen on; \
                 hint: a port is missing: `0.0.0.0:8080`",
                "8:48: upstreams.orders.peers[0].weight: -1 is not allowed; \
                 hint: write a whole number from 0 to 65535",
                "9:14: upstreams.orders.balance: `roundrobin` is not allowed; \
                 hint: did you mean `round_robin`? one of: round_robin, random",
                "11:11: routes[0].name: `Search` is not a name; hint: write `search`: 1 to 63 of `a-z 0-9 _ -`, \
                 starting with a letter or digit",
                "12:20: routes[0].match.path: `search` is not a path in normal form; hint: write `/search`",
                "13:15: routes[0].upstream: there is no upstream `oders`; hint: did you mean `orders`?",
                "14:15: routes[0].max_body: `10MB` is not a size; hint: write `10MiB`",
                "20:14: policies.p.quota.count: 0 is not allowed; hint: write a whole number from 1 to 1000000000",
                "22:14: policies.p.routes[0]: there is no route `serch`; hint: did you mean `Search`?",
                "23:13: policies.p.status: 200 is not allowed; hint: write a whole number from 400 to 599",
            ]
        );
    }

    #[test]
    fn wrong_types_name_what_was_found_and_what_is_expected() {
        assert_eq!(
            errors(
                "server: []\nlisteners: {}\nstore: { memory: { max_keys: many } }\nadmin: 5\nauth: ~\ntiers: [a]\n"
            ),
            [
                "1:1 server: expected a mapping, found a list",
                "2:1 listeners: expected a list, found a mapping",
                "3:30 store.memory.max_keys: expected a whole number, found the text `many`",
                "4:8 admin: expected a mapping or null, found a scalar",
                "5:7 auth: expected a mapping, found nothing",
                "6:1 tiers: expected a mapping, found a list",
            ]
        );
        assert_eq!(errors("- a\n"), ["1:1 : expected a mapping, found a list"]);
        assert_eq!(
            errors("just text\n"),
            ["1:1 : expected a mapping, found the text `just text`"]
        );
        assert_eq!(
            errors(
                "routes: [{name: r, upstream: u, forward_credentials: yes}]\nupstreams: {u: {peers: [{address: a:1}]}}"
            ),
            ["1:54 routes[0].forward_credentials: expected true or false, found the text `yes`"]
        );
        assert_eq!(
            errors("store: { memory: { max_keys: 1.5 } }"),
            ["1:30 store.memory.max_keys: expected a whole number, found the number `1.5`"]
        );
    }

    #[test]
    fn an_unknown_key_far_from_any_other_lists_the_valid_ones() {
        assert_eq!(
            problems("store: { zzz: 1 }\ntiers: { pro: { limit: 1 } }\n"),
            [
                "1:10: store.zzz: unknown key `zzz`; hint: valid keys: expected_gateways, max_local_keys, memory, redis",
                "2:17: tiers.pro.limit: unknown key `limit`; hint: nothing is set here: write `{}`",
            ]
        );
    }

    #[test]
    fn missing_keys_point_at_the_mapping_that_lacks_them() {
        assert_eq!(
            problems("routes:\n  - match:\n      path: /\npolicies:\n  p:\n    key: [ip]\n"),
            [
                "2:5: routes[0]: the key `name` is missing; hint: add `name:` with a name",
                "2:5: routes[0]: the key `upstream` is missing; hint: add `upstream:` with text",
                "5:3: policies.p: the key `algorithm` is missing; hint: add `algorithm:` with one of token_bucket, \
                 sliding_window, sliding_window_counter, fixed_window, leaky_bucket, concurrency",
                "5:3: policies.p: the key `quota` is missing; hint: add `quota:` with a mapping",
            ]
        );
    }

    #[test]
    fn a_section_without_content_is_an_absent_one() {
        loaded("server:\nlisteners: [{address: 0.0.0.0:1}]\nroutes:\ntiers:\n  free:\n");
        assert!(loaded("admin:\n").config.admin.is_none());
    }

    #[test]
    fn text_that_looks_like_a_number_stays_as_it_is_written() {
        let loaded = loaded(&with_route("admin: { token: 00123 }"));
        assert_eq!(
            loaded.config.admin.unwrap().token.unwrap().expose(),
            "00123"
        );
    }

    #[test]
    fn what_is_broken_makes_no_follow_on_noise() {
        // The upstream is broken but defined; so are the route, the tier's and the client's definitions.
        let text = "\
upstreams:
  u: { peers: 5 }
tiers: { Pro: {} }
clients: { acme: [] }
routes:
  - name: r
    upstream: u
    oops: 1
policies:
  p:
    routes: [r]
    key: [clinet]
    algorithm: token_bukket
    quota: { count: 5, period: x, calendar: day }
    cost: 9
    tiers: { Pro: { count: 1, period: 1s } }
    overrides: { acme: { count: 9, period: 1s } }
";
        assert_eq!(
            errors(text),
            [
                "2:15 upstreams.u.peers: expected a list, found the number `5`",
                "3:10 tiers.Pro: `Pro` is not a name",
                "4:12 clients.acme: expected a mapping, found a list",
                "8:5 routes[0].oops: unknown key `oops`",
                "12:11 policies.p.key[0]: `clinet` is not a descriptor",
                "13:16 policies.p.algorithm: `token_bukket` is not allowed",
                "14:32 policies.p.quota.period: `x` is not a duration",
            ]
        );
        // Elements keep their index although one before them is broken.
        assert_eq!(
            errors(
                "upstreams: {u: {peers: [{address: a:1}]}}\nroutes:\n  - 5\n  - {name: a, upstream: x}\n"
            ),
            [
                "3:5 routes[0]: expected a mapping, found the number `5`",
                "4:25 routes[1].upstream: there is no upstream `x`",
            ]
        );
    }

    #[test]
    fn secrets_and_values_of_variables_never_appear_in_problems() {
        const SECRET: &str = "s3cret-s3cret-s3cret";
        for text in [
            "admin: { address: 0.0.0.0:1, token: 's3cret-s3cret-s3cret x' }",
            "admin:\n  token: ${SECRET} ü",
            "admin:\n  address: ${SECRET}",
            "server:\n  threads: ${SECRET}\n  grace_period: ${SECRET}\n  health:\n    detail: ${SECRET}",
            "clients: { a: { api_keys: [{ sha256: s3cret-s3cret-s3cret }] } }",
            "clients: { a: { api_keys: [s3cret-s3cret-s3cret] } }",
            "clients: { a: { api_keys: [{ s3cret-s3cret-s3cret: 1 }] } }",
            "clients: { a: { api_keys: s3cret-s3cret-s3cret } }",
            "clients: { a: { api_keys: [{ plain: s3cret-s3cret-s3cret }] }, b: { api_keys: [{ plain: s3cret-s3cret-s3cret }] } }",
            "clients:\n  a:\n    tier: ${SECRET}",
            "routes:\n  - name: r\n    upstream: ${SECRET}\n    match:\n      path: ${SECRET}\n      path_regex: (${SECRET}",
            "policies:\n  p:\n    routes:\n      - ${SECRET}\n    key:\n      - ${SECRET}\n    algorithm: ${SECRET}",
            "server: { user_agent_header: ${SECRET} }",
            "store: { redis: { url: 'redis://:s3cret-s3cret-s3cret@host:x' } }",
            "store: { redis: { url: 'redis://s3cret-s3cret-s3cret@host' } }",
            "store: { redis: { urls: 'redis://:s3cret-s3cret-s3cret@host' } }",
            "store: { redis: { urls: ['redis://:s3cret-s3cret-s3cret@host', 'redis://:x@host', 'redis://host#s3cret-s3cret-s3cret'], mode: cluster } }",
            "store: { redis: 'redis://:s3cret-s3cret-s3cret@host' }",
            "store: 'redis://:s3cret-s3cret-s3cret@host'",
            "store: { memory: 'unix:///s?pass=s3cret-s3cret-s3cret' }",
            "store: { 'redis://:s3cret-s3cret-s3cret@host': 1 }",
            "upstreams: { u: { peers: [{ address: 'redis://:s3cret-s3cret-s3cret@host' }] } }",
            "routes: [{ match: { hosts: ['http://u:s3cret-s3cret-s3cret@host'] } }]",
            "store:\n  redis:\n    url: redis://:${SECRET}@host/x\n    ca_file: ${SECRET}\n    prefix: ${SECRET}{\n    master: ${SECRET}\n",
        ] {
            let problems = problems(text);
            assert!(!problems.is_empty(), "{text}");
            assert!(
                problems.iter().all(|problem| !problem.contains(SECRET)),
                "{problems:?}"
            );
        }
        let loaded = loaded(
            "admin: { token: s3cret-s3cret-s3cret }\nclients: { a: { api_keys: [{ plain: s3cret-s3cret-s3cret }] } }\n\
             store: { redis: { url: 'redis://:s3cret-s3cret-s3cret@host' } }",
        );
        assert!(!format!("{loaded:?}").contains(SECRET));
        assert_eq!(loaded.warnings.len(), 1);
    }

    #[test]
    fn a_value_from_the_environment_is_named_by_its_variable() {
        assert_eq!(
            errors(
                "store:\n  memory:\n    max_keys: ${NUMBER}x\nserver:\n  threads: ${NUMBER}000\n"
            ),
            [
                "3:15 store.memory.max_keys: expected a whole number, found the value of `${NUMBER}x`",
                "5:12 server.threads: the value of `${NUMBER}000` is not allowed",
            ]
        );
    }
}
