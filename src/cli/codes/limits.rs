//! Codes of calls that a limit of their server's entry, or a key or token that is not good, does not
//! let through.
//!
//! Must never give a code to another problem.

use crate::cli::codes::doc;
use crate::config::codes::CodeDoc;

/// In order, each once.
pub(super) const DOCS: &[CodeDoc] = &[
    doc(
        "MCPO-G068",
        "a key is needed",
        "The request has no key, or another than `[openapi] api_key`.",
        "Send `Authorization: Bearer KEY`, or Basic with any user and the key as password.",
    ),
    doc(
        "MCPO-G070",
        "too many calls",
        "More calls of this server came, from all clients or from this one, than `rateLimit` or `rateLimitPerClient` of its entry allow.",
        "Come again after `Retry-After`, or raise the rate.",
    ),
    doc(
        "MCPO-G071",
        "too many calls at once",
        "`maxConcurrentRequests` calls are under way, and the queue before them is full or took longer than `queue.timeout`.",
        "Come again after `Retry-After`, or raise the number, the queue's length or its timeout.",
    ),
    doc(
        "MCPO-G072",
        "the circuit is open",
        "As many calls of this server as `circuitBreaker` says were not answered; it is left alone until one may try.",
        "See why the server does not answer: `logs NAME`, `why NAME`. Errors that tools report do not count.",
    ),
    doc(
        "MCPO-G073",
        "the call is too long",
        "The call's params have more bytes than `maxRequestBytes` of the entry.",
        "Send less, or raise the limit; more than 4 MiB are never taken.",
    ),
    doc(
        "MCPO-G074",
        "the server was not started in time",
        "A request came for a server that starts on demand or was stopped for want of use, and it did not answer within its start period.",
        "See `why NAME` for what holds it up (an image to be fetched, for example) and `logs NAME`; give it more time with `health.startPeriod`.",
    ),
    doc(
        "MCPO-G080",
        "no keys of the issuer",
        "The keys of `[jwt] issuer` cannot be had, so that nobody can tell whether a token is good. Keys that were had once stay in use while the issuer is away.",
        "See the detail and the journal. Check `[jwt] issuer` and `jwks_url` from this host, for example with curl; it is tried again by itself.",
    ),
];
