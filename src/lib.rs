//! Tidegate: an edge proxy and API gateway that knows who is calling and what they may use.
//!
//! The modules from the outside in; each uses only what stands below it, and `tests/tidy.rs`
//! checks that. `docs/architecture.md` has the drawing.

pub mod cli;

pub mod server;

pub mod admin;
pub mod gateway;

pub mod admission;

pub mod snapshot;

pub mod auth;
pub mod route;
pub mod upstream;

pub mod policy;

pub mod config;
pub mod database;
pub mod limit;

pub mod clock;
pub mod telemetry;
