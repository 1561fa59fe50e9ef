//! Tidegate: an edge proxy and API gateway that knows who is calling and what they may use.

pub mod clock;
pub mod limit;
