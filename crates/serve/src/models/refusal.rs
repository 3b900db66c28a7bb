//! Errors of requests for models and of orders.

/// Why a version cannot answer, or an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No model or version has that name.
    #[error("{0}")]
    Absent(String),
    /// No model or version has that name yet, as the first poll has not ended.
    #[error("{0}; the server is not ready, as it still loads its models")]
    Unready(String),
    /// The present state of the model does not allow it.
    #[error("{0}")]
    State(String),
    /// The bundle, or a file beside it, is invalid.
    #[error(transparent)]
    Bundle(#[from] ams_bundle::Error),
}
