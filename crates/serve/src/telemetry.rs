//! What is counted, in Prometheus' words. No global: every server has its own.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// Upper bounds of latencies, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Upper bounds of predicted click-through rates.
const RATES: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0];

/// Upper bounds of numbers of candidates.
const CANDIDATES: [f64; 9] = [1.0, 10.0, 50.0, 100.0, 200.0, 400.0, 1000.0, 4000.0, 10_000.0];

/// Where everything is counted.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Requests turned away because too much waits.
    pub sheds: Counter,
    /// Requests whose deadline passed.
    pub deadlines: Counter,
    /// Panics while scoring.
    pub panics: Counter,
    /// Jobs that wait for a compute thread.
    pub waiting: Gauge,
    /// Open connections.
    pub connections: Gauge,
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

/// What is counted of one version.
#[derive(Clone)]
pub struct VersionMetrics {
    /// Page views it scored.
    pub pages: Counter,
    /// Candidates of a page view.
    pub candidates: Histogram,
    /// Predicted click-through rates it answered with.
    pub rates: Histogram,
    /// Items that the bundle does not list.
    pub missing_items: Counter,
    /// Items whose picture has no embedding.
    pub missing_images: Counter,
}

impl std::fmt::Debug for VersionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VersionMetrics").finish_non_exhaustive()
    }
}

const METADATA: Metadata<'static> = Metadata::new("ams", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect();
    Key::from_parts(name, labels)
}

impl Telemetry {
    /// Nothing counted yet.
    pub fn new() -> Arc<Telemetry> {
        let buckets = [("_seconds", &SECONDS[..]), ("_ctr", &RATES), ("_candidates", &CANDIDATES)];
        let mut builder = PrometheusBuilder::new();
        for (suffix, bounds) in buckets {
            builder = builder
                .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
                .expect("there are bounds");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let counter = |name| recorder.register_counter(&key(name, &[]), &METADATA);
        let gauge = |name| recorder.register_gauge(&key(name, &[]), &METADATA);
        let histogram = |name| recorder.register_histogram(&key(name, &[]), &METADATA);
        Arc::new(Telemetry {
            sheds: counter("ams_sheds_total"),
            deadlines: counter("ams_deadlines_passed_total"),
            panics: counter("ams_panics_total"),
            waiting: gauge("ams_waiting_requests"),
            connections: gauge("ams_connections"),
            queue_seconds: histogram("ams_queue_seconds"),
            compute_seconds: histogram("ams_compute_seconds"),
            handle,
            recorder,
        })
    }

    /// A request was answered.
    pub fn answered(&self, route: &str, status: u16, seconds: f64) {
        let status = status.to_string();
        let labels = [("route", route), ("status", &status[..])];
        let counter = key("ams_requests_total", &labels);
        self.recorder.register_counter(&counter, &METADATA).increment(1);
        let histogram = key("ams_request_seconds", &labels[..1]);
        self.recorder.register_histogram(&histogram, &METADATA).record(seconds);
    }

    /// What is counted of a version.
    pub fn version(&self, model: &str, version: u64) -> VersionMetrics {
        let version = version.to_string();
        let labels = [("model", model), ("version", &version[..])];
        let counter = |name| self.recorder.register_counter(&key(name, &labels), &METADATA);
        let histogram = |name| self.recorder.register_histogram(&key(name, &labels), &METADATA);
        VersionMetrics {
            pages: counter("ams_page_views_total"),
            candidates: histogram("ams_page_view_candidates"),
            rates: histogram("ams_predicted_ctr"),
            missing_items: counter("ams_missing_items_total"),
            missing_images: counter("ams_missing_images_total"),
        }
    }

    /// A version is live since `since`, in unix seconds, with so many deltas.
    pub fn live(&self, model: &str, version: u64, since: u64, deltas: u64) {
        let gauge = |name| self.recorder.register_gauge(&key(name, &[("model", model)]), &METADATA);
        gauge("ams_model_version").set(version as f64);
        gauge("ams_model_live_since_timestamp").set(since as f64);
        gauge("ams_model_deltas").set(deltas as f64);
    }

    /// A version could not be loaded.
    pub fn refused(&self, model: &str) {
        let key = key("ams_versions_refused_total", &[("model", model)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// A delta could not be taken up.
    pub fn delta_refused(&self, model: &str) {
        let key = key("ams_deltas_refused_total", &[("model", model)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts what was observed into its buckets, which would pile up between visits of Prometheus otherwise.
    pub fn tidy(&self) {
        self.handle.run_upkeep();
    }
}
