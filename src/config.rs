//! The YAML as people type it becomes a validated `Config`, or a list of everything that is wrong with it.
//!
//! text -> `tree` (spans) -> `substitute` (`${VAR}`) -> `check_shape` (along the JSON Schema of `raw`) -> `raw` (serde)
//! -> `resolve` (references, contradictions) -> `model`. Every step reports all it finds and hands on the rest.

mod check_shape;
mod environment;
mod load;
mod locator;
mod model;
mod notation;
mod overlay;
mod place;
mod problem;
mod raw;
#[cfg(test)]
mod reference;
mod resolve;
mod scalar;
mod schema;
mod shape;
mod shown;
mod substitute;
#[cfg(test)]
mod testing;
mod tree;

pub use environment::Environment;
pub use load::{Loaded, Source, load, parse};
pub use model::{
    Admin, Algorithm, Auth, Balance, Basic, CalendarUnit, Canary, Client, ClientKey, Config,
    Consistency, Database, FailureGuard, ForwardAuth, HealthDetail, Jwt, JwtAlgorithm, JwtKey,
    JwtKeySource, KeyPart, Listener, Mode, OnOutage, Override, PathPattern, Peer, Policy, Protocol,
    Quota, Redis, RedisMode, ResponseHeaders, Route, RouteAuth, RouteSettings, Secret, Server,
    Store, Upstream, Window,
};
pub use notation::{duration, is_client_id, is_name};
pub use overlay::{Row, Section};
pub use place::Step;
pub use problem::{Problem, Severity, without_login};
pub use schema::{json_schema, of_types as schema_of_types};
pub use shown::Shown;
