//! A variant that a running `ams serve` answers for.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ams_bundle::PageView;
use ams_market::{Desk, Variant};
use ams_serve::Asker;
use serde::Deserialize;

use crate::failure::Failure;

/// Until a version is there: a server looks every few seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// A version of a model on a server.
pub(super) struct Remote {
    /// Where its page views are answered.
    score: String,
}

/// The parts of an answer that are needed.
#[derive(Deserialize)]
struct Answer {
    items: Vec<String>,
    ctr: Vec<f32>,
}

impl Remote {
    /// The version, once the server at `url` has it.
    ///
    /// # Errors
    /// If it does not answer, or does not take the version up.
    pub(super) fn when_there(url: &str, model: &str, version: u64) -> Result<Remote, Failure> {
        let url = url.trim_end_matches('/');
        let score = format!("{url}/v1/models/{model}/versions/{version}/score");
        let (asker, begin) = (Asker::new()?, Instant::now());
        loop {
            // Any item: what is unknown is scored, too.
            let (status, body) =
                asker.post(&score, br#"{"candidates":{"item":["i000000"]}}"#.to_vec())?;
            if status == 200 {
                return Ok(Remote { score });
            }
            if status != 404 && status != 503 || begin.elapsed() > PATIENCE {
                let body = String::from_utf8_lossy(&body);
                let what = "expected a server of OUT/models with this version";
                return Err(Failure::user(format!("{score}: {status} {}; {what}", body.trim())));
            }
            sleep(PAUSE);
        }
    }
}

impl Variant for Remote {
    fn desk(&self) -> Box<dyn Desk + '_> {
        Box::new(Connection { score: &self.score, asker: Asker::new() })
    }
}

struct Connection<'a> {
    score: &'a str,
    asker: Result<Asker, String>,
}

impl Desk for Connection<'_> {
    fn rates(&mut self, page: &PageView, rates: &mut Vec<f32>) -> Result<(), String> {
        let asker = self.asker.as_ref().map_err(Clone::clone)?;
        let body = serde_json::to_vec(page).map_err(|error| error.to_string())?;
        let (status, body) = asker.post(self.score, body)?;
        let said = || format!("{}: {status} {}", self.score, String::from_utf8_lossy(&body));
        if status != 200 {
            return Err(said());
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| format!("{}: {error}", said()))?;
        let of: HashMap<&str, f32> =
            answer.items.iter().map(String::as_str).zip(answer.ctr).collect();
        rates.clear();
        for item in &page.candidates.item {
            let rate = of.get(&*item.0).ok_or_else(|| format!("{}: no {}", said(), item.0))?;
            rates.push(*rate);
        }
        Ok(())
    }
}
