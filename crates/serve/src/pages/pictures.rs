//! The pictures of a demo: found by the hash of their names, which is all a model knows of them,
//! made small when somebody looks, and kept in memory as far as there is room.
//!
//! Knows a folder and names. Does not know items or models, nor HTTP.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ams_data::PictureName;
use ams_image::decode::Limits;
use ams_image::listing::files_below;
use ams_image::thumbnail::thumbnail;
use axum::body::Bytes;
use tokio::sync::Semaphore;

/// The longest side, pixels: twice as many as the page shows, for screens with small ones.
const SIDE: u32 = 256;

/// Bytes of small pictures in memory.
const ROOM: usize = 32 << 20;

/// Thumbnails that are made small at once: each may need as much memory as a picture has pixels.
const AT_ONCE: usize = 2;

/// How long the list of files holds, if a picture is not on it.
const HOLDS: Duration = Duration::from_secs(60);

/// The pictures below one folder.
#[derive(Debug)]
pub(crate) struct Thumbnails {
    folder: PathBuf,
    permits: Arc<Semaphore>,
    listed: Mutex<Option<FileIndex>>,
    cache: Mutex<ThumbnailCache>,
}

/// The files of the folder by the hashes of their names, as samples spell them: relative to the
/// folder.
#[derive(Debug)]
struct FileIndex {
    names: HashMap<PictureName, Box<str>>,
    at: Instant,
}

/// Small pictures, oldest first.
#[derive(Debug, Default)]
struct ThumbnailCache {
    by_name: HashMap<PictureName, Bytes>,
    order: VecDeque<PictureName>,
    bytes: usize,
}

impl ThumbnailCache {
    /// Keeps one more; the oldest make room.
    fn keep(&mut self, name: PictureName, jpeg: &Bytes, room: usize) {
        if jpeg.len() > room || self.by_name.contains_key(&name) {
            return;
        }
        self.bytes += jpeg.len();
        self.by_name.insert(name, jpeg.clone());
        self.order.push_back(name);
        while self.bytes > room {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.by_name.remove(&oldest).map_or(0, |jpeg| jpeg.len());
        }
    }
}

impl Thumbnails {
    /// Those below `folder`, which is listed when the first one is asked for.
    pub(crate) fn new(folder: PathBuf) -> Thumbnails {
        Thumbnails {
            folder,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            listed: Mutex::default(),
            cache: Mutex::default(),
        }
    }

    /// A picture, small, as JPEG; or why there is none.
    pub(crate) async fn small(self: &Arc<Thumbnails>, name: PictureName) -> Result<Bytes, String> {
        if let Some(jpeg) = self.cached(name) {
            return Ok(jpeg);
        }
        let gone = "the server is ending";
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| gone)?;
        let thumbnails = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            // The permit is held to the end, even if no request waits any more.
            let _permit = permit;
            thumbnails.make(name)
        });
        made.await.map_err(|_| gone)?
    }

    fn cached(&self, name: PictureName) -> Option<Bytes> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.by_name.get(&name).cloned()
    }

    /// Reads a picture and makes it small, unless another request just did.
    fn make(&self, name: PictureName) -> Result<Bytes, String> {
        if let Some(jpeg) = self.cached(name) {
            return Ok(jpeg);
        }
        let Some(file) = self.file(name)? else {
            return Err("no such file in the folder of pictures".to_owned());
        };
        // A link of the folder may lead anywhere, and what is wrong with a file says how it begins.
        if !self.is_inside(&file) {
            return Err("it is not in the folder of pictures".to_owned());
        }
        let jpeg = thumbnail(&self.folder, &file, SIDE, &Limits::default()).map_err(|failure| {
            tracing::debug!(%file, detail = %failure.detail, "no picture");
            "the file is no picture that can be read"
        })?;
        let jpeg = Bytes::from(jpeg);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.keep(name, &jpeg, ROOM);
        Ok(jpeg)
    }

    /// Whether a file of the folder is in it, wherever links lead. The folder itself may be one.
    fn is_inside(&self, file: &str) -> bool {
        let real = |path: &Path| path.canonicalize();
        let (folder, file) = (real(&self.folder), real(&self.folder.join(file)));
        folder.ok().zip(file.ok()).is_some_and(|(folder, file)| file.starts_with(folder))
    }

    /// The file of a picture. A list that lacks it is made again now and then: pictures are added
    /// every day.
    fn file(&self, name: PictureName) -> Result<Option<Box<str>>, String> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks =
            |listed: &FileIndex| !listed.names.contains_key(&name) && listed.at.elapsed() > HOLDS;
        if listed.as_ref().is_none_or(lacks) {
            // The folder's place is nothing that clients should know.
            let names = files_below(&self.folder);
            let names = names.map_err(|_| "the folder of pictures cannot be read")?;
            let names =
                names.into_iter().map(|name| (PictureName::of(&name), name.into())).collect();
            *listed = Some(FileIndex { names, at: Instant::now() });
        }
        Ok(listed.as_ref().and_then(|listed| listed.names.get(&name).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut cache = ThumbnailCache::default();
        for name in 1..=4 {
            cache.keep(PictureName(name), &Bytes::from(vec![0; 40]), 100);
            cache.keep(PictureName(name), &Bytes::from(vec![0; 40]), 100);
        }
        cache.keep(PictureName(5), &Bytes::from(vec![0; 101]), 100);
        assert_eq!((cache.bytes, &cache.order), (80, &VecDeque::from([3, 4].map(PictureName))));
    }

    #[tokio::test]
    async fn only_files_of_the_folder_are_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("secret.png"), "no picture").unwrap();
        std::fs::copy(seed("rgb.png"), folder.path().join("in/a.png")).unwrap();
        std::fs::write(folder.path().join("in/text.png"), "root:x:0:0").unwrap();
        let pictures = Arc::new(Thumbnails::new(folder.path().join("in")));
        let small = |name: &str| {
            let (pictures, name) = (Arc::clone(&pictures), PictureName::of(name));
            async move { pictures.small(name).await }
        };
        for _ in 0..2 {
            assert!(small("a.png").await.unwrap().starts_with(b"\xff\xd8"));
        }
        let said = small("text.png").await.unwrap_err();
        assert_eq!(said, "the file is no picture that can be read");
        for outside in ["../secret.png", "/etc/passwd", "in/a.png", ""] {
            assert_eq!(small(outside).await.unwrap_err(), "no such file in the folder of pictures");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_do_not_lead_out_of_the_folder() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        for name in ["in/a.png", "out.png"] {
            std::fs::copy(seed("rgb.png"), folder.path().join(name)).unwrap();
        }
        symlink("../out.png", folder.path().join("in/leads-out.png")).unwrap();
        symlink("a.png", folder.path().join("in/stays.png")).unwrap();
        symlink("in", folder.path().join("link")).unwrap();
        for root in ["in", "link"] {
            let pictures = Arc::new(Thumbnails::new(folder.path().join(root)));
            let small = |name: &str| pictures.make(PictureName::of(name));
            assert!(small("stays.png").unwrap().starts_with(b"\xff\xd8"));
            let said = small("leads-out.png").unwrap_err();
            assert!(said.contains("the folder of pictures"), "{said}");
        }
    }

    fn seed(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/picture").join(name)
    }
}
