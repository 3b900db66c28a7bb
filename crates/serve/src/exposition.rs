//! The page of metrics for Prometheus: registered metrics, and those of the present state. The
//! latter are written from the state at every scrape, so removed versions and models have none.

use std::fmt::Write;
use std::sync::Arc;

use ams_daily::{Comparison, Day, Decision, Delay, Outcome, RowsRead, Window};

use crate::models::{LoadedVersion, Snapshot, Status};
use crate::process;
use crate::promotion::PromotionStatus;
use crate::state::ServerState;

/// The type of a metric.
#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
}

/// A metric without its samples.
#[derive(Clone, Copy)]
struct Metric<'a> {
    name: &'a str,
    kind: MetricKind,
    help: &'a str,
}

/// Text in Prometheus' format, version 0.0.4.
#[derive(Debug, Default)]
struct Exposition(String);

impl Exposition {
    /// Writes `metric` and its samples, labels with a value each; without samples nothing.
    fn metric<'a>(
        &mut self,
        Metric { name, kind, help }: Metric<'_>,
        samples: impl IntoIterator<Item = (Vec<(&'a str, String)>, f64)>,
    ) {
        let mut has_header = false;
        for (labels, value) in samples {
            if !has_header {
                let kind = match kind {
                    MetricKind::Counter => "counter",
                    MetricKind::Gauge => "gauge",
                };
                let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
                has_header = true;
            }
            self.0.push_str(name);
            for (at, (label, value)) in labels.iter().enumerate() {
                let before = if at == 0 { '{' } else { ',' };
                let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(value));
            }
            if !labels.is_empty() {
                self.0.push('}');
            }
            let _ = writeln!(self.0, " {value}");
        }
        if has_header {
            self.0.push('\n');
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.metric(Metric { name, kind: MetricKind::Gauge, help }, [(Vec::new(), value)]);
    }
}

/// The value of a label with the escapes of the format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The whole page of metrics.
pub(crate) fn render(server: &ServerState) -> String {
    let mut text = Exposition(server.telemetry.render());
    let now = server.models.now();
    let status = server.models.status();
    of_models(&mut text, &status, server.models.unkept().is_some());
    of_promotions(&mut text, &status);
    of_versions(&mut text, &now.in_memory().collect::<Vec<_>>());
    of_days(&mut text, &now);
    of_logs(&mut text, &now);
    let live = now.live().filter_map(|(model, live)| Some((model, live?.since as f64)));
    let help = "Deprecated, goes with the next version: ams_version_loaded_timestamp_seconds of the live version.";
    text.metric(
        Metric { name: "ams_model_live_since_timestamp", kind: MetricKind::Gauge, help },
        live.map(|(model, since)| (labels(model, None), since)),
    );
    of_server(&mut text, server);
    process::write(|name, counts, help, value| {
        let kind = if counts { MetricKind::Counter } else { MetricKind::Gauge };
        text.metric(Metric { name, kind, help }, [(Vec::new(), value)]);
    });
    text.0
}

fn of_models(text: &mut Exposition, models: &[Status], unkept: bool) {
    type Value = fn(&Status) -> Option<f64>;
    let count = |flag: bool| f64::from(u8::from(flag));
    let gauges: [(&str, &str, Value); 9] = [
        ("ams_model_version", "The live version of a model.", |it| it.live.map(|v| v as f64)),
        ("ams_model_pinned", "1 where a version of a model is pinned.", |it| {
            Some(f64::from(u8::from(it.pinned.is_some())))
        }),
        ("ams_model_withdrawn_versions", "Versions that do not become live by themselves.", |it| {
            Some(it.withdrawn.len() as f64)
        }),
        ("ams_model_refused_versions", "Versions on disk that are refused.", |it| {
            Some(it.refused.len() as f64)
        }),
        ("ams_model_arriving_versions", "Versions on disk of which files are missing.", |it| {
            Some(it.arriving.len() as f64)
        }),
        ("ams_model_changed_versions", "Versions in memory whose files were changed.", |it| {
            Some(it.changed.len() as f64)
        }),
        ("ams_model_refused_deltas", "Versions followed by a delta that is refused.", |it| {
            Some(it.refused_deltas.len() as f64)
        }),
        ("ams_model_unreadable", "1 where the folder of a model cannot be read.", |it| {
            Some(f64::from(u8::from(it.unreadable.is_some())))
        }),
        ("ams_model_deltas", "Deltas in the live version.", |it| {
            it.live.and_then(|live| it.deltas.get(&live)).map(|deltas| *deltas as f64)
        }),
    ];
    for (name, help, value) in gauges {
        let samples = models.iter().filter_map(|it| Some((labels(&it.model, None), value(it)?)));
        text.metric(Metric { name, kind: MetricKind::Gauge, help }, samples);
    }
    let canaries = models.iter().filter_map(|it| {
        let (version, percent) = it.canary?;
        Some((labels(&it.model, Some(version)), f64::from(percent)))
    });
    let help = "Percentage of users that a canary answers.";
    text.metric(
        Metric { name: "ams_model_canary_percent", kind: MetricKind::Gauge, help },
        canaries,
    );
    let help =
        "1 where decisions of operators hold in this server only, because they cannot be written.";
    text.gauge("ams_decisions_unkept", help, count(unkept));
}

fn of_versions(text: &mut Exposition, loaded: &[(&str, &Arc<LoadedVersion>)]) {
    type Value = fn(&LoadedVersion) -> f64;
    let metrics: [(&str, MetricKind, &str, Value); 10] = [
        ("ams_page_views_total", MetricKind::Counter, "Page views a version scored.", |it| {
            it.metrics.counts.pages.get() as f64
        }),
        (
            "ams_missing_items_total",
            MetricKind::Counter,
            "Candidates and behaviors that a version does not list.",
            |it| it.metrics.counts.missing_items.get() as f64,
        ),
        (
            "ams_missing_images_total",
            MetricKind::Counter,
            "Candidates whose picture has no embedding in a version.",
            |it| it.metrics.counts.missing_images.get() as f64,
        ),
        (
            "ams_version_requests_total",
            MetricKind::Counter,
            "Page views that a version was to answer.",
            |it| it.metrics.counts.requests.get() as f64,
        ),
        (
            "ams_version_failures_total",
            MetricKind::Counter,
            "Those that failed, and not by the client's fault.",
            |it| it.metrics.counts.failures.get() as f64,
        ),
        (
            "ams_outcomes_total",
            MetricKind::Counter,
            "Impressions of a version whose outcome is known.",
            |it| it.metrics.counts.outcomes.get() as f64,
        ),
        ("ams_outcome_clicks_total", MetricKind::Counter, "Clicks among them.", |it| {
            it.metrics.counts.clicks.get() as f64
        }),
        (
            "ams_outcome_predicted_clicks_total",
            MetricKind::Counter,
            "Clicks that the version predicted for them.",
            |it| it.metrics.counts.counted().predicted_clicks(),
        ),
        (
            "ams_version_loaded_timestamp_seconds",
            MetricKind::Gauge,
            "When a version was ready in memory, in unix seconds.",
            |it| it.since as f64,
        ),
        ("ams_version_bytes", MetricKind::Gauge, "Bytes of a version's files.", |it| {
            it.bytes as f64
        }),
    ];
    for (name, kind, help, value) in metrics {
        let samples = loaded
            .iter()
            .map(|(model, loaded)| (labels(model, Some(loaded.model.version())), value(loaded)));
        text.metric(Metric { name, kind, help }, samples);
    }
}

/// Of canaries that get more users by themselves.
fn of_promotions(text: &mut Exposition, models: &[Status]) {
    type Value = fn(&PromotionStatus) -> Option<f64>;
    let gauges: [(&str, &str, Value); 4] = [
        (
            "ams_canary_impressions",
            "Impressions of a canary whose outcome is known, in this step.",
            |it| Some(it.canary.impressions as f64),
        ),
        (
            "ams_canary_calibration",
            "Predicted clicks over clicks of a canary in this step.",
            |it| it.calibration,
        ),
        ("ams_canary_calibration_low", "The lower end of the interval of the calibration.", |it| {
            it.interval?[0]
        }),
        (
            "ams_canary_calibration_high",
            "The upper end of the interval of the calibration.",
            |it| it.interval?[1],
        ),
    ];
    for (name, help, value) in gauges {
        let samples = models.iter().filter_map(|it| {
            let of = it.promotion.as_ref()?;
            Some((labels(&it.model, Some(of.version)), value(of)?))
        });
        text.metric(Metric { name, kind: MetricKind::Gauge, help }, samples);
    }
}

/// Of models that are made day by day.
fn of_days(text: &mut Exposition, now: &Snapshot) {
    type Value = fn(&Decision, Day) -> Option<f64>;
    fn gauc(decision: &Decision) -> Option<&Comparison> {
        decision.comparison("GAUC")
    }
    let gauges: [(&str, &str, Value); 5] = [
        (
            "ams_version_day_timestamp_seconds",
            "When the day of a version's data begins, in unix seconds.",
            |decision, _| Some(decision.day.begin() as f64),
        ),
        (
            "ams_version_days_behind",
            "Days from the day of a version's data to the newest day of the model.",
            |decision, newest| Some(newest.since(decision.day) as f64),
        ),
        (
            "ams_version_gate_gauc_gain",
            "GAUC of a version less that of the version it was held against.",
            |decision, _| gauc(decision)?.gain,
        ),
        (
            "ams_version_gate_gauc_gain_low",
            "The lower end of the interval of that gain.",
            |decision, _| Some(gauc(decision)?.interval?[0]),
        ),
        (
            "ams_version_gate_gauc_gain_high",
            "The upper end of the interval of that gain.",
            |decision, _| Some(gauc(decision)?.interval?[1]),
        ),
    ];
    for (name, help, value) in gauges {
        let samples = now.in_memory().filter_map(|(model, loaded)| {
            let decision = loaded.decision.as_ref()?;
            let value = value(decision, now.newest_day(model)?)?;
            Some((labels(model, Some(loaded.model.version())), value))
        });
        text.metric(Metric { name, kind: MetricKind::Gauge, help }, samples);
    }
    let refused = now.live().filter_map(|(model, _)| {
        let newest = now.days(model)?.days.last()?;
        let is_refused = newest.outcome == Outcome::Refused;
        Some((labels(model, None), f64::from(u8::from(is_refused))))
    });
    let help = "1 where the newest day of a model was refused.";
    text.metric(Metric { name: "ams_model_day_refused", kind: MetricKind::Gauge, help }, refused);
}

/// Of models that follow a log.
fn of_logs(text: &mut Exposition, now: &Snapshot) {
    type Value = fn(&Window) -> Option<f64>;
    type Delays = fn(&Window) -> Option<Delay>;
    let windows = || {
        now.in_memory().filter_map(|(model, loaded)| {
            let version = loaded.model.version();
            Some((model, version, now.followed(model)?.of(version)?))
        })
    };
    let delays: [(&str, &str, Delays); 2] = [
        (
            "ams_version_event_to_score_seconds",
            "From the time of an event to the publication of the version that learned from it.",
            |window| window.event_to_score,
        ),
        (
            "ams_version_landed_to_score_seconds",
            "From the landing of an event's part to the publication of the version.",
            |window| window.landed_to_score,
        ),
    ];
    for (name, help, value) in delays {
        let samples = windows().flat_map(|(model, version, window)| {
            let of = |(quantile, value): (&str, f64)| {
                let mut labels = labels(model, Some(version));
                labels.push(("quantile", quantile.to_owned()));
                (labels, value)
            };
            let delay =
                value(window).map(|delay| [("0.5", delay.p50), ("0.95", delay.p95)].map(of));
            delay.into_iter().flatten()
        });
        text.metric(Metric { name, kind: MetricKind::Gauge, help }, samples);
    }
    let values: [(&str, &str, Value); 3] = [
        (
            "ams_version_data_until_timestamp_seconds",
            "The instant until which a version learned from its log, in unix seconds.",
            |window| Some(window.until as f64),
        ),
        ("ams_version_window_impressions", "Impressions of the window of a version.", |window| {
            Some(window.impressions as f64)
        }),
        (
            "ams_version_window_loss",
            "Mean loss of the impressions of the window when they came.",
            |window| window.loss,
        ),
    ];
    for (name, help, value) in values {
        let samples = windows().filter_map(|(model, version, window)| {
            Some((labels(model, Some(version)), value(window)?))
        });
        text.metric(Metric { name, kind: MetricKind::Gauge, help }, samples);
    }
    let rows = now.live().filter_map(|(model, _)| Some((model, now.followed(model)?.rows)));
    let rows = rows.flat_map(|(model, rows)| {
        let of = |(became, count): (&str, u64)| {
            let mut labels = labels(model, None);
            labels.push(("became", became.to_owned()));
            (labels, count as f64)
        };
        let RowsRead { read, published, late, left_out } = rows;
        let waiting = read.saturating_sub(published + late + left_out);
        [("published", published), ("waiting", waiting), ("late", late), ("left_out", left_out)]
            .map(of)
    });
    let help = "Rows of the log that a model follows, by what became of them.";
    text.metric(Metric { name: "ams_follow_rows", kind: MetricKind::Gauge, help }, rows);
}

fn of_server(text: &mut Exposition, server: &ServerState) {
    let limits = &server.limits;
    let ready = f64::from(u8::from(server.ready()));
    for (name, help, value) in [
        ("ams_ready", "1 where the server is ready for requests.", ready),
        ("ams_limit_body_bytes", "Most bytes of a request's body.", limits.body_bytes as f64),
        ("ams_limit_candidates", "Most candidates of a page view.", limits.candidates as f64),
        (
            "ams_limit_waiting_requests",
            "Most requests that may wait for a thread.",
            limits.queue as f64,
        ),
        ("ams_limit_connections", "Most open connections.", limits.connections as f64),
        (
            "ams_limit_deadline_seconds",
            "Most seconds an answer takes.",
            limits.deadline.as_secs_f64(),
        ),
    ] {
        text.gauge(name, help, value);
    }
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let help = "1; the label has the version of the program.";
    let metric = Metric { name: "ams_build_info", kind: MetricKind::Gauge, help };
    text.metric(metric, [(version, 1.0)]);
}

fn labels(model: &str, version: Option<u64>) -> Vec<(&'static str, String)> {
    let version = version.map(|version| ("version", version.to_string()));
    std::iter::once(("model", model.to_owned())).chain(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut text = Exposition::default();
        let samples = [
            (vec![("model", "a \"b\"\n\\".to_owned()), ("version", "1".to_owned())], 0.5),
            (Vec::new(), 3.0),
        ];
        let counter = Metric { name: "x_total", kind: MetricKind::Counter, help: "What x is." };
        text.metric(counter, samples);
        let gauge = Metric { name: "y", kind: MetricKind::Gauge, help: "Nothing of it." };
        text.metric(gauge, []);
        let expected = "# HELP x_total What x is.\n# TYPE x_total counter\n\
                        x_total{model=\"a \\\"b\\\"\\n\\\\\",version=\"1\"} 0.5\nx_total 3\n\n";
        assert_eq!(text.0, expected);
    }
}
