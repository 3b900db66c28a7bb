//! Negatives that no count of an item's own past tells from positives: items of the events that
//! come next. Knows positives of one side of the split; not who is held out of what.
//!
//! A positive at time t says of its item how often it was had before t, without this event. An
//! event drawn from before t would count itself, and where items are had seldom that alone tells
//! the label. So the candidates are events at t or later, as few as will do, so that the past of
//! their items at t is nearly their past at their own event: events of other users in order of
//! time, until there are [`USERS`] of these or the days are over, and at least [`LEAST`] and at
//! most [`MOST`] events. Each event is a candidate of about as many positives as any other.
//!
//! Three further things keep the counts alike:
//! - A user has had popular items more often, and what was had is no negative. An item weighs
//!   1 / (1 - s) more, s being the share of the positives whose user has had the item at any time.
//! - The negatives of an event differ, which draws one after the other bend. They are drawn at
//!   once: the candidates' items lie on a line, as long as they weigh, and a comb of as many teeth
//!   as negatives, at a hashed position, picks them. An item is picked in proportion to its weight.
//! - Events of one instant are in order of a hash, so that each has others next to it.

use super::positive::Positive;
use crate::Id;

/// Other users after whose events there are enough candidates.
const USERS: usize = 16;

/// Candidates that are looked for even if users or days are enough.
const LEAST: usize = 16;

/// Candidates that are enough in any case.
const MOST: usize = 256;

/// Events that are looked at for one positive, those of its own user among them.
const LOOKED_AT: usize = 4096;

/// Positives that are held, those with the smallest hashes.
const HELD: usize = 1 << 20;

/// A positive that may be drawn: in order of time, then of a hash of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: i64,
    hash: u64,
    user: Id,
    item: u32,
}

impl Event {
    fn of(positive: &Positive) -> Event {
        let Positive { user, time, item, .. } = *positive;
        Event { time, hash: positive.hash(), user, item }
    }
}

/// An item that may be drawn, and what it weighs beside others.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    item: u32,
    weight: f64,
}

/// The positives of one side of the split.
#[derive(Default)]
pub(super) struct Following {
    /// Those whose hash is below the limit; in order once settled.
    events: Vec<Event>,
    limit: Option<u64>,
    /// Per item, positives of the users who have had it; then what it weighs, once settled.
    had: Vec<u64>,
    weights: Vec<f64>,
    positives: u64,
}

impl Following {
    pub(super) fn new(items: usize) -> Following {
        Following { had: vec![0; items], ..Following::default() }
    }

    pub(super) fn add(&mut self, positive: &Positive) {
        let event = Event::of(positive);
        if self.limit.is_none_or(|limit| event.hash < limit) {
            self.events.push(event);
            if self.events.len() >= 2 * HELD {
                self.shrink();
            }
        }
    }

    /// Counts a user who has had these items at any time and has `positives` on this side.
    pub(super) fn add_user(&mut self, had: &[u32], positives: u64) {
        self.positives += positives;
        had.iter().for_each(|&item| self.had[item as usize] += positives);
    }

    /// Keeps the [`HELD`] events with the smallest hashes: which these are does not depend on the
    /// order in which they came.
    fn shrink(&mut self) {
        if self.events.len() > HELD {
            let (_, first, _) = self.events.select_nth_unstable_by_key(HELD, |event| event.hash);
            let limit = first.hash;
            self.events.retain(|event| event.hash < limit);
            self.limit = Some(limit);
        }
    }

    pub(super) fn settle(&mut self) {
        self.shrink();
        self.events.sort_unstable();
        self.events.shrink_to_fit();
        let all = self.positives.max(1) as f64;
        // An item that everybody has had is never drawn, whatever it weighs.
        let weight = |had: u64| 1.0 / (1.0 - had as f64 / all).max(1.0 / all);
        self.weights = std::mem::take(&mut self.had).into_iter().map(weight).collect();
    }

    /// Up to `count` items for `positive`, all different, none among `had` (ascending). `start` in
    /// 0..1 says where the comb lies.
    pub(super) fn draw(
        &self,
        positive: &Positive,
        count: usize,
        seconds: i64,
        had: &[u32],
        start: f64,
    ) -> Vec<u32> {
        self.draw_but(positive, count, seconds, had, |_| false, start)
    }

    /// Likewise, none that is `taken`.
    pub(super) fn draw_but(
        &self,
        positive: &Positive,
        count: usize,
        seconds: i64,
        had: &[u32],
        taken: impl Fn(&u32) -> bool,
        start: f64,
    ) -> Vec<u32> {
        let free = |item: &u32| had.binary_search(item).is_err() && !taken(item);
        comb(self.candidates(positive, count, seconds, free), count, start)
    }

    /// The items of the events to choose from, each once, and what they weigh.
    fn candidates(
        &self,
        positive: &Positive,
        count: usize,
        seconds: i64,
        free: impl Fn(&u32) -> bool,
    ) -> Vec<Candidate> {
        let own = Event::of(positive);
        let at = self.events.partition_point(|event| *event <= own);
        let last = positive.time.saturating_add(seconds);
        let least = LEAST.max(4 * count);
        let most = MOST.max(least);
        let (mut found, mut line, mut users) = (0, Vec::<Candidate>::new(), Vec::new());
        let add = |event: &Event, line: &mut Vec<Candidate>| {
            if event.user == positive.user || !free(&event.item) {
                return false;
            }
            let weight = self.weights[event.item as usize];
            match line.iter_mut().find(|known| known.item == event.item) {
                Some(known) => known.weight += weight,
                None => line.push(Candidate { item: event.item, weight }),
            }
            true
        };
        for event in self.events[at..].iter().take(LOOKED_AT.max(most)) {
            let enough = users.len() >= USERS || event.time > last;
            if found >= most || enough && found >= least && line.len() >= count {
                break;
            }
            if users.len() < USERS && event.user != positive.user && !users.contains(&event.user) {
                users.push(event.user);
            }
            found += usize::from(add(event, &mut line));
        }
        // At the end of the log there is nothing else.
        for event in self.events[..at].iter().rev().take(LOOKED_AT) {
            if line.len() >= count {
                break;
            }
            add(event, &mut line);
        }
        line
    }
}

