//! Why a model cannot be asked or changed.

/// What is asked for and not there.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No model or version of that name.
    #[error("{0}")]
    Absent(String),
    /// No model or version of that name yet: they are being looked for.
    #[error("{0}; the server is not ready: its models are still being looked for")]
    Unready(String),
    /// Not in this state of the model.
    #[error("{0}")]
    State(String),
    /// The bundle, or a file beside it, is not good.
    #[error(transparent)]
    Bundle(#[from] ams_bundle::Error),
}
