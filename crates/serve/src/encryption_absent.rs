//! In place of encryption, where the program was built without it: asking for it is an error.

use std::convert::Infallible;
use std::path::Path;

use ams_data::Error;

use crate::reload::Reload;
use crate::settings::Tls;

/// Encryption, of which there is none.
#[derive(Clone, Debug)]
pub(crate) struct Encryption(Infallible);

impl Encryption {
    /// Names the cargo feature that is missing.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn read(files: &Tls) -> Result<Encryption, String> {
        let what = format!("--tls-certificate {}", files.certificate.display());
        Err(Error::built_without(what, "tls").to_string())
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub(crate) async fn accept<S>(&self, _: S) -> std::io::Result<S> {
        match self.0 {}
    }
}

impl Reload for Encryption {
    fn files(&self) -> Vec<&Path> {
        match self.0 {}
    }

    fn reload(&self) -> Result<(), String> {
        match self.0 {}
    }
}
