//! A real PostgreSQL for the tests, and what Tidegate does with one.

mod directory;
mod following;
mod identities;
mod keys;
mod many;
mod migrating;
mod resources;
mod rows;
mod scene;
mod server;
mod sockets;
mod state;

pub(crate) use server::PostgresServer;
