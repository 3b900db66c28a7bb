//! Counters and histograms of Prometheus. Every server has its own; none is global. Values of the
//! present state are written by `exposition`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::promotion::Counted;

/// Upper bounds of latencies, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Upper bounds of predicted click-through rates.
const RATES: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0];

/// Upper bounds of numbers of candidates.
const CANDIDATES: [f64; 9] = [1.0, 10.0, 50.0, 100.0, 200.0, 400.0, 1000.0, 4000.0, 10_000.0];

/// The registry of metrics, and handles to those of requests.
pub(crate) struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Requests refused because the queue is full.
    pub sheds: Counter,
    /// Requests whose deadline passed.
    pub deadlines: Counter,
    /// Requests whose job panicked.
    pub panics: Counter,
    /// Jobs that wait for a compute thread.
    pub waiting: Gauge,
    /// Open connections of both ports.
    pub connections: Gauge,
    /// Polls of the folder of models that failed.
    pub poll_failures: Counter,
    /// Looks at the folder of outcomes that failed.
    pub outcome_look_failures: Counter,
    /// Files of outcomes that are not whole, or of a model that is not known.
    pub outcome_parts_waiting: Gauge,
    /// Unix seconds of the last poll that succeeded.
    pub last_good_poll: Gauge,
    /// Seconds a request waited for a compute thread.
    pub queue_seconds: Histogram,
    /// Seconds a request was parsed, scored and written.
    pub compute_seconds: Histogram,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// A counter of one version, dropped with it.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn increment(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one version.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Page views that it scored.
    pub pages: Count,
    /// Items that the bundle does not list.
    pub missing_items: Count,
    /// Items whose picture has no embedding.
    pub missing_images: Count,
    /// Page views that it was to answer.
    pub requests: Count,
    /// Those that failed, and not by the client's fault.
    pub failures: Count,
    /// Impressions whose outcome is known.
    pub outcomes: Count,
    /// Clicks among them.
    pub clicks: Count,
    /// Clicks that were predicted for them, in billionths.
    pub predicted: Count,
}

impl Counts {
    /// Begins to answer a page view.
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        self.requests.increment(1);
        Attempt { counts: self, failed: true }
    }

    /// What a promotion looks at.
    pub(crate) fn counted(&self) -> Counted {
        Counted {
            requests: self.requests.get(),
            failures: self.failures.get(),
            impressions: self.outcomes.get(),
            clicks: self.clicks.get(),
            predicted: self.predicted.get(),
        }
    }
}

/// A page view that is being answered. Dropped without [`Attempt::end`], as by a panic, it failed.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    counts: &'a Counts,
    failed: bool,
}

impl Attempt<'_> {
    /// Ends it.
    pub(crate) fn end(mut self, failed: bool) {
        self.failed = failed;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.counts.failures.increment(u64::from(self.failed));
    }
}

/// Counters of one version, and histograms of its model.
#[derive(Clone)]
pub(crate) struct VersionMetrics {
    /// Dropped with the version, unlike the histograms.
    pub counts: Arc<Counts>,
    /// Candidates of a page view.
    pub candidates: Histogram,
    /// Predicted click-through rates of its answers.
    pub rates: Histogram,
}

impl std::fmt::Debug for VersionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionMetrics").finish_non_exhaustive()
    }
}

/// Names and help of the counters.
const COUNTERS: [(&str, &str); 19] = [
    ("ams_requests_total", "Requests answered on the port of page views, by route and status."),
    ("ams_sheds_total", "Requests refused with 503 because the queue is full."),
    ("ams_deadlines_passed_total", "Requests answered with 504 because their deadline passed."),
    ("ams_panics_total", "Requests answered with 500 because scoring them panicked: a defect."),
    ("ams_poll_failures_total", "Polls of the folder of models that failed."),
    ("ams_versions_refused_total", "Versions refused because a check failed, by model."),
    ("ams_canaries_raised_total", "Canaries that got more users or became live, by model."),
    ("ams_canaries_taken_back_total", "Canaries that their promotion took back, by model."),
    ("ams_outcome_parts_total", "Files of outcomes that were counted, by model."),
    (
        "ams_outcome_parts_refused_total",
        "Files of outcomes that are wrong and do not count, by model.",
    ),
    ("ams_outcome_look_failures_total", "Looks at the folder of outcomes that failed."),
    ("ams_deltas_refused_total", "Deltas refused because a check failed, by model."),
    ("ams_connections_dropped_total", "Idle connections closed to admit another one."),
    (
        "ams_connections_refused_total",
        "Connections refused because their address reached its limit.",
    ),
    (
        "ams_connections_timed_out_total",
        "Connections closed because a client was too slow, by reason.",
    ),
    ("ams_accept_errors_total", "Connections that the operating system could not accept."),
    (
        "ams_request_memory_refusals_total",
        "Requests refused because bodies held all memory for requests.",
    ),
    ("ams_spans_lost_total", "Spans that the collector of traces did not accept."),
    ("ams_reload_failures_total", "Reloads of tokens or certificates that failed."),
];

