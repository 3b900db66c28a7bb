//! Small pictures of items, as addresses that hold the picture itself.

use std::path::PathBuf;

use ams_image::Limits;
use ams_image::thumbnail::thumbnail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest side, pixels: one and a half times what the page shows, for screens with small ones.
const SIDE: u32 = 96;

/// Bytes of all pictures of a report in their addresses.
const ROOM: usize = 1_500_000;

/// The pictures below a folder, until a report has no room for more.
pub(crate) struct Pictures {
    folder: Option<PathBuf>,
    room: usize,
    /// Pictures asked for that the folder lacks, or that cannot be read.
    pub absent: usize,
    /// Pictures left out for want of room.
    pub left_out: usize,
}

impl Pictures {
    /// Those below `folder`; none without.
    pub(crate) fn new(folder: Option<PathBuf>) -> Pictures {
        Pictures { folder, room: ROOM, absent: 0, left_out: 0 }
    }

    /// The picture `name`, small, as a `data:` address.
    pub(crate) fn address(&mut self, name: &str) -> Option<String> {
        let folder = self.folder.as_ref()?;
        let Ok(jpeg) = thumbnail(folder, name, SIDE, &Limits::default()) else {
            self.absent += 1;
            return None;
        };
        let address = format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg));
        if address.len() > self.room {
            self.left_out += 1;
            return None;
        }
        self.room -= address.len();
        Some(address)
    }
}
