//! What Prometheus reads: what was counted, and what is true now. The latter is written from the
//! state of the server when it is asked for, so that nothing is left of versions and models that
//! are gone.

use std::fmt::Write;
use std::sync::Arc;

use crate::models::{Loaded, Status};
use crate::process;
use crate::shared::Shared;

/// The kind of a metric.
#[derive(Clone, Copy)]
enum Is {
    Counter,
    Gauge,
}

/// Text in Prometheus' format, version 0.0.4.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// A metric and its samples: labels with values, and a number. No sample: nothing is written.
    fn metric<'a>(
        &mut self,
        (name, is, help): (&str, Is, &str),
        samples: impl IntoIterator<Item = (Vec<(&'a str, String)>, f64)>,
    ) {
        let mut said = false;
        for (labels, value) in samples {
            if !said {
                let kind = match is {
                    Is::Counter => "counter",
                    Is::Gauge => "gauge",
                };
                let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
                said = true;
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
        if said {
            self.0.push('\n');
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.metric((name, Is::Gauge, help), [(Vec::new(), value)]);
    }
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Everything, as Prometheus reads it.
pub fn render(shared: &Shared) -> String {
    let mut text = Text(shared.telemetry.render());
    let now = shared.models.now();
    of_models(&mut text, &now.status(), shared.models.unkept().is_some());
    of_versions(&mut text, &now.in_memory().collect::<Vec<_>>());
    let live = now.live().filter_map(|(model, live)| Some((model, live?.since as f64)));
    let help = "Deprecated, goes with the next version: ams_version_loaded_timestamp_seconds of the live version.";
    text.metric(
        ("ams_model_live_since_timestamp", Is::Gauge, help),
        live.map(|(model, since)| (labels(model, None), since)),
    );
    of_server(&mut text, shared);
    process::write(|name, counts, help, value| {
        let is = if counts { Is::Counter } else { Is::Gauge };
        text.metric((name, is, help), [(Vec::new(), value)]);
    });
    text.0
}

fn of_models(text: &mut Text, models: &[Status], unkept: bool) {
    type Value = fn(&Status) -> Option<f64>;
    let count = |flag: bool| f64::from(u8::from(flag));
    let gauges: [(&str, &str, Value); 9] = [
        ("ams_model_version", "The live version of a model.", |it| it.live.map(|v| v as f64)),
        ("ams_model_pinned", "1 where a version of a model serves whatever comes.", |it| {
            Some(f64::from(u8::from(it.pinned.is_some())))
        }),
        ("ams_model_withdrawn_versions", "Versions that do not become live by themselves.", |it| {
            Some(it.withdrawn.len() as f64)
        }),
        ("ams_model_refused_versions", "Versions on disk that are not good, now.", |it| {
            Some(it.refused.len() as f64)
        }),
        ("ams_model_arriving_versions", "Versions of which files are missing, now.", |it| {
            Some(it.arriving.len() as f64)
        }),
        ("ams_model_changed_versions", "Versions in memory whose files were changed.", |it| {
            Some(it.changed.len() as f64)
        }),
        ("ams_model_refused_deltas", "Versions followed by a delta that is not good, now.", |it| {
            Some(it.refused_deltas.len() as f64)
        }),
        ("ams_model_unreadable", "1 where a model's folder cannot be looked through.", |it| {
            Some(f64::from(u8::from(it.unreadable.is_some())))
        }),
        ("ams_model_deltas", "Deltas in the live version.", |it| {
            it.live.and_then(|live| it.deltas.get(&live)).map(|deltas| *deltas as f64)
        }),
    ];
    for (name, help, value) in gauges {
        let samples = models.iter().filter_map(|it| Some((labels(&it.model, None), value(it)?)));
        text.metric((name, Is::Gauge, help), samples);
    }
    let canaries = models.iter().filter_map(|it| {
        let (version, percent) = it.canary?;
        Some((labels(&it.model, Some(version)), f64::from(percent)))
    });
    let help = "Of 100 users, how many get a version that is not live.";
    text.metric(("ams_model_canary_percent", Is::Gauge, help), canaries);
    let help = "1 where decisions of operators count in this server alone, because they cannot be written.";
    text.gauge("ams_decisions_unkept", help, count(unkept));
}

fn of_versions(text: &mut Text, loaded: &[(&str, &Arc<Loaded>)]) {
    type Value = fn(&Loaded) -> f64;
    let metrics: [(&str, Is, &str, Value); 5] = [
        ("ams_page_views_total", Is::Counter, "Page views a version scored.", |it| {
            it.metrics.counts.pages.get() as f64
        }),
        (
            "ams_missing_items_total",
            Is::Counter,
            "Candidates that a version does not list.",
            |it| it.metrics.counts.missing_items.get() as f64,
        ),
        (
            "ams_missing_images_total",
            Is::Counter,
            "Candidates whose picture has no embedding in a version.",
            |it| it.metrics.counts.missing_images.get() as f64,
        ),
        (
            "ams_version_loaded_timestamp_seconds",
            Is::Gauge,
            "When a version was ready in memory, in unix seconds.",
            |it| it.since as f64,
        ),
        ("ams_version_bytes", Is::Gauge, "Bytes of a version's files.", |it| it.bytes as f64),
    ];
    for (name, is, help, value) in metrics {
        let samples = loaded
            .iter()
            .map(|(model, loaded)| (labels(model, Some(loaded.model.version())), value(loaded)));
        text.metric((name, is, help), samples);
    }
}

fn of_server(text: &mut Text, shared: &Shared) {
    let limits = &shared.limits;
    let ready = f64::from(u8::from(shared.ready()));
    for (name, help, value) in [
        ("ams_ready", "1 where requests should be sent here.", ready),
        ("ams_limit_body_bytes", "Most bytes of a request's body.", limits.body_bytes as f64),
        ("ams_limit_candidates", "Most candidates of a page view.", limits.candidates as f64),
        (
            "ams_limit_waiting_requests",
            "Most requests that wait for a thread.",
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
    text.metric(("ams_build_info", Is::Gauge, "1; the version of the program."), [(version, 1.0)]);
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
        let mut text = Text::default();
        let samples = [
            (vec![("model", "a \"b\"\n\\".to_owned()), ("version", "1".to_owned())], 0.5),
            (Vec::new(), 3.0),
        ];
        text.metric(("x_total", Is::Counter, "What x is."), samples);
        text.metric(("y", Is::Gauge, "Nothing of it."), []);
        let expected = "# HELP x_total What x is.\n# TYPE x_total counter\n\
                        x_total{model=\"a \\\"b\\\"\\n\\\\\",version=\"1\"} 0.5\nx_total 3\n\n";
        assert_eq!(text.0, expected);
    }
}
