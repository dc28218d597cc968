//! What a leg counts.
//!
//! Must never count anything that needs to look into arguments or results.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counters of one leg, counted as things happen.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64),+ }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)+
            /// Requests without an answer so far.
            pub in_flight: u64,
            /// Bytes waiting to be written.
            pub queued_bytes: u64,
        }

        impl Counters {
            pub(crate) fn read(&self) -> Metrics {
                Metrics { $($name: self.$name.load(Relaxed),)+ in_flight: 0, queued_bytes: 0 }
            }
        }
    };
}

counters! {
    /// Requests sent.
    requests,
    /// Results received.
    results,
    /// Errors received.
    errors,
    /// Requests given up after their time.
    timeouts,
    /// Requests whose caller went away.
    abandoned,
    /// Requests refused because too much was waiting.
    busy,
    /// Answers that nobody waited for any more.
    late,
    /// Pings of the server, answered.
    pings,
    /// Requests of the server, handed to a client.
    asked,
    /// Requests of the server, refused.
    refused,
    /// Progress notifications handed to a caller.
    progress,
    /// Other notifications handed on.
    notices,
    /// Progress, notifications, replies and diagnostics dropped because their taker was slow.
    dropped,
    /// Lines that were no message.
    noise,
    /// Lines over the limit.
    too_long,
    /// Bytes read.
    bytes_in,
    /// Bytes written.
    bytes_out,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Counts `n` more.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Relaxed);
}
