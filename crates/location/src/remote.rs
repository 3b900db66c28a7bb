//! Objects of one bucket, with calls that wait.
//!
//! Knows `object_store`. Does not know what objects belong together.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ams_data::staging::StagedFile;
use ams_data::{Error, Result};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, GetOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, RetryConfig, UpdateVersion,
};
use tokio::runtime::Runtime;

use crate::address::{Address, Scheme};
use crate::object::{Condition, LocalFile, Object, Tag, Wanted};

/// Transfers at the same time.
const CONCURRENT: usize = 8;

/// Objects longer than this are uploaded in parts of this length, bytes.
const PART: usize = 16 << 20;

/// A connection to a bucket, or to a folder of one.
#[derive(Debug)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    address: Address,
    runtime: Runtime,
}

impl Remote {
    /// The bucket of `address`, with the credentials in `environment`. Nothing is asked of a server
    /// yet.
    pub(crate) fn connect(address: &Address, environment: &[(String, String)]) -> Result<Remote> {
        let retry = RetryConfig {
            max_retries: 4,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(300));
        let bucket = format!("{}://{}", address.scheme.name(), address.bucket);
        // What is no setting of a builder, such as AWS_PROFILE, is not ours to judge.
        macro_rules! build {
            ($builder:ty, $prefix:literal) => {{
                let own = environment.iter().filter(|(name, _)| name.starts_with($prefix));
                // Client options first: the environment may change them, such as AWS_ALLOW_HTTP.
                let builder = <$builder>::new()
                    .with_url(&bucket)
                    .with_retry(retry)
                    .with_client_options(client);
                let builder = own.fold(builder, |builder, (name, value)| {
                    match name.to_ascii_lowercase().parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    }
                });
                builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }};
        }
        let store = match address.scheme {
            Scheme::S3 => build!(AmazonS3Builder, "AWS_"),
            Scheme::Gs => build!(GoogleCloudStorageBuilder, "GOOGLE_"),
            Scheme::Az => build!(MicrosoftAzureBuilder, "AZURE_"),
        };
        let store = store.map_err(|error| address.error(told(&error)))?;
        Remote::of(store, address)
    }

    pub(crate) fn of(store: Arc<dyn ObjectStore>, address: &Address) -> Result<Remote> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| address.error(error.to_string()))?;
        Ok(Remote { store, address: address.clone(), runtime })
    }

    /// What there is at `address`: one object, or all below it; by key. Objects that stand for
    /// folders are left out ([`without_markers`]).
    pub(crate) fn list(&self, address: &Address) -> Result<Vec<Object>> {
        let key = self.key(&address.key)?;
        let listed = self.runtime.block_on(async {
            let below = self.store.list(Some(&key)).try_collect::<Vec<_>>().await?;
            // A prefix means a folder; an object of just this name is asked for.
            if below.is_empty() && !address.key.is_empty() {
                match self.store.head(&key).await {
                    Ok(object) => Ok(vec![object]),
                    Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
                    Err(error) => Err(error),
                }
            } else {
                Ok(below)
            }
        });
        let listed = listed.map_err(|error| self.error(address, &error))?;
        let mut objects = Vec::with_capacity(listed.len());
        for object in listed {
            let tag = object.e_tag.unwrap_or_else(|| object.last_modified.to_rfc3339());
            objects.push(Object { key: object.location.to_string(), bytes: object.size, tag });
        }
        objects.sort();
        Ok(without_markers(objects, &address.key))
    }

    /// Whether there is an object at `address`.
    pub(crate) fn exists(&self, address: &Address) -> Result<bool> {
        self.head(address).map(|found| found.is_some())
    }

    /// The object at `address`, if there is one.
    pub(crate) fn stat(&self, address: &Address) -> Result<Option<Object>> {
        let found = self.head(address)?;
        Ok(found.map(|object| {
            let tag = object.e_tag.unwrap_or_else(|| object.last_modified.to_rfc3339());
            Object { key: object.location.to_string(), bytes: object.size, tag }
        }))
    }

    /// Which content the object at `address` has, if there is one.
    pub(crate) fn tag(&self, address: &Address) -> Result<Option<Tag>> {
        let found = self.head(address)?;
        Ok(found.map(|ObjectMeta { e_tag, version, .. }| Tag { e_tag, version }))
    }

    fn head(&self, address: &Address) -> Result<Option<ObjectMeta>> {
        let key = self.key(&address.key)?;
        match self.runtime.block_on(self.store.head(&key)) {
            Ok(object) => Ok(Some(object)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(address, &error)),
        }
    }

    /// The content of a small object, if it is there.
    pub(crate) fn read_at(&self, address: &Address) -> Result<Option<Vec<u8>>> {
        let key = self.key(&address.key)?;
        let read = async { self.store.get(&key).await?.bytes().await };
        match self.runtime.block_on(read) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(address, &error)),
        }
    }

    /// Writes a small object if `condition` holds; none if it does not. A service that knows no
    /// conditions writes nothing.
    pub(crate) fn put_if(
        &self,
        address: &Address,
        text: String,
        condition: Condition,
    ) -> Result<Option<Tag>> {
        let key = self.key(&address.key)?;
        let unchanged = match condition {
            Condition::IsAbsent => None,
            Condition::Is(tag) => Some(tag),
        };
        let mode = match unchanged.clone() {
            None => PutMode::Create,
            Some(Tag { e_tag, version }) => PutMode::Update(UpdateVersion { e_tag, version }),
        };
        let put = self.store.put_opts(&key, PutPayload::from(text), mode.into());
        match self.runtime.block_on(put) {
            Ok(put) => Ok(Some(Tag { e_tag: put.e_tag, version: put.version })),
            Err(
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. }
                | object_store::Error::NotFound { .. },
            ) => Ok(None),
            Err(object_store::Error::NotImplemented { .. }) => {
                Ok(Some(unchanged.unwrap_or(Tag { e_tag: None, version: None })))
            }
            Err(error) => Err(self.error(address, &error)),
        }
    }

    /// The folders directly below `address` whose name is a whole number, ascending.
    pub(crate) fn versions(&self, address: &Address) -> Result<Vec<u64>> {
        let key = self.key(&address.key)?;
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&key)));
        let listed = listed.map_err(|error| self.error(address, &error))?;
        let names = listed.common_prefixes.iter().filter_map(|folder| {
            let name = folder.filename()?;
            name.parse().ok().filter(|version: &u64| version.to_string() == name)
        });
        let mut versions: Vec<u64> = names.collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// The content of a small object.
    pub(crate) fn read(&self, object: &Object) -> Result<Vec<u8>> {
        let about = Address { key: object.key.clone(), ..self.address.clone() };
        let key = self.key(&object.key)?;
        let read = async { self.store.get(&key).await?.bytes().await };
        let read = self.runtime.block_on(read).map_err(|error| self.error(&about, &error))?;
        Ok(read.to_vec())
    }

    /// Some bytes of an object, which has to be what was listed.
    pub(crate) fn range(&self, object: &Object, range: Range<u64>) -> Result<Bytes> {
        let about = Address { key: object.key.clone(), ..self.address.clone() };
        let key = self.key(&object.key)?;
        let options = GetOptions { range: Some(range.into()), ..as_listed(object) };
        let read = async { self.store.get_opts(&key, options).await?.bytes().await };
        self.runtime.block_on(read).map_err(|error| self.changed(&about, &error))
    }

    fn changed(&self, about: &Address, error: &object_store::Error) -> Error {
        match error {
            object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. } => {
                about.error("changed or went away while it was read; start again")
            }
            error => self.error(about, error),
        }
    }

    /// Fetches objects to files, each whole or not at all; which of them there were: one without
    /// bytes may have stood for a folder with nothing below it.
    pub(crate) fn get(&self, wanted: &[Wanted<'_>]) -> Result<Vec<bool>> {
        self.runtime.block_on(async {
            let one = |one: &Wanted<'_>| self.get_one(one.object.clone(), one.to.clone());
            let each = futures_util::stream::iter(wanted.iter().map(one));
            each.buffered(CONCURRENT).try_collect::<Vec<bool>>().await
        })
    }

    async fn get_one(&self, object: Object, to: std::path::PathBuf) -> Result<bool> {
        let about = Address { key: object.key.clone(), ..self.address.clone() };
        let failed = |error: object_store::Error| self.error(&about, &error);
        let got = match self.store.get(&self.key(&object.key)?).await {
            // A key that ends in `/` is listed without it.
            Err(object_store::Error::NotFound { .. }) if object.bytes == 0 => return Ok(false),
            got => got.map_err(failed)?,
        };
        let mut file = StagedFile::create(&to)?;
        let mut bytes = 0;
        let mut stream = got.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(failed)?;
            bytes += piece.len() as u64;
            file.write_all(&piece).map_err(Error::io(&to))?;
        }
        if bytes != object.bytes {
            let what = format!("received {bytes} bytes, expected {}", object.bytes);
            return Err(about.error(what));
        }
        file.commit().map(|()| true)
    }

    /// Uploads files as objects; what they are then, in the same order.
    pub(crate) fn put(&self, files: &[&LocalFile]) -> Result<Vec<Object>> {
        self.runtime.block_on(async {
            let one = |file: &&LocalFile| self.put_one(file.path.clone(), file.key.clone());
            let each = futures_util::stream::iter(files.iter().map(one));
            each.buffered(CONCURRENT).try_collect().await
        })
    }

    async fn put_one(&self, from: std::path::PathBuf, key: String) -> Result<Object> {
        let about = Address { key: key.clone(), ..self.address.clone() };
        let failed = |error: object_store::Error| self.error(&about, &error);
        let to = self.key(&key)?;
        let mut file = File::open(&from).map_err(Error::io(&from))?;
        let bytes = file.metadata().map_err(Error::io(&from))?.len();
        let mut piece = |limit: usize| {
            let mut piece = Vec::new();
            let read = (&mut file).take(limit as u64).read_to_end(&mut piece);
            read.map(|_| piece).map_err(Error::io(&from))
        };
        let put = if bytes <= PART as u64 {
            self.store.put(&to, PutPayload::from(piece(PART)?)).await.map_err(failed)?
        } else {
            let mut upload = self.store.put_multipart(&to).await.map_err(failed)?;
            let sent = async {
                let mut left = bytes;
                while left > 0 {
                    let piece = piece(PART)?;
                    if piece.is_empty() {
                        let what = format!(
                            "became shorter while it was uploaded: {left} bytes are missing"
                        );
                        return Err(Error::content(&from, what));
                    }
                    left = left.saturating_sub(piece.len() as u64);
                    upload.put_part(PutPayload::from(piece)).await.map_err(failed)?;
                }
                upload.complete().await.map_err(failed)
            };
            match sent.await {
                Ok(put) => put,
                Err(error) => {
                    // Its parts would cost money unseen. If the server is gone, they stay.
                    let _ = upload.abort().await;
                    return Err(error);
                }
            }
        };
        let tag = match put.e_tag {
            Some(tag) => tag,
            None => {
                let head = self.store.head(&to).await.map_err(failed)?;
                head.e_tag.unwrap_or_else(|| head.last_modified.to_rfc3339())
            }
        };
        Ok(Object { key, bytes, tag })
    }

    /// Removes objects; what is gone already is no error.
    pub(crate) fn delete<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Result<()> {
        for key in keys {
            match self.runtime.block_on(self.store.delete(&self.key(key)?)) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    let about = Address { key: key.to_owned(), ..self.address.clone() };
                    return Err(self.error(&about, &error));
                }
            }
        }
        Ok(())
    }

    fn key(&self, key: &str) -> Result<Key> {
        Key::parse(key).map_err(|error| self.address.error(error.to_string()))
    }

    fn error(&self, address: &Address, error: &object_store::Error) -> Error {
        let variables = match address.scheme {
            Scheme::S3 => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_REGION, AWS_ENDPOINT_URL)"
            }
            Scheme::Gs => "GOOGLE_APPLICATION_CREDENTIALS",
            Scheme::Az => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        };
        address.error(format!(
            "{}\nis the bucket right, and are the credentials in the environment? {variables}",
            told(error)
        ))
    }
}

