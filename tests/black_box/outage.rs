//! Redis fails in every way there is, under load: what clients see meanwhile, and what they get out of it.

#![allow(clippy::print_stderr, reason = "what was measured, for whoever looks")]

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
