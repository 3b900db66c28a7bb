//! From one user's events to groups. The heart of prepare: pure, knows no file.

use std::ops::Range;

use crate::samples::Behavior;

/// One event of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time: i64,
    /// Row of the catalogue.
    pub(crate) item: u32,
    /// 1 positive, 0 shown only.
    pub(crate) label: u8,
    /// Whether a positive event weighs enough to be a behavior.
    pub(crate) weighs: bool,
    /// Which row of the part has its texts.
    pub(crate) row: u32,
}

/// What is done with a positive event for an item that the user had before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// It counts like any other.
    #[default]
    Keep,
    /// Only the first positive event of a user and an item stays in the log.
    FirstOnly,
}

/// How many events were left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) duplicates: u64,
    pub(crate) repeated: u64,
    pub(crate) light: u64,
}

/// Leaves out exact duplicates (same time, item and label) and, if asked, repeated positives.
/// `events` are of one user, sorted by time, item and label; of duplicates the first stays.
pub(crate) fn clean(events: &mut Vec<Event>, repeats: Repeats) -> LeftOut {
    let mut out = LeftOut::default();
    let before = events.len();
    events.dedup_by_key(|event| (event.time, event.item, event.label));
    out.duplicates = (before - events.len()) as u64;
    if repeats == Repeats::FirstOnly {
        let before = events.len();
        let mut had = hashbrown::HashSet::new();
        events.retain(|event| event.label == 0 || had.insert(event.item));
        out.repeated = (before - events.len()) as u64;
    }
    out.light = events.iter().filter(|event| event.label == 1 && !event.weighs).count() as u64;
    out
}

/// Bounds of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// A group's impressions are less than this many seconds after its first.
    pub(crate) span: i64,
    /// Most impressions, unless one event alone has more (a positive with its sampled
    /// negatives).
    pub(crate) most: usize,
}

/// One impression of a user: an event, or a negative sampled for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) time: i64,
    pub(crate) item: u32,
    pub(crate) label: u8,
    pub(crate) row: u32,
}

/// Cuts a user's impressions (sorted by time) into groups; none straddles position `test_begin`.
/// Impressions of the same row (a positive and its negatives) stay together.
pub(crate) fn groups(shown: &[Shown], test_begin: usize, bounds: Bounds) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut begin = 0;
    let mut at = 0;
    while at < shown.len() {
        let unit = shown[at..].iter().take_while(|other| other.row == shown[at].row).count();
        let too_late = shown[at].time.saturating_sub(shown[begin].time) >= bounds.span.max(1);
        let too_many = at + unit - begin > bounds.most;
        if at > begin && (too_late || too_many || at == test_begin) {
            groups.push(begin..at);
            begin = at;
        }
        at += unit;
    }
    if at > begin {
        groups.push(begin..at);
    }
    groups
}

/// The behaviors a group may know: those strictly earlier than `first`, newest first, at most
/// `most`. `past` is sorted by time.
pub(crate) fn history(past: &[Behavior], first: i64, most: usize, to: &mut Vec<Behavior>) {
    let earlier = past.partition_point(|behavior| behavior.time < first);
    to.clear();
    to.extend(past[..earlier].iter().rev().take(most));
}

/// Where a user's test begins if it is the last `fraction` of the events: the nearest position,
/// moved later until it does not separate events of one instant.
pub(crate) fn tail_begin(events: &[Event], fraction: f64) -> usize {
    let held = (events.len() as f64 * fraction).round() as usize;
    let mut begin = events.len() - held.min(events.len());
    while begin > 0 && begin < events.len() && events[begin].time == events[begin - 1].time {
        begin += 1;
    }
    begin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: i64, item: u32, label: u8) -> Event {
        Event { time, item, label, weighs: true, row: 0 }
    }

    /// Groups of impressions at these times, a row each.
    fn cut(times: &[i64], test_begin: usize, span: i64, most: usize) -> Vec<Range<usize>> {
        let shown =
            |(row, &time): (usize, &i64)| Shown { time, item: 0, label: 0, row: row as u32 };
        let shown: Vec<_> = times.iter().enumerate().map(shown).collect();
        groups(&shown, test_begin, Bounds { span, most })
    }

    #[test]
    fn groups_are_bounded_by_span_count_and_split() {
        assert_eq!(cut(&[0, 5, 9, 10, 12], 9, 10, 99), [0..3, 3..5]);
        assert_eq!(cut(&[1, 1, 1, 1, 1], 9, 10, 2), [0..2, 2..4, 4..5]);
        assert_eq!(cut(&[1, 2, 3], 1, 10, 99), [0..1, 1..3]);
        assert_eq!(cut(&[i64::MIN, i64::MAX], 9, 10, 99), [0..1, 1..2]);
        assert_eq!(cut(&[], 0, 10, 99), []);
    }

    #[test]
    fn a_positive_and_its_negatives_stay_together() {
        let shown: Vec<_> =
            (0..6).map(|at| Shown { time: 0, item: 0, label: 0, row: at / 3 }).collect();
        assert_eq!(groups(&shown, 6, Bounds { span: 9, most: 4 }), [0..3, 3..6]);
        assert_eq!(groups(&shown, 6, Bounds { span: 9, most: 1 }), [0..3, 3..6]);
    }

    #[test]
    fn a_history_is_strictly_earlier_and_newest_first() {
        let behavior = |(item, time)| Behavior { item, time };
        let past = [(1, 10), (2, 20), (3, 20), (4, 30)].map(behavior);
        let known = |first, most| -> Vec<(u32, i64)> {
            let mut to = vec![behavior((9, 9))];
            history(&past, first, most, &mut to);
            to.iter().map(|it| (it.item, it.time)).collect()
        };
        assert_eq!(known(30, 50), [(3, 20), (2, 20), (1, 10)]);
        assert_eq!(known(20, 50), [(1, 10)]);
        assert_eq!(known(31, 2), [(4, 30), (3, 20)]);
        assert_eq!(known(10, 50), []);
    }

    #[test]
    fn duplicates_and_repeats() {
        let log = [event(1, 7, 1), event(1, 7, 1), event(1, 7, 0), event(2, 7, 1), event(2, 8, 1)];
        let mut kept = log.to_vec();
        assert_eq!(clean(&mut kept, Repeats::Keep).duplicates, 1);
        assert_eq!(kept, [log[0], log[2], log[3], log[4]]);
        let out = clean(&mut kept, Repeats::FirstOnly);
        assert_eq!(out, LeftOut { duplicates: 0, repeated: 1, light: 0 });
        assert_eq!(kept, [log[0], log[2], log[4]]);
    }

    #[test]
    fn a_tail_does_not_separate_an_instant() {
        let begin = |times: &[i64], fraction| {
            tail_begin(&times.iter().map(|&time| event(time, 0, 0)).collect::<Vec<_>>(), fraction)
        };
        assert_eq!(begin(&[1, 2, 3, 4, 5], 0.2), 4);
        assert_eq!(begin(&[1, 2, 3, 3, 5], 0.4), 4);
        assert_eq!(begin(&[1, 1, 1, 1], 0.5), 4);
        assert_eq!(begin(&[1, 2], 0.1), 2);
    }
}
