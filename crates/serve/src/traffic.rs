//! Metrics of connections and bodies; those of requests are in `telemetry`.

use metrics::{Counter, Gauge};

use crate::telemetry::Telemetry;

/// Handles to the metrics of connections, bodies and reloads.
pub(crate) struct TrafficMetrics {
    /// Idle connections closed to admit another one.
    pub dropped: Counter,
    /// Connections closed at once because their address reached its limit.
    pub refused: Counter,
    /// Connections closed because the handshake of TLS took too long.
    pub slow_handshakes: Counter,
    /// Connections closed because they had no request for too long.
    pub idle: Counter,
    /// Connections closed because the client did not read its response.
    pub stuck: Counter,
    /// Connections that the operating system could not accept.
    pub accept_errors: Counter,
    /// Bytes of memory that bodies hold.
    pub request_memory: Gauge,
    /// Requests refused because bodies hold all memory for requests.
    pub memory_refusals: Counter,
    /// Reloads of tokens or certificates that failed.
    pub reload_failures: Counter,
}

impl std::fmt::Debug for TrafficMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrafficMetrics").finish_non_exhaustive()
    }
}

impl TrafficMetrics {
    /// Registers the metrics with `telemetry`, at zero.
    pub(crate) fn new(telemetry: &Telemetry) -> TrafficMetrics {
        let timed_out =
            |reason| telemetry.counter("ams_connections_timed_out_total", &[("reason", reason)]);
        TrafficMetrics {
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
