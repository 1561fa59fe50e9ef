//! The scripts on a real Redis decide exactly as the in-process store does.

mod operations;
mod properties;
mod resources;
mod server;
mod shares;

use super::script::Scripts;
use super::wire::{self, Call, Frame, Granted, Mode, Refund, Set, Wanted};
use crate::limit::descriptor::{BucketKey, KeyWriter};
use crate::limit::quota::Quota;
use redis::{Arg, Cmd, Connection, FromRedisValue, Value};
use server::Server;
use std::sync::Arc;

/// Some day in November 2026, microseconds.
const EPOCH_US: u64 = 1_795_200_000_000_000;

/// What keys begin with.
const PREFIX: &str = "tg:";

const FRAME: Frame<'static> = Frame {
    gateway: "one",
    permit_ttl_us: *crate::limit::quota::PERIOD_US.end(),
    gateways: 3,
};

/// A Redis of its own, and the scripts on a clock that the test gives.
struct Store {
    _server: Server,
    connection: Connection,
    timed: Scripts,
}

impl Store {
    fn start() -> Self {
        let server = Server::start();
        let mut connection = server.connect();
        let timed = Scripts::on_given_clock();
        for script in timed.all() {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.text());
            load.exec(&mut connection).unwrap();
        }
        Store {
            _server: server,
            connection,
            timed,
        }
    }

    /// A command of the operator.
    fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection).unwrap()
    }

    /// A call by the clock of Redis, first without having loaded the script.
    fn call(&mut self, call: &Call) -> Value {
        match call.command().query(&mut self.connection) {
            Ok(reply) => reply,
            Err(error) => {
                assert!(
                    error.to_string().contains("NOSCRIPT")
                        || error.to_string().contains("NoScript"),
                    "{error}"
                );
                call.with_text().query(&mut self.connection).unwrap()
            }
        }
    }

    /// A call at a time the test gives.
    fn call_at(&mut self, call: &Call, now_us: u64) -> Value {
        let mut arguments = call.command().args_iter();
        let mut command = Cmd::new();
        command.arg("EVALSHA");
        let Some(Arg::Simple(hash)) = arguments.nth(1) else {
            panic!("not a call of a script");
        };
        let real = Scripts::get().all();
        let nth = real
            .iter()
            .position(|script| script.hash().as_bytes() == hash);
        command.arg(self.timed.all()[nth.unwrap()].hash());
        for argument in arguments {
            if let Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command.arg(now_us).query(&mut self.connection).unwrap()
    }

    fn spend_at(&mut self, sets: &[Set], now_us: u64) -> Vec<Granted> {
        let call = wire::spend(&FRAME, PREFIX, sets, now_us);
        wire::decode(&self.call_at(&call, now_us), sets).unwrap()
    }

    fn peek_at(&mut self, sets: &[Set], now_us: u64) -> Vec<Granted> {
        let call = wire::peek(&FRAME, PREFIX, sets, now_us);
        wire::decode_peek(&self.call_at(&call, now_us), sets).unwrap()
    }

    fn refund_at(&mut self, refunds: &[Refund], now_us: u64) {
        let call = wire::refund(&FRAME, PREFIX, refunds, now_us);
        let reply = self.call_at(&call, now_us);
        assert_eq!(wire::time(&reply), Ok(now_us));
    }

    /// Whole units left, by a peek.
    fn remaining_at(&mut self, name: &str, quota: &Quota, now_us: u64) -> u64 {
        let set = set([wanted(name, quota, 1)], 1);
        let peeked = self.peek_at(std::slice::from_ref(&set), now_us);
        peeked[0].decision(&set, 0).buckets[0].reading.remaining
    }

    fn keys(&mut self) -> Vec<String> {
        self.ask(&["KEYS", "*"])
    }
}

fn key(name: &str) -> BucketKey {
    KeyWriter::new(b'k', name).finish()
}

/// A bucket's key as Redis knows it.
fn stored(name: &str) -> String {
    format!("{PREFIX}{}", key(name))
}

fn wanted(name: &str, quota: &Quota, cost: u64) -> Wanted {
    Wanted {
        key: key(name),
        quota: quota.clone(),
        cost,
        mode: Mode::Enforce,
    }
}

fn in_mode(mode: Mode, wanted: Wanted) -> Wanted {
    Wanted { mode, ..wanted }
}

fn set<const N: usize>(buckets: [Wanted; N], requests: u64) -> Set {
    Set {
        buckets: Arc::new(buckets.into_iter().collect()),
        requests,
        extra: 0,
        lease_us: 0,
    }
}

fn taken(granted: &Granted) -> Vec<u64> {
    granted.buckets.iter().map(|bucket| bucket.taken).collect()
}

/// One of each algorithm, five units of it.
fn five_of_each() -> [(&'static str, Quota); 6] {
    const HOUR_US: u64 = 3_600_000_000;
    [
        ("t", Quota::token_bucket(5, HOUR_US, None).unwrap()),
        ("s", Quota::sliding_window(5, HOUR_US).unwrap()),
        ("n", Quota::sliding_window_counter(5, HOUR_US).unwrap()),
        ("f", Quota::fixed_window(5, HOUR_US).unwrap()),
        // the first is forwarded at once, four wait 12 minutes each
        (
            "l",
            Quota::leaky_bucket(5, HOUR_US, 48 * 60_000_000).unwrap(),
        ),
        ("c", Quota::concurrency(5).unwrap()),
    ]
}