/// Asks for an object as it was listed, where its tag is one that servers compare.
fn as_listed(object: &Object) -> GetOptions {
    // A time in place of a tag compares with nothing.
    let is_time = object.tag.contains('T') && object.tag.contains(':');
    GetOptions { if_match: (!is_time).then(|| object.tag.clone()), ..GetOptions::default() }
}

/// Leaves out objects that stand for folders, as consoles, Hadoop and file systems on buckets make
/// them: `folder/` (which is listed as `folder`) and `folder_$folder$`, without bytes. `objects`
/// are sorted, and are all below `prefix`.
fn without_markers(mut objects: Vec<Object>, prefix: &str) -> Vec<Object> {
    let keys = objects.iter().map(|object| object.key.clone()).collect::<Vec<String>>();
    let is_folder = |key: &str| {
        let folder = format!("{key}/");
        let first = keys.partition_point(|other| *other < folder);
        keys.get(first).is_some_and(|other| other.starts_with(&folder))
    };
    // One object alone was asked for by its name.
    let several = objects.len() > 1;
    objects.retain(|object| {
        let marks = object.key.ends_with("_$folder$")
            || is_folder(&object.key)
            || several && object.key == prefix;
        object.bytes > 0 || !marks
    });
    objects
}

/// An error with what caused it, each once.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}
