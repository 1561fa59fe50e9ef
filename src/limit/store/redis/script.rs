//! The scripts: their texts, their hashes, and for tests the same scripts on a clock that is given.

use std::sync::LazyLock;

const SPEND: &str = include_str!("../../../../lua/spend.lua");
const PEEK: &str = include_str!("../../../../lua/peek.lua");
const REFUND: &str = include_str!("../../../../lua/refund.lua");
const RESET: &str = include_str!("../../../../lua/reset.lua");
const ANNOUNCE: &str = include_str!("../../../../lua/announce.lua");
const RENEW: &str = include_str!("../../../../lua/renew.lua");

/// Ends the part of `spend.lua` that `peek.lua` has in another form.
const SHARED: &str = "-- what follows is shared with peek.lua\n";

/// One script: its text and the hash by which Redis knows it once it is loaded.
pub struct Script {
    text: String,
    hash: String,
}

/// All scripts.
pub struct Scripts {
    /// takes units from every bucket of a set or from none
    pub spend: Script,
    /// what spending would answer
    pub peek: Script,
    /// gives units back
    pub refund: Script,
    /// empties buckets and tells every gateway
    pub reset: Script,
    /// says that a gateway is alive, and counts those that are
    pub announce: Script,
    /// renews requests in flight
    pub renew: Script,
}

impl Script {
    fn new(text: String) -> Self {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Script { text, hash }
    }

    /// SHA-1 of the text in hex digits, the argument of `EVALSHA`.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The text, the argument of `EVAL`.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Scripts {
    /// The scripts as gateways run them, on the clock of Redis.
    pub fn get() -> &'static Scripts {
        static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts::made_by(str::to_owned));
        &SCRIPTS
    }

    /// All scripts on a clock that is given.
    #[cfg(test)]
    pub(super) fn on_given_clock() -> Scripts {
        Scripts::made_by(on_given_clock)
    }

    /// In order: spend, peek, refund, reset, announce, renew.
    pub fn all(&self) -> [&Script; 6] {
        [
            &self.spend,
            &self.peek,
            &self.refund,
            &self.reset,
            &self.announce,
            &self.renew,
        ]
    }

    fn made_by(edit: impl Fn(&str) -> String) -> Scripts {
        let shared = SPEND.split_once(SHARED).map_or("", |(_, shared)| shared);
        let script = |text: &str| Script::new(edit(text));
        Scripts {
            spend: script(SPEND),
            peek: script(&format!("{PEEK}{SHARED}{shared}")),
            refund: script(REFUND),
            reset: script(RESET),
            announce: script(ANNOUNCE),
            renew: script(RENEW),
        }
    }
}

/// A script whose last argument is the time in microseconds: another text, which no gateway sends.
/// Keys live an hour longer than their state, for that time does not pass like the one by which
/// Redis expires them.
pub(super) fn on_given_clock(text: &str) -> String {
    let given = "local time = { 0, table.remove(ARGV) }";
    let text = text.replace("local time = redis.call('TIME')", given);
    text.replace(
        "(until_us - now) / 1000)",
        "(until_us - now) / 1000) + 3600000",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_scripts_read_the_clock_of_redis_once_and_take_no_time_as_an_argument() {
        for script in Scripts::get().all() {
            assert!(!script.text.contains("table.remove(ARGV)"));
            let reads = script.text.matches("redis.call('TIME')").count();
            let mentions = script.text.matches("'TIME'").count();
            let clockless = script.text.contains("PUBLISH");
            assert_eq!(reads, usize::from(!clockless), "{}", script.text);
            assert_eq!(reads, mentions);
        }
    }

    #[test]
    fn scripts_on_a_given_clock_read_no_other_and_are_other_scripts() {
        let given = Scripts::on_given_clock();
        for (given, real) in given.all().into_iter().zip(Scripts::get().all()) {
            assert!(!given.text.contains("'TIME'"));
            assert_eq!(given.hash == real.hash, real.text.contains("PUBLISH"));
        }
    }

    #[test]
    fn peek_is_spend_without_spending() {
        let scripts = Scripts::get();
        assert!(scripts.spend.text.contains("\nlocal spending = true\n"));
        assert!(scripts.peek.text.contains("\nlocal spending = false\n"));
        assert!(!scripts.peek.text.contains("\nlocal spending = true\n"));
        let body = |text: &str| text.split_once(SHARED).map(|(_, body)| body.to_owned());
        assert_eq!(body(&scripts.spend.text), body(&scripts.peek.text));
        assert!(body(&scripts.spend.text).is_some_and(|body| body.len() > 1_000));
    }

    #[test]
    fn every_script_opens_with_what_it_does_its_keys_and_its_reply() {
        for text in [SPEND, PEEK, REFUND, RESET, ANNOUNCE, RENEW] {
            assert!(text.starts_with("--[[\n"));
            let header = text.split("]]").next().unwrap_or_default();
            for word in ["KEYS", "ARGV", "Reply"] {
                assert!(header.contains(word), "{word} is not in\n{header}");
            }
        }
    }
}
