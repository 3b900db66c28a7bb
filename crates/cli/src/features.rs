//! What this program was built with: its cargo features.

use std::sync::LazyLock;

/// Every feature, and whether it is in this program.
const ALL: [(&str, bool); 7] = [
    ("buckets", cfg!(feature = "buckets")),
    ("grpc", cfg!(feature = "grpc")),
    ("mpi", cfg!(feature = "mpi")),
    ("onnx", cfg!(feature = "onnx")),
    ("otel", cfg!(feature = "otel")),
    ("tiff", cfg!(feature = "tiff")),
    ("tls", cfg!(feature = "tls")),
];

fn named(there: bool) -> Vec<&'static str> {
    ALL.into_iter().filter(|(_, has)| *has == there).map(|(name, _)| name).collect()
}

/// The features it has.
pub(crate) fn with() -> Vec<&'static str> {
    named(true)
}

/// What `--version` says beside the program's name.
pub(crate) fn long_version() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("{}\n{}", env!("CARGO_PKG_VERSION"), lines()));
    &TEXT
}

/// The features it has and those it has not.
pub(crate) fn lines() -> String {
    let list =
        |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!("built with:    {}\nbuilt without: {}", list(with()), list(named(false)))
}
