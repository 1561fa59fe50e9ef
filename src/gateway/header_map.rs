//! Writing headers, by code that is there once.
//!
//! At a low rate most of a request's time goes into fetching code that has left the processor's caches,
//! and a compiler that goes by a profile copies what is called often to each place it is called from.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::{ErrorType, OrErr, Result};

/// Puts a header in place of those of the same name.
#[inline(never)]
pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}

/// A copy of its exact length: longer buffers would need a second allocation that says how long they are.
#[inline(never)]
pub(super) fn valued(text: &[u8]) -> Result<HeaderValue> {
    HeaderValue::from_bytes(text).or_err(ErrorType::InvalidHTTPHeader, "a header of ours")
}
