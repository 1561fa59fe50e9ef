//! The six algorithms as pure functions of (quota, state, now): no clock, no I/O, whole numbers.
//!
//! Every algorithm answers the same four questions about one bucket: may a cost be taken
//! ([`Answer`]), what does the state become (`charge`), what is there to report ([`Reading`]), and
//! when has the state become equal to the empty one (`empty_at_us`). Times are microseconds since
//! the Unix epoch on the store's clock; a clock that stepped back is waited out, never trusted.

pub mod concurrency;
pub mod fixed_window;
pub mod leaky_bucket;
pub mod sliding_window;
pub mod sliding_window_counter;
pub mod token_bucket;

/// Whether one bucket has room for a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is room; forward after `delay_us` microseconds (always 0 but for the leaky bucket).
    Admit {
        /// how long to hold the request, microseconds
        delay_us: u64,
    },
    /// No room; after `retry_after_us` there is, if nobody else takes it. `None`: waiting does not help.
    Refuse {
        /// the least wait that helps, microseconds
        retry_after_us: Option<u64>,
    },
}

impl Answer {
    /// Room at once.
    pub const NOW: Answer = Answer::Admit { delay_us: 0 };

    /// Is there room?
    pub fn admits(self) -> bool {
        matches!(self, Answer::Admit { .. })
    }
}

/// What a client is told about one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// whole units that could be taken now
    pub remaining: u64,
    /// microseconds until the bucket is whole again
    pub reset_after_us: u64,
}
