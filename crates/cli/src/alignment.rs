//! The report of an alignment as text.

use ams_train::align::{ALIGNED, AlignReport, Found, Traffic};

use crate::output::{bytes, count, metric, table};

/// The gate's table, and what it decided.
pub(crate) fn text(report: &AlignReport) -> String {
    let Found { images, pairs, kept, judges, clicked } = report.found;
    let of = if kept < pairs { format!(" of {}", count(pairs)) } else { String::new() };
    let mut text = format!(
        "{} pictures; {}{of} pairs; {} impressions of held-out pictures, {} clicked\n",
        count(images),
        count(kept),
        count(judges),
        count(clicked)
    );
    let rows: Vec<Vec<String>> = report
        .looks
        .iter()
        .map(|look| {
            vec![
                format!("{}{}", look.step, if look.step == report.chosen { " *" } else { "" }),
                metric(look.loss),
                metric(Some(look.auc)),
                format!("{:+.4}", look.gain),
                format!("{:.4}", look.error),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text += &table(&["step", "loss", "AUC of cosines", "gain", "error"], &rows);
    }
    let run = report.run.display();
    text += &match (report.finished, report.looks.is_empty(), report.chosen) {
        (true, _, _) if report.lack.is_some() => format!(
            "not aligned, the first components stay as they are: {}\n",
            report.lack.as_deref().unwrap_or_default()
        ),
        (false, _, _) => {
            format!("stopped after {} steps; go on with --resume: {run}\n", report.steps)
        }
        (_, true, _) => {
            format!("no picture was held out, so nothing was judged: step {} it is\n", report.steps)
        }
        (_, _, 0) => {
            "no map gains more than twice its standard error: step 0, the components as they \
                      are, is the result\n"
                .to_owned()
        }
        (_, _, step) => format!("step {step} is the result\n"),
    };
    if report.finished {
        let place = report.run.join(ALIGNED);
        text += &format!(
            "aligned {}: {} numbers a picture, in {:.1} s\n",
            place.display(),
            report.width,
            report.seconds
        );
    }
    let Traffic { asks, embeddings, pairs, gradients, all_reduce, wire } = report.per_step;
    if asks > 0.0 {
        let kinds = [
            ("asks", asks),
            ("embeddings", embeddings),
            ("pairs, to all", pairs),
            ("gradients", gradients),
            ("all_reduce", all_reduce),
            ("between processes", wire),
        ];
        let rows: Vec<Vec<String>> =
            kinds.into_iter().map(|(kind, sent)| vec![kind.to_owned(), bytes(sent)]).collect();
        text += &table(&["per step, between lanes", "bytes"], &rows);
    }
    text
}
