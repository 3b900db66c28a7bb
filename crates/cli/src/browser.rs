//! A page as a picture, by a Chromium that is installed. No other program draws text and style
//! sheets alike, and a library that does would be larger than the rest of `ams`.
//!
//! A headless Chromium takes pictures of its window only. So it opens the page twice: a script in a
//! temporary copy says how high the page is, then the window is made as high.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::failure::Failure;

/// Programs that are looked for.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// Width of the window, pixels: that of the page with its margins.
const WIDTH: u32 = 1180;

/// The highest window, pixels; Chromium draws no higher one.
const HEIGHT: u32 = 16_000;

/// The attribute that has the height of the page.
const MARK: &str = "data-height=\"";

/// Draws `html`, which has no script of its own, as the PNG file `to`.
///
/// # Errors
/// If there is no Chromium, or it does not draw.
pub(crate) fn draw(html: &str, to: &Path) -> Result<(), Failure> {
    let browser = find().ok_or_else(|| {
        Failure::user(format!(
            "no Chromium is installed, which draws a page as PNG (looked for {}); write --format html, or install \
             one",
            NAMES.join(", ")
        ))
    })?;
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::user(format!("no temporary folder can be made: {error}")))?;
    let page = folder.path().join("page.html");
    let measured = measuring(html);
    ams_data::staging::write_whole(&page, measured)?;
    let browser = Browser { program: browser, profile: folder.path().join("profile") };
    let dom = browser.run(&["--dump-dom".to_owned(), size(HEIGHT / 8)], &page)?;
    let dom = String::from_utf8_lossy(&dom.stdout).into_owned();
    let height = dom.split(MARK).nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
    let Some(height) = height else {
        let program = browser.program.display();
        return Err(Failure::user(format!("{program} did not say how high the page is")));
    };
    ams_data::staging::write_whole(&page, html)?;
    let picture = folder.path().join("page.png");
    let shot = format!("--screenshot={}", picture.display());
    let drawn = browser.run(&[shot, size(u32::min(height, HEIGHT))], &page)?;
    let png = std::fs::read(&picture).map_err(|error| {
        let program = browser.program.display();
        let said = String::from_utf8_lossy(&drawn.stderr);
        Failure::user(format!("{program} wrote no picture ({error}): {said}"))
    })?;
    Ok(ams_data::staging::write_whole(to, png)?)
}

fn size(height: u32) -> String {
    format!("--window-size={WIDTH},{height}")
}

/// The page with a script that says how high it is.
fn measuring(html: &str) -> String {
    const SCRIPT: &str = "<script>document.body.dataset.height = \
                          Math.ceil(document.documentElement.getBoundingClientRect().height)</script></body>";
    let allowed =
        html.replacen("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'", 1);
    allowed.replacen("</body>", SCRIPT, 1)
}

fn find() -> Option<PathBuf> {
    let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    NAMES.iter().find(runs).map(PathBuf::from)
}

struct Browser {
    program: PathBuf,
    profile: PathBuf,
}

impl Browser {
    /// Opens `page` without a window and ends; inside its sandbox, where the system lets it.
    fn run(&self, arguments: &[String], page: &Path) -> Result<Output, Failure> {
        let run = |further: &[&str]| {
            let mut command = Command::new(&self.program);
            command.args(["--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]);
            command.args(further).args(arguments);
            command.arg(format!("--user-data-dir={}", self.profile.display()));
            let output = command.arg(format!("file://{}", page.display())).output();
            output.map_err(|error| {
                Failure::user(format!("{} cannot be started: {error}", self.program.display()))
            })
        };
        let output = run(&[])?;
        // As root, or in a container without user namespaces. The page is ours and has no script.
        if output.status.success() {
            return Ok(output);
        }
        run(&["--no-sandbox"])
    }
}
