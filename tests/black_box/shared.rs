//! Several gateways on one real Redis: what they promise together.

mod accuracy;
mod clocks;
mod debugging;
mod edits;
mod fleet;
mod leases;
mod load;
mod permits;
mod refusals;
mod spray;
mod workers;
