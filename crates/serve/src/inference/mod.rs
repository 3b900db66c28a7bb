//! The Open Inference Protocol, version 2: a page view as named tensors, for clients that speak it
//! already (KServe, Triton's).
//!
//! ```text
//! inputs    user.id BYTES [1]                  candidates.item BYTES [N]       user.behaviors.item BYTES [M]
//!           user.features.<field> BYTES [1]    candidates.bid FP64 [N]         user.behaviors.time INT64 [M]
//!           context.<field> BYTES [1]          candidates.features.<field>     user.behaviors.features.<field>
//!                                                BYTES [N]                       BYTES [M]
//!           time INT64 [1], of the page view
//! outputs   ctr FP32 [N], ecpm FP64 [N]        in the order of the candidates
//! ```
//! Only `candidates.item` is required; an empty text and NaN are no value, and behaviors without an
//! item are padding. These are the usual types; any other will do whose values are what they have
//! to be ([`values`]). Shapes may have sides of 1, since some clients have batches: `[1, N]`, `[N,
//! 1]`. A column of shape `[N, K]` has K values a row.
//!
//! [`values`], what types are; [`tensors`], what tensors mean; how HTTP and
//! gRPC spell them is `protocol`'s. Here is what is answered.

pub(crate) mod tensors;
pub(crate) mod values;

use ams_bundle::by_ecpm;
use ams_bundle::{Model, PageView, Spec};
use ams_data::schema::{ITEM, USER};
use ams_data::{Field, Side};
use serde::Serialize;

use crate::problem::{Kind, Problem};

/// Name and extensions of the server in its metadata.
pub(crate) const SERVER: &str = "ams";
pub(crate) const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// Names of the output tensors, both of shape [N].
pub(crate) const CTR: &str = "ctr";
pub(crate) const ECPM: &str = "ecpm";

/// The options of a request beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InferenceOptions {
    /// Id of the request, repeated in the answer.
    pub(crate) id: Option<String>,
    /// The outputs it wants; none: all.
    pub(crate) outputs: Vec<String>,
    /// Whether the answer comes as bytes.
    pub(crate) raw: bool,
}

pub(crate) fn wrong(what: String) -> Problem {
    Problem::new(Kind::Request, format!("request: {what}"))
}

/// An answer: the outputs that are wanted, in the order of the candidates.
pub(crate) struct Inferred<'a> {
    pub model: &'a Model,
    pub wanted: &'a InferenceOptions,
    pub ctr: Option<&'a [f32]>,
    pub ecpm: Option<Vec<f64>>,
}

/// Whether there is what is wanted.
pub(crate) fn check(wanted: &InferenceOptions) -> Result<(), Problem> {
    match wanted.outputs.iter().find(|name| ![CTR, ECPM].contains(&&name[..])) {
        None => Ok(()),
        Some(unknown) => {
            Err(wrong(format!("outputs: no output {unknown:?}, there is {CTR} and {ECPM}")))
        }
    }
}

/// The requested outputs, from the rates of a page view.
pub(crate) fn inferred<'a>(
    model: &'a Model,
    page: &PageView,
    wanted: &'a InferenceOptions,
    ctr: &'a [f32],
) -> Inferred<'a> {
    let wants = |name: &str| wanted.outputs.is_empty() || wanted.outputs.iter().any(|o| o == name);
    let ecpm = wants(ECPM).then(|| {
        let mut ecpm = by_ecpm(page, ctr);
        ecpm.sort_unstable_by_key(|&(place, _)| place);
        ecpm.into_iter().map(|(_, ecpm)| ecpm).collect()
    });
    Inferred { model, wanted, ctr: wants(CTR).then_some(ctr), ecpm }
}

/// The metadata of a model, by the protocol.
#[derive(Debug, Serialize)]
pub(crate) struct Description<'a> {
    pub name: &'a str,
    pub versions: [String; 1],
    pub platform: &'static str,
    pub inputs: Vec<Described>,
    pub outputs: [Described; 2],
}

/// One of its tensors.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    pub name: String,
    pub datatype: &'static str,
    pub shape: [i64; 1],
}

/// The metadata of a model: names, types and shapes of its tensors.
pub(crate) fn describe(model: &Model) -> Description<'_> {
    let tensor = |name: String, datatype, length| Described { name, datatype, shape: [length] };
    let bytes = |name: &str, length| tensor(name.to_owned(), "BYTES", length);
    let spec = model.spec();
    let mut inputs = vec![
        bytes("candidates.item", -1),
        tensor("candidates.bid".to_owned(), "FP64", -1),
        bytes("user.id", 1),
        bytes("user.behaviors.item", -1),
        tensor("user.behaviors.time".to_owned(), "INT64", -1),
        tensor("time".to_owned(), "INT64", 1),
    ];
    for (side, prefix, own, length) in [
        (Side::User, "user.features", USER, 1),
        (Side::Behavior, "user.behaviors.features", ITEM, -1),
        (Side::Ad, "candidates.features", ITEM, -1),
        (Side::Context, "context", "", 1),
    ] {
        for field in fields(spec, side).filter(|field| field.name != own) {
            // A field of several values may come with more.
            let length = if field.multi { -1 } else { length };
            inputs.push(bytes(&format!("{prefix}.{}", field.name), length));
        }
    }
    let outputs = [tensor(CTR.to_owned(), "FP32", -1), tensor(ECPM.to_owned(), "FP64", -1)];
    let versions = [model.version().to_string()];
    Description { name: model.name(), versions, platform: SERVER, inputs, outputs }
}

fn fields(spec: &Spec, side: Side) -> impl Iterator<Item = &Field> {
    spec.fields.side(side)
}
