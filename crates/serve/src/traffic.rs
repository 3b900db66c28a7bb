//! What is counted of connections and bodies, beside what is counted of requests.

use metrics::{Counter, Gauge};

use crate::telemetry::Telemetry;

/// What is counted of connections and bodies.
pub struct Traffic {
    /// Idle connections that were closed to let another one in.
    pub dropped: Counter,
    /// Connections that were closed at once, because their address has as many as it may have.
    pub refused: Counter,
    /// Connections on which the handshake of encryption took too long.
    pub slow_handshakes: Counter,
    /// Connections that had no request for too long.
    pub idle: Counter,
    /// Connections whose client did not take what was sent.
    pub stuck: Counter,
    /// Connections that the operating system could not hand over.
    pub accept_errors: Counter,
    /// Bytes of memory that bodies hold.
    pub request_memory: Gauge,
    /// Requests turned away because bodies hold all the memory they may.
    pub memory_refusals: Counter,
    /// Files of tokens or certificates that changed and could not be taken up.
    pub reload_failures: Counter,
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traffic").finish_non_exhaustive()
    }
}

impl Traffic {
    /// Nothing counted yet.
    pub fn new(telemetry: &Telemetry) -> Traffic {
        let timed_out =
            |reason| telemetry.counter("ams_connections_timed_out_total", &[("reason", reason)]);
        Traffic {
            dropped: telemetry.counter("ams_connections_dropped_total", &[]),
            refused: telemetry.counter("ams_connections_refused_total", &[]),
            slow_handshakes: timed_out("handshake"),
            idle: timed_out("idle"),
            stuck: timed_out("write"),
            accept_errors: telemetry.counter("ams_accept_errors_total", &[]),
            request_memory: telemetry.gauge("ams_request_memory_bytes"),
            memory_refusals: telemetry.counter("ams_request_memory_refusals_total", &[]),
            reload_failures: telemetry.counter("ams_reload_failures_total", &[]),
        }
    }
}
