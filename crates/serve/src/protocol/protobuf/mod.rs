//! Protocol buffers: the messages of gRPC's calls as page views, and answers as messages.
//!
//! Those of `ams.v1.Ranking` are read and written here, those of the Open Inference Protocol in
//! [`tensors`].

pub(crate) mod messages;
pub(crate) mod tensors;

use std::collections::BTreeMap;

use ams_bundle::request::{
    Behaviors, Candidates, Cell, FeatureColumns, Features, Options, PageView, Text, User, time,
};
use ams_bundle::{Explained, Scored};
use axum::body::Bytes;
use prost::Message;

use self::messages::{decoded, ranking as proto};
use crate::answer::{Answer, Explanation, KEEP, Operation, ParsedRequest, Target};
use crate::inference::wrong;
use crate::problem::Problem;

/// The calls that operation something of a page view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcMethod {
    /// The call `ams.v1.Ranking/Score`.
    Score,
    /// The call `ams.v1.Ranking/PreRank`.
    PreRank,
    /// The call `ams.v1.Ranking/Page`.
    Page,
    /// The call `ams.v1.Ranking/Explain`.
    Explain,
    /// The call `inference.GRPCInferenceService/ModelInfer`.
    Infer,
}

/// Reads the message of a call.
///
/// # Errors
/// If it is not what the call has.
pub(crate) fn read(method: GrpcMethod, message: Bytes) -> Result<ParsedRequest, Problem> {
    let operation = match method {
        GrpcMethod::Page => {
            let proto::PageRequest { model, version, page_view, pre_rank, keep } =
                decoded(message)?;
            let operation =
                Operation::Page { pre_rank, keep: keep.map_or(KEEP, |keep| keep as usize) };
            return Ok(ParsedRequest {
                target: Target { model, version },
                operation,
                page: page(page_view)?,
            });
        }
        GrpcMethod::PreRank => Operation::PreRank,
        GrpcMethod::Explain => Operation::Explain,
        GrpcMethod::Score => Operation::Score,
        GrpcMethod::Infer => return tensors::read(message),
    };
    let proto::RankRequest { model, version, page_view } = decoded(message)?;
    Ok(ParsedRequest { target: Target { model, version }, operation, page: page(page_view)? })
}

fn page(view: Option<proto::PageView>) -> Result<PageView, Problem> {
    let proto::PageView { user, context, candidates, options, time: now } =
        view.unwrap_or_default();
    let (user, options) = (user.unwrap_or_default(), options.unwrap_or_default());
    let (past, shown) = (user.behaviors.unwrap_or_default(), candidates.unwrap_or_default());
    Ok(PageView {
        user: User {
            id: user.id.filter(|id| !id.is_empty()).map(Text),
            features: features(user.features),
            behaviors: Behaviors {
                item: texts(past.item),
                time: some(past.time).map(times).transpose()?,
                features: columns(past.features),
            },
        },
        time: match now {
            Some(seconds) => {
                time(&seconds.to_string()).map_err(|what| wrong(format!("time: {what}")))?
            }
            None => None,
        },
        context: features(context),
        candidates: Candidates {
            item: texts(shown.item),
            bid: some(shown.bid),
            features: columns(shown.features),
        },
        options: Options {
            top_k: options.top_k.map(|top_k| top_k as usize),
            deadline_ms: options.deadline_ms,
        },
    })
}

/// Times, in any unit that logs have.
fn times(times: Vec<i64>) -> Result<Vec<Option<i64>>, Problem> {
    let read = |(at, seconds): (usize, i64)| {
        time(&seconds.to_string())
            .map_err(|what| wrong(format!("user.behaviors.time[{at}]: {what}")))
    };
    times.into_iter().enumerate().map(read).collect()
}

fn texts(texts: Vec<String>) -> Vec<Text> {
    texts.into_iter().map(Text).collect()
}

/// A column that was not sent is none.
fn some<T>(column: Vec<T>) -> Option<Vec<T>> {
    (!column.is_empty()).then_some(column)
}

fn cell(cell: proto::Cell) -> Option<Cell> {
    let proto::Cell { values, none } = cell;
    (none || !values.is_empty()).then(|| Cell::of(if none { Vec::new() } else { texts(values) }))
}

fn features(features: BTreeMap<String, proto::Cell>) -> Features {
    features.into_iter().map(|(name, value)| (name, cell(value))).collect()
}

fn columns(columns: BTreeMap<String, proto::Column>) -> FeatureColumns {
    let rows = |column: proto::Column| column.rows.into_iter().map(cell).collect();
    columns.into_iter().map(|(name, column)| (name, rows(column))).collect()
}

/// Writes the message of an answer.
pub(crate) fn write(answer: &Answer<'_>) -> Vec<u8> {
    match answer {
        Answer::Ranked(scored) => ranked(scored).encode_to_vec(),
        Answer::Explained(explanation) => explained(explanation).encode_to_vec(),
        Answer::Inferred(inferred) => tensors::write(inferred),
    }
}

fn ranked(scored: &Scored<'_>) -> proto::RankResponse {
    let ams_bundle::Ranked { items, ctr, ecpm, missing } = &scored.ranked;
    let ids = missing.ids.iter().map(|(input, &count)| (input.clone(), count as u64));
    proto::RankResponse {
        model: scored.model.to_owned(),
        version: scored.version,
        items: items.iter().map(|&item| item.to_owned()).collect(),
        ctr: ctr.clone(),
        ecpm: ecpm.clone(),
        missing: Some(proto::Missing {
            users: missing.users.clone(),
            items: missing.items.clone(),
            images: missing.images.clone(),
            ids: ids.collect(),
        }),
    }
}

