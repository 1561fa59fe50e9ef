//! Black-box tests: the real binary, real sockets, upstreams scripted by each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that panics is a test that fails"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a process is waited for by the real clock, with a deadline"
)]

mod admin;
mod algorithms;
mod basic;
mod bodies;
mod client;
mod client_address;
mod commands;
mod connections;
mod forward_auth;
mod gateway;
mod grpc;
mod hostile;
mod http2;
mod identity;
mod identity_headers;
mod interim;
mod ip_lists;
mod issuers_over_tls;
mod jwks;
mod jwt;
mod limits;
mod main_story;
mod one_truth;
mod outage;
mod paths;
mod policies;
mod postgres;
mod queue;
mod ratelimit_headers;
mod redis;
mod reload;
mod route_settings;
mod routing;
mod scratch;
mod shared;
mod simulate;
mod stopping;
mod token;
mod transparency;
mod upstream;
mod upstream_trouble;
mod waiting;
