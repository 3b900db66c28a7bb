//! `scheme://bucket/key`, and what is not one.

use std::fmt;
use std::path::{Path, PathBuf};

use ams_data::{Error, Result};
use percent_encoding::percent_decode_str;

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage, `gs://`.
    Gs,
    /// Azure Blob Storage; a bucket is called container there.
    Az,
}

impl Scheme {
    const ALL: [Scheme; 3] = [Scheme::S3, Scheme::Gs, Scheme::Az];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::S3 => "s3",
            Scheme::Gs => "gs",
            Scheme::Az => "az",
        }
    }
}

/// A place in a bucket: an object, or all objects below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The service that holds the bucket.
    pub scheme: Scheme,
    /// Name of the bucket or container.
    pub bucket: String,
    /// The rest, without `/` at either end.
    pub key: String,
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}://{}/{}", self.scheme.name(), self.bucket, self.key)
    }
}

impl Address {
    /// The address that `named` is; nothing, where it is a path of this host.
    ///
    /// # Errors
    /// If the scheme is not known, or bucket or key are missing or not fit for a file's name.
    pub fn parse(named: &Path) -> Result<Option<Address>> {
        let Some((scheme, rest)) = named.to_str().and_then(split) else { return Ok(None) };
        if scheme == "file" {
            return Ok(None);
        }
        let wrong = |what: &str| Error::option(format!("{}: {what}", named.display()));
        let known = Scheme::ALL.into_iter().find(|known| known.name() == scheme);
        let Some(scheme) = known else {
            return Err(wrong("expected s3://, gs://, az://, file:// or a path"));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let key = key.trim_end_matches('/');
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
        if !plain(bucket) || !key.split('/').all(plain) {
            return Err(wrong("expected SCHEME://BUCKET/NAME, with a name of plain parts"));
        }
        Ok(Some(Address { scheme, bucket: bucket.to_owned(), key: key.to_owned() }))
    }

    /// As [`Address::parse`]; also the bucket itself, with an empty key.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub(crate) fn parse_folder(named: &Path) -> Result<Option<Address>> {
        if let Some((scheme, rest)) = named.to_str().and_then(split)
            && let bucket = rest.trim_end_matches('/')
            && !bucket.is_empty()
            && !bucket.contains('/')
            && let Some(address) = Address::parse(Path::new(&format!("{scheme}://{bucket}/-")))?
        {
            return Ok(Some(Address { key: String::new(), ..address }));
        }
        Address::parse(named)
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    /// What is called `name` below this.
    pub fn join(&self, name: &str) -> Address {
        Address { key: format!("{}/{name}", self.key), ..self.clone() }
    }

    /// The name of `key` relative to this, empty for this itself; nothing where it is elsewhere.
    pub fn relative<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.key.is_empty() {
            return Some(key);
        }
        match key.strip_prefix(&self.key)? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        }
    }

    /// An error about this place.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::content(self.to_string(), what)
    }
}

/// Whether `named` is an address in a bucket, known or not.
pub fn is_remote(named: &Path) -> bool {
    named.to_str().and_then(split).is_some_and(|(scheme, _)| scheme != "file")
}

/// The path of this host that `named` is, also where it is written as `file://`.
///
/// # Errors
/// If it is no whole path.
pub fn local(named: &Path) -> Result<PathBuf> {
    match named.to_str().and_then(split) {
        Some(("file", rest)) => {
            // As other programs write it; a host would be another one's.
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            let plain = percent_decode_str(path).decode_utf8().ok();
            let plain = plain.filter(|path| path.starts_with('/') && !path.contains('\0'));
            let what =
                format!("file://{rest}: expected file:///PATH, the path from the root, in UTF-8");
            plain.map(|path| PathBuf::from(&*path)).ok_or_else(|| Error::option(what))
        }
        _ => Ok(named.to_path_buf()),
    }
}

/// Scheme and rest, if there is a scheme.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let letters = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    letters.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_are_told_apart() {
        let check = |text: &str| match Address::parse(Path::new(text)) {
            Ok(Some(address)) => address.to_string(),
            Ok(None) => format!("here: {}", local(Path::new(text)).unwrap().display()),
            Err(error) => error.to_string(),
        };
        assert_eq!(check("s3://b/a/c/"), "s3://b/a/c");
        assert_eq!(check("gs://b/a"), "gs://b/a");
        assert_eq!(check("az://b/a.json"), "az://b/a.json");
        assert_eq!(check("data/shop"), "here: data/shop");
        assert_eq!(check("file:///data/my%20shop"), "here: /data/my shop");
        assert_eq!(check("file://localhost/data/50%25?#1"), "here: /data/50%?#1");
        for text in ["file://data/shop", "file://", "file:///a%ff", "file:///a%00"] {
            let error = local(Path::new(text)).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{text}: expected file:///PATH, the path from the root, in UTF-8")
            );
        }
        let plain = "expected SCHEME://BUCKET/NAME, with a name of plain parts";
        for text in ["s3://b", "s3://b/", "s3:///a", "s3://b//a", "s3://b/a/../c"] {
            assert_eq!(check(text), format!("{text}: {plain}"));
        }
        let other = "ftp://b/a: expected s3://, gs://, az://, file:// or a path";
        assert_eq!(check("ftp://b/a"), other);
    }

    #[test]
    fn names_are_relative_to_whole_parts() {
        let address = Address::parse(Path::new("s3://b/data")).unwrap().unwrap();
        assert_eq!(address.relative("data/images/a"), Some("images/a"));
        assert_eq!(address.relative("data"), Some(""));
        assert_eq!(address.relative("data2/a"), None);
    }
}