/// Names and help of the gauges.
const GAUGES: [(&str, &str); 5] = [
    ("ams_waiting_requests", "Requests that wait for a compute thread."),
    ("ams_connections", "Open connections."),
    (
        "ams_outcome_parts_waiting",
        "Files of outcomes that are not whole, or of a model that is not known.",
    ),
    ("ams_request_memory_bytes", "Bytes of memory that bodies hold."),
    (
        "ams_last_good_poll_timestamp_seconds",
        "Unix time of the last successful poll of the folder of models.",
    ),
];

/// Names and help of the histograms.
const HISTOGRAMS: [(&str, &str); 5] = [
    ("ams_request_seconds", "Seconds from a request's head to its response, by route."),
    ("ams_queue_seconds", "Seconds a request waited for a compute thread."),
    ("ams_compute_seconds", "Seconds a request was read, scored and written."),
    ("ams_page_view_candidates", "Candidates of a page view, by model."),
    ("ams_predicted_ctr", "Predicted click-through rates in answers, by model."),
];

const METADATA: Metadata<'static> = Metadata::new("ams", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect();
    Key::from_parts(name, labels)
}

impl Telemetry {
    /// Registers all metrics, at zero.
    pub(crate) fn new() -> Arc<Telemetry> {
        let buckets = [("_seconds", &SECONDS[..]), ("_ctr", &RATES), ("_candidates", &CANDIDATES)];
        let mut builder = PrometheusBuilder::new();
        for (suffix, bounds) in buckets {
            builder = builder
                .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
                .expect("there are bounds");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let name = KeyName::from_const_str;
        for (it, help) in COUNTERS {
            recorder.describe_counter(name(it), None, help.into());
        }
        for (it, help) in GAUGES {
            recorder.describe_gauge(name(it), None, help.into());
        }
        for (it, help) in HISTOGRAMS {
            recorder.describe_histogram(name(it), None, help.into());
        }
        let counter = |name| recorder.register_counter(&key(name, &[]), &METADATA);
        let gauge = |name| recorder.register_gauge(&key(name, &[]), &METADATA);
        let histogram = |name| recorder.register_histogram(&key(name, &[]), &METADATA);
        Arc::new(Telemetry {
            sheds: counter("ams_sheds_total"),
            deadlines: counter("ams_deadlines_passed_total"),
            panics: counter("ams_panics_total"),
            waiting: gauge("ams_waiting_requests"),
            connections: gauge("ams_connections"),
            poll_failures: counter("ams_poll_failures_total"),
            outcome_look_failures: counter("ams_outcome_look_failures_total"),
            outcome_parts_waiting: gauge("ams_outcome_parts_waiting"),
            last_good_poll: gauge("ams_last_good_poll_timestamp_seconds"),
            queue_seconds: histogram("ams_queue_seconds"),
            compute_seconds: histogram("ams_compute_seconds"),
            handle,
            recorder,
        })
    }

    /// Registers the counter `name` with `labels`.
    pub(crate) fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// Registers the gauge `name`, without labels.
    pub(crate) fn gauge(&self, name: &'static str) -> Gauge {
        self.recorder.register_gauge(&key(name, &[]), &METADATA)
    }

    /// Counts a response and its latency.
    pub(crate) fn answered(&self, route: &str, status: u16, seconds: f64) {
        let status = status.to_string();
        let labels = [("route", route), ("status", &status[..])];
        let counter = key("ams_requests_total", &labels);
        self.recorder.register_counter(&counter, &METADATA).increment(1);
        let histogram = key("ams_request_seconds", &labels[..1]);
        self.recorder.register_histogram(&histogram, &METADATA).record(seconds);
    }

    /// New counters for a version of `model`, and the histograms of the model.
    pub(crate) fn version(&self, model: &str) -> VersionMetrics {
        let labels = [("model", model)];
        let histogram = |name| self.recorder.register_histogram(&key(name, &labels), &METADATA);
        VersionMetrics {
            counts: Arc::default(),
            candidates: histogram("ams_page_view_candidates"),
            rates: histogram("ams_predicted_ctr"),
        }
    }

    /// Counts a version that was refused.
    pub(crate) fn refused(&self, model: &str) {
        let key = key("ams_versions_refused_total", &[("model", model)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Counts a delta that was refused.
    pub(crate) fn delta_refused(&self, model: &str) {
        let key = key("ams_deltas_refused_total", &[("model", model)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Counts a file of outcomes that was counted.
    pub(crate) fn outcome_part_counted(&self, model: &str) {
        self.counter("ams_outcome_parts_total", &[("model", model)]).increment(1);
    }

    /// Counts a file of outcomes that is wrong.
    pub(crate) fn outcome_part_refused(&self, model: &str) {
        self.counter("ams_outcome_parts_refused_total", &[("model", model)]).increment(1);
    }

    /// Counts a canary that got more users or became live.
    pub(crate) fn canary_raised(&self, model: &str) {
        self.counter("ams_canaries_raised_total", &[("model", model)]).increment(1);
    }

    /// Counts a canary that its promotion took back.
    pub(crate) fn canary_taken_back(&self, model: &str) {
        self.counter("ams_canaries_taken_back_total", &[("model", model)]).increment(1);
    }

    /// All registered metrics in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Moves observations into the buckets of histograms; without it they would use memory until
    /// the next scrape.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
