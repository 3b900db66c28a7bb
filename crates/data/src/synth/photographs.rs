//! The pictures of a stock as files.
//!
//! Knows items and folders. Does not know how a picture is drawn.

use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::catalogue::{Item, item_name};
use super::config::ShopConfig;
use super::dice::{Dice, Entity};
use super::picture::{self, Encoding};
use crate::error::{Error, Result};

/// Draws and writes every picture; returns their paths relative to `folder`. They are not synced
/// one by one: a shop lost in a power cut is drawn again from its seed.
pub(super) fn draw_pictures(
    config: &ShopConfig,
    stock: &[Item],
    folder: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<String>> {
    const CHUNK: usize = 64;
    for first in 0..256 {
        let shelf = folder.join(format!("images/{first:02x}"));
        fs::create_dir_all(&shelf).map_err(Error::io(&shelf))?;
    }
    let mut images = Vec::with_capacity(stock.len());
    for items in stock.chunks(CHUNK) {
        let from = images.len();
        let drawn: Result<Vec<String>> = items
            .par_iter()
            .enumerate()
            .map(|(at, item)| draw_picture(config, from + at, item, folder))
            .collect();
        images.extend(drawn?);
        progress(images.len());
    }
    Ok(images)
}

/// The picture of an item: its path in the shop's folder, its form, and the rest of its stream.
pub(super) fn photograph(config: &ShopConfig, number: usize) -> (String, Encoding, Dice) {
    let mut dice = Dice::new(config.seed, Entity::Picture, number as u64, 0);
    let encoding = Encoding::draw(&mut dice);
    let name = item_name(number);
    let shelf = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) as u8;
    (format!("images/{shelf:02x}/{name}.{}", encoding.extension()), encoding, dice)
}

fn draw_picture(config: &ShopConfig, number: usize, item: &Item, folder: &Path) -> Result<String> {
    let (relative, encoding, mut dice) = photograph(config, number);
    let path = folder.join(&relative);
    let picture = picture::draw(item.style, config.picture_sides, &mut dice);
    let bytes = encoding
        .encode(&picture)
        .map_err(|error| Error::content(&path, format!("cannot encode the picture: {error}")))?;
    fs::write(&path, bytes).map_err(Error::io(&path))?;
    Ok(relative)
}
