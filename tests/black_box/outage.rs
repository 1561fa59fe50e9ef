//! Redis fails in every way there is, under load: what clients see meanwhile, and what they get out of it.

mod accounts;
mod deployments;
mod entrances;
mod kinds;
mod load;
mod scene;
mod shares;
mod waits;