fn explained(explanation: &Explanation<'_>) -> proto::ExplainResponse {
    let Explained { behaviors, rows, candidates } = &explanation.explained;
    let candidates = candidates.iter().map(|candidate| proto::ExplainedCandidate {
        item: candidate.item.clone(),
        ctr: candidate.ctr,
        ctr_without_history: candidate.ctr_without_history,
        raises: candidate.raises.clone(),
        attention: candidate.attention.iter().map(attention).collect(),
    });
    proto::ExplainResponse {
        model: explanation.model.to_owned(),
        version: explanation.version,
        behaviors: behaviors.clone(),
        rows: rows.iter().map(|&row| row as u32).collect(),
        candidates: candidates.collect(),
    }
}

fn attention(attention: &ams_bundle::Attention) -> proto::Attention {
    let ams_bundle::Attention { over, queries, weights } = attention.clone();
    proto::Attention { over, queries, weights }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rows: &[(&[&str], bool)]) -> proto::Column {
        let cell = |&(values, none): &(&[&str], bool)| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            proto::Cell { values, none }
        };
        proto::Column { rows: rows.iter().map(cell).collect() }
    }

    /// The same page view in both words.
    #[test]
    fn a_message_says_what_json_says() {
        let json = br#"{"user": {"id": "u1", "features": {"tags": ["a", "b"], "age": null},
              "behaviors": {"item": ["5", "9"], "time": [200, 100], "features": {"category": [null, []]}}},
            "time": 300, "context": {"hour": "12"},
            "candidates": {"item": ["3", "4"], "bid": [1.0, 0.5], "features": {"category": ["x", null]}},
            "options": {"top_k": 10, "deadline_ms": 50}}"#;
        let named = |name: &str, column| BTreeMap::from([(name.to_owned(), column)]);
        let cells = |of: &[(&str, &[&str])]| {
            let cell = |&(name, values): &(&str, &[&str])| {
                (name.to_owned(), column(&[(values, false)]).rows.remove(0))
            };
            of.iter().map(cell).collect()
        };
        let view = proto::PageView {
            user: Some(proto::User {
                id: Some("u1".to_owned()),
                features: cells(&[("tags", &["a", "b"]), ("age", &[])]),
                behaviors: Some(proto::Behaviors {
                    item: vec!["5".to_owned(), "9".to_owned()],
                    time: vec![200, 100],
                    features: named("category", column(&[(&[], false), (&[], true)])),
                }),
            }),
            context: cells(&[("hour", &["12"])]),
            candidates: Some(proto::Candidates {
                item: vec!["3".to_owned(), "4".to_owned()],
                bid: vec![1.0, 0.5],
                features: named("category", column(&[(&["x"], false), (&[], false)])),
            }),
            options: Some(proto::Options { top_k: Some(10), deadline_ms: Some(50) }),
            time: Some(300),
        };
        let (model, version) = ("m".to_owned(), Some(3));
        let request =
            proto::RankRequest { model: model.clone(), version, page_view: Some(view.clone()) };
        let parsed = read(GrpcMethod::Explain, request.encode_to_vec().into()).unwrap();
        assert_eq!(parsed.page, PageView::parse(json).unwrap());
        assert_eq!(
            (parsed.target, parsed.operation),
            (Target { model: model.clone(), version }, Operation::Explain)
        );

        let page_view = Some(view);
        let request =
            proto::PageRequest { model, page_view, pre_rank: "p".to_owned(), ..Default::default() };
        let parsed = read(GrpcMethod::Page, request.encode_to_vec().into()).unwrap();
        assert_eq!(parsed.page, PageView::parse(json).unwrap());
        assert_eq!(parsed.operation, Operation::Page { pre_rank: "p".to_owned(), keep: 400 });
        assert_eq!(read(GrpcMethod::Score, Bytes::new()).unwrap().page, PageView::default());
        let problem = read(GrpcMethod::Score, Bytes::from_static(b"{}")).unwrap_err();
        assert!(problem.detail.starts_with("request: failed to decode"), "{}", problem.detail);
    }

    /// Whatever the bytes are, they are read as something or refused.
    #[test]
    fn bytes_that_were_changed_do_no_harm() {
        let view = proto::PageView {
            user: Some(proto::User { id: Some("u1".to_owned()), ..Default::default() }),
            candidates: Some(proto::Candidates {
                item: vec!["3".to_owned(), "4".to_owned()],
                bid: vec![1.0, 0.5],
                features: [("a".to_owned(), column(&[(&["x"], false)]))].into(),
            }),
            ..Default::default()
        };
        let request =
            proto::PageRequest { page_view: Some(view), keep: Some(3), ..Default::default() };
        let bytes = request.encode_to_vec();
        let (mut good, mut refused) = (0, 0);
        for at in 0..bytes.len() {
            for value in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = value;
                for length in [at, bytes.len()] {
                    for call in [GrpcMethod::Score, GrpcMethod::Page] {
                        match read(call, Bytes::copy_from_slice(&changed[..length])) {
                            Ok(_) => good += 1,
                            Err(problem) => {
                                assert_eq!(problem.kind, crate::problem::Kind::Request);
                                refused += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(good > 1000 && refused > 1000, "{good} {refused}");
    }
}
