//! In place of buckets, where the program was built without them: connecting is an error, and
//! nothing else is ever called.

use std::convert::Infallible;
use std::ops::Range;

use ams_data::{Error, Result};
use bytes::Bytes;

use crate::address::Address;
use crate::object::{Condition, LocalFile, Object, Tag, Wanted};

/// A bucket, of which there is none.
#[derive(Debug)]
pub(crate) struct Remote(Infallible);

impl Remote {
    /// Names the cargo feature that is missing.
    pub(crate) fn connect(address: &Address, _: &[(String, String)]) -> Result<Remote> {
        Err(Error::built_without(address, "buckets"))
    }

    /// Never called, as all below.
    pub(crate) fn list(&self, _: &Address) -> Result<Vec<Object>> {
        match self.0 {}
    }

    pub(crate) fn exists(&self, _: &Address) -> Result<bool> {
        match self.0 {}
    }

    pub(crate) fn stat(&self, _: &Address) -> Result<Option<Object>> {
        match self.0 {}
    }

    pub(crate) fn tag(&self, _: &Address) -> Result<Option<Tag>> {
        match self.0 {}
    }

    pub(crate) fn read_at(&self, _: &Address) -> Result<Option<Vec<u8>>> {
        match self.0 {}
    }

    pub(crate) fn put_if(&self, _: &Address, _: String, _: Condition) -> Result<Option<Tag>> {
        match self.0 {}
    }

    pub(crate) fn versions(&self, _: &Address) -> Result<Vec<u64>> {
        match self.0 {}
    }

    pub(crate) fn read(&self, _: &Object) -> Result<Vec<u8>> {
        match self.0 {}
    }

    pub(crate) fn range(&self, _: &Object, _: Range<u64>) -> Result<Bytes> {
        match self.0 {}
    }

    pub(crate) fn get(&self, _: &[Wanted<'_>]) -> Result<Vec<bool>> {
        match self.0 {}
    }

    pub(crate) fn put(&self, _: &[&LocalFile]) -> Result<Vec<Object>> {
        match self.0 {}
    }

    pub(crate) fn delete<'k>(&self, _: impl IntoIterator<Item = &'k str>) -> Result<()> {
        match self.0 {}
    }
}