/// Picks `count` of these in proportion to their weights (or all, if there are no more): the item
/// under every tooth of a comb whose teeth are a `count`th of the line apart. No item is longer
/// than that, so none is picked twice.
fn comb(mut line: Vec<Candidate>, count: usize, start: f64) -> Vec<u32> {
    if line.len() <= count {
        return line.into_iter().map(|candidate| candidate.item).collect();
    }
    // Cutting the longest shortens the line, and more may be too long for it.
    let mut gap;
    loop {
        gap = line.iter().map(|it| it.weight).sum::<f64>() / count as f64;
        let is_long = |it: &Candidate| it.weight > gap * (1.0 + 1e-9);
        let long = line.iter().filter(|it| is_long(it)).count();
        if long == 0 {
            break;
        }
        let rest: f64 = line.iter().filter(|it| !is_long(it)).map(|it| it.weight).sum();
        let most = rest / (count - long) as f64;
        line.iter_mut().filter(|it| is_long(it)).for_each(|it| it.weight = most);
    }
    let (mut picked, mut end) = (Vec::with_capacity(count), 0.0);
    for Candidate { item, weight } in line {
        end += weight;
        if picked.len() < count && end > (picked.len() as f64 + start) * gap {
            picked.push(item);
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(user: u64, time: i64, item: u32) -> Positive {
        Positive { user: Id(user), time, item, test: false }
    }

    fn settled(items: usize, positives: &[Positive]) -> Following {
        let mut following = Following::new(items);
        positives.iter().for_each(|positive| following.add(positive));
        following.settle();
        following
    }

    fn line(weights: &[f64]) -> Vec<Candidate> {
        let of = |(at, &weight)| Candidate { item: at as u32, weight };
        weights.iter().enumerate().map(of).collect()
    }

    /// The share of 1,000 even positions at which each item is picked.
    fn shares(weights: &[f64], count: usize) -> Vec<f64> {
        let line = line(weights);
        let mut shares = vec![0.0; weights.len()];
        for at in 0..1000 {
            let picked = comb(line.clone(), count, (f64::from(at) + 0.5) / 1000.0);
            assert_eq!(picked.len(), count);
            picked.iter().for_each(|&item| shares[item as usize] += 0.001);
        }
        shares
    }

    #[test]
    fn a_comb_picks_in_proportion_to_weights() {
        for (weights, count, expected) in [
            (vec![1.0, 1.0, 1.0, 1.0], 2, vec![0.5; 4]),
            (vec![2.0, 1.0, 1.0], 1, vec![0.5, 0.25, 0.25]),
            // Longer than half of the line: always picked, the others share what is left.
            (vec![9.0, 1.0, 1.0], 2, vec![1.0, 0.5, 0.5]),
            (vec![100.0, 40.0, 1.0, 1.0], 3, vec![1.0, 1.0, 0.5, 0.5]),
        ] {
            let shares = shares(&weights, count);
            let near = shares.iter().zip(&expected).all(|(one, other)| (one - other).abs() < 0.002);
            assert!(near, "{weights:?}: {shares:?}");
        }
        let few = [(7, 1.0), (3, 5.0)].map(|(item, weight)| Candidate { item, weight });
        assert_eq!(comb(few.to_vec(), 2, 0.9), [7, 3]);
    }

    #[test]
    fn candidates_come_next_and_are_of_others() {
        // User n at time 10 n with item n, thirty of them; user 5 goes on and on.
        let mut log: Vec<_> = (0..30).map(|n| positive(n, 10 * n as i64, n as u32)).collect();
        log.extend((0..20).map(|n| positive(5, 60 + n, 30)));
        let following = settled(31, &log);
        let items = |positive: &Positive, seconds| -> Vec<u32> {
            let line = following.candidates(positive, 2, seconds, |item| ![4, 9].contains(item));
            line.into_iter().map(|candidate| candidate.item).collect()
        };
        // Sixteen users from the positive's own on; what was had (4, 9) is nobody's candidate.
        assert_eq!(
            items(&log[3], 1000),
            [vec![5, 6, 30], (7..9).collect(), (10..20).collect()].concat()
        );
        assert_eq!(items(&log[3], 1000).len(), 15);
        // The last one has nothing after it, and takes the nearest before.
        assert_eq!(items(&log[29], 1000), [28, 27]);
    }

    #[test]
    fn what_stays_does_not_depend_on_the_order_of_arrival() {
        let all: Vec<_> =
            (0..3000).map(|n| positive(n % 70, n as i64 % 9, n as u32 % 50)).collect();
        let backwards: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(settled(50, &all).events, settled(50, &backwards).events);
    }

    #[test]
    fn items_that_many_have_had_weigh_more() {
        let mut following = Following::new(3);
        following.add_user(&[0, 1], 6);
        following.add_user(&[0], 2);
        following.settle();
        assert_eq!(following.weights, [8.0, 4.0, 1.0]);
    }
}
