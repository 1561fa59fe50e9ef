//! Redis fails in every way there is, under load: what clients see meanwhile, and what they get out of it.

#![allow(clippy::print_stderr, reason = "what was measured, for whoever looks")]

/// Each test with one worker, which has the store's connection on its own thread, and with two, which have
/// it on another: a request that waits alone makes its call itself with the one only.
macro_rules! with_one_worker_and_two {
    ($($test:ident,)*) => {
        mod one_worker {
            $(#[test] fn $test() { super::$test(1) })*
        }
        mod two_workers {
            $(#[test] fn $test() { super::$test(2) })*
        }
    };
}

mod accounts;
mod aftermath;
mod deployments;
mod entrances;
mod kinds;
mod leases;
mod load;
mod scene;
mod shares;
mod waits;
