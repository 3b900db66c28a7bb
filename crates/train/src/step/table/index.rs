//! Slots by id: open addressing in many segments, each of which grows alone, so that no growth
//! takes long.
//!
//! ```text
//! hash of an id    8 bits  which segment    segment  [ line | line | .. ]     at most 5/6 of its entries in use
//! (40 bits)       32 bits  home in it       line     5 ids, 5 slots + 1       one cache line, filled in order
//! ```
//! An id is in the first line with room from its home on: nine of ten times in its home, so that to
//! find it costs one line of memory and no guess. So where an id is taken out of a full line, one
//! that had passed this line takes its place. Homes are in the order of hashes, so a segment
//! grows in one pass over its old and its new lines. A slot + 1 of 0 is a free entry; its id is 0,
//! which is an id like any other elsewhere.

/// Bits of the hash that choose the segment.
const SEGMENT_BITS: u32 = 8;

/// Ids of a line.
const LINE: usize = 5;

/// From ids to slots.
#[derive(Clone, Debug)]
pub(super) struct Index {
    segments: Box<[Segment; 1 << SEGMENT_BITS]>,
}

#[derive(Clone, Debug, Default)]
struct Segment {
    lines: Vec<Line>,
    used: usize,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Line {
    ids: [u64; LINE],
    /// Slots plus one, so that 0 is free.
    slots: [u32; LINE],
}

impl Default for Index {
    fn default() -> Index {
        Index { segments: Box::new(std::array::from_fn(|_| Segment::default())) }
    }
}

impl Index {
    /// The slot of `id`, if it is in its home. Always does the same, so that many of these run side
    /// by side.
    pub(super) fn at_home(&self, id: u64) -> Option<u32> {
        let lines = &self.segments[segment_of(id)].lines;
        lines.get(home_of(id, lines.len()))?.slot(id)
    }

    /// The slot of `id`.
    pub(super) fn find(&self, id: u64) -> Option<u32> {
        let lines = &self.segments[segment_of(id)].lines;
        let mut at = home_of(id, lines.len());
        loop {
            let line = lines.get(at)?;
            let slot = line.slot(id);
            if slot.is_some() || !line.is_full() {
                return slot;
            }
            at = after(at, lines.len());
        }
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, id: u64, slot: u32) {
        let number = segment_of(id);
        let segment = &mut self.segments[number];
        if (segment.used + 1) * 6 > segment.lines.len() * LINE * 5 {
            segment.grow(number);
        }
        segment.used += 1;
        segment.put(id, slot + 1);
    }

    /// Gives `id`, which is there, another slot.
    pub(super) fn replace(&mut self, id: u64, slot: u32) {
        let segment = &mut self.segments[segment_of(id)];
        let (at, entry) = segment.place_of(id);
        segment.lines[at].slots[entry] = slot + 1;
    }

    /// Takes out `id`, which is there.
    pub(super) fn remove(&mut self, id: u64) {
        let segment = &mut self.segments[segment_of(id)];
        let (at, entry) = segment.place_of(id);
        segment.used -= 1;
        segment.free(at, entry);
    }

    /// Bytes of an index that has had up to `ids` ids at once, at most; those of another spread of
    /// hashes than any that is likely aside.
    pub(super) fn bytes_of(ids: usize) -> usize {
        const SEGMENTS: usize = 1 << SEGMENT_BITS;
        // Segments differ, and each keeps the size of its fullest time.
        let ids = ids + 2 * (ids * SEGMENTS).isqrt();
        // Just grown, a segment has a quarter more lines than it needs, and at least one.
        let lines = ids * 3 / (2 * LINE) + SEGMENTS * 6 / 5;
        // Those that have 64 lines have got up to a quarter more once.
        let lines = if lines >= 60 * SEGMENTS { lines.max(100 * SEGMENTS) } else { lines };
        SEGMENTS * size_of::<Segment>() + lines * size_of::<Line>()
    }

    /// Bytes allocated, used or not.
    pub(super) fn bytes(&self) -> usize {
        let lines: usize = self.segments.iter().map(|segment| segment.lines.capacity()).sum();
        lines * size_of::<Line>() + size_of_val(&*self.segments)
    }
}

impl Segment {
    /// A quarter more lines: few entries are free, and as everything is moved in order, that is
    /// quick.
    fn grow(&mut self, number: usize) {
        let len = self.lines.len();
        let mut more = len + (len / 4).max(1);
        if len < 64 && more >= 64 {
            // Parts are equally full: from here on each grows at a time of its own.
            more += (more * number) >> (SEGMENT_BITS + 2);
        }
        let before = std::mem::replace(&mut self.lines, vec![Line::default(); more]);
        for line in before {
            for (id, slot) in line.ids.into_iter().zip(line.slots).filter(|&(_, slot)| slot > 0) {
                self.put(id, slot);
            }
        }
    }

    /// Puts an id into the first free entry from its home on.
    fn put(&mut self, id: u64, slot: u32) {
        let mut at = home_of(id, self.lines.len());
        while self.lines[at].is_full() {
            at = after(at, self.lines.len());
        }
        let line = &mut self.lines[at];
        let free = line.used();
        (line.ids[free], line.slots[free]) = (id, slot);
    }

    /// Line and entry of `id`, which is there.
    fn place_of(&self, id: u64) -> (usize, usize) {
        let mut at = home_of(id, self.lines.len());
        loop {
            let line = &self.lines[at];
            if let Some(entry) = (0..line.used()).find(|&entry| line.ids[entry] == id) {
                return (at, entry);
            }
            assert!(line.is_full(), "the id is there");
            at = after(at, self.lines.len());
        }
    }

    /// Frees an entry of line `at`, and fills it again while ids have passed the line.
    fn free(&mut self, mut at: usize, mut entry: usize) {
        loop {
            let was_full = self.lines[at].is_full();
            self.lines[at].take(entry);
            let Some((next, passed)) = self.passed(at).filter(|_| was_full) else { return };
            let Line { ids, slots } = self.lines[next];
            let line = &mut self.lines[at];
            (line.ids[LINE - 1], line.slots[LINE - 1]) = (ids[passed], slots[passed]);
            (at, entry) = (next, passed);
        }
    }

    /// Line and entry of the first id behind line `at` that would be in it if there had been room.
    fn passed(&self, at: usize) -> Option<(usize, usize)> {
        let lines = self.lines.len();
        let way = |from: usize, to: usize| if to >= from { to - from } else { to + lines - from };
        let mut next = after(at, lines);
        while next != at {
            let line = &self.lines[next];
            let passed =
                |&entry: &usize| way(home_of(line.ids[entry], lines), next) >= way(at, next);
            if let Some(entry) = (0..line.used()).find(passed) {
                return Some((next, entry));
            }
            if !line.is_full() {
                return None;
            }
            next = after(next, lines);
        }
        None
    }
}

impl Line {
    fn slot(&self, id: u64) -> Option<u32> {
        let each = self.ids.iter().zip(&self.slots);
        let slot = each.fold(0, |slot, (&other, &its)| if other == id { slot | its } else { slot });
        slot.checked_sub(1)
    }

    fn is_full(&self) -> bool {
        self.slots[LINE - 1] > 0
    }

    /// Entries in use, the first ones.
    fn used(&self) -> usize {
        self.slots.iter().position(|&slot| slot == 0).unwrap_or(LINE)
    }

    /// Frees an entry in use; the last one moves there.
    fn take(&mut self, entry: usize) {
        let last = self.used() - 1;
        (self.ids[entry], self.slots[entry]) = (self.ids[last], self.slots[last]);
        (self.ids[last], self.slots[last]) = (0, 0);
    }
}

/// Spreads an id, whose high bits are alike within a lane.
fn hash(id: u64) -> u64 {
    (id ^ (id >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn segment_of(id: u64) -> usize {
    (hash(id) >> (64 - SEGMENT_BITS)) as usize
}

fn home_of(id: u64, lines: usize) -> usize {
    let rest = (hash(id) << SEGMENT_BITS) >> 32;
    ((rest * lines as u64) >> 32) as usize
}

fn after(at: usize, lines: usize) -> usize {
    if at + 1 == lines { 0 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids that all have one home in a segment of any size.
    fn alike(many: u64) -> Vec<u64> {
        // The hash's low bits, which choose nothing, count through a run of products; Newton finds
        // the inverse.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let newton = |x: u64, _| x.wrapping_mul(2u64.wrapping_sub(x.wrapping_mul(FACTOR)));
        let inverse = (0..5).fold(FACTOR, newton);
        let ids = (0..many).map(|low| {
            let mixed = (0xabff_ffff_ff00_0000 | low).wrapping_mul(inverse);
            mixed ^ (mixed >> 32)
        });
        ids.collect()
    }

    #[test]
    fn a_line_is_one_of_memory() {
        assert_eq!((size_of::<Line>(), align_of::<Line>()), (64, 64));
    }

    #[test]
    fn ids_of_one_home_are_told_apart() {
        let ids = alike(1_000);
        assert!(ids.iter().all(|&id| segment_of(id) == 0xab && home_of(id, 1_000) == 999));
        let mut index = Index::default();
        for (slot, &id) in ids.iter().enumerate() {
            assert_eq!((index.find(id), index.at_home(id)), (None, None));
            index.insert(id, slot as u32);
        }
        let found: Vec<_> = ids.iter().map(|&id| index.find(id).unwrap() as usize).collect();
        assert!(found.into_iter().eq(0..ids.len()));
        let at_home = ids.iter().filter(|&&id| index.at_home(id).is_some()).count();
        assert_eq!(at_home, LINE);
    }

    /// The first line with room from the home of every id on is where it is: what a lookup needs.
    fn assert_reachable(index: &Index) {
        for segment in index.segments.iter() {
            let lines = segment.lines.len();
            let each = segment.lines.iter().enumerate();
            let ids =
                each.flat_map(|(at, line)| (0..line.used()).map(move |of| (at, line.ids[of])));
            for (at, id) in ids {
                let mut passed = home_of(id, lines);
                while passed != at {
                    assert!(segment.lines[passed].is_full(), "{id}");
                    passed = after(passed, lines);
                }
            }
        }
    }

    #[test]
    fn ids_are_found_whatever_was_taken_out() {
        // Of one home, in one segment, and in all.
        let spread = (0..4_000u64).map(|n| n.wrapping_mul(0xd134_2543_de82_ef95));
        let one: Vec<u64> = (0..200_000).filter(|&id| segment_of(id) == 7).collect();
        for ids in [alike(300), one, spread.collect()] {
            let mut index = Index::default();
            for round in 0..3 {
                let there = |id: usize| id % (3 + round) != 1;
                for (slot, &id) in ids.iter().enumerate() {
                    index.insert(id, slot as u32);
                }
                for (slot, &id) in ids.iter().enumerate().filter(|(slot, _)| !there(*slot)) {
                    index.remove(id);
                    assert_eq!(index.find(id), None, "{slot}");
                    if slot % 64 < 6 {
                        assert_reachable(&index);
                    }
                }
                for (slot, &id) in ids.iter().enumerate().filter(|(slot, _)| there(*slot)) {
                    index.replace(id, slot as u32 + 5);
                    assert_eq!(index.find(id), Some(slot as u32 + 5));
                }
                assert_reachable(&index);
                let left = (0..ids.len()).filter(|&slot| there(slot));
                left.for_each(|slot| index.remove(ids[slot]));
                assert!(index.segments.iter().all(|segment| segment.used == 0));
                assert!(ids.iter().all(|&id| index.find(id).is_none()));
            }
        }
    }

    #[test]
    fn an_index_takes_at_most_what_it_is_expected_to() {
        let mut index = Index::default();
        for n in 0..400_000_usize {
            index.insert((n as u64).wrapping_mul(0xd134_2543_de82_ef95), n as u32);
            let (bytes, most) = (index.bytes(), Index::bytes_of(n + 1));
            assert!(n % 97 > 0 || bytes <= most, "{n} ids: {bytes} bytes, expected {most}");
        }
        let ratio = Index::bytes_of(400_000) as f64 / index.bytes() as f64;
        assert!(ratio < 1.25, "{ratio}");
    }

    #[test]
    fn the_id_of_a_free_place_is_not_there() {
        let mut index = Index::default();
        assert_eq!((index.find(0), index.at_home(0)), (None, None));
        let neighbor = (1..).find(|&id| segment_of(id) == segment_of(0)).unwrap();
        index.insert(neighbor, 3);
        assert_eq!((index.find(0), index.at_home(0)), (None, None));
        index.insert(0, u32::MAX - 1);
        assert_eq!((index.find(0), index.find(neighbor)), (Some(u32::MAX - 1), Some(3)));
    }

    #[test]
    fn parts_grow_one_after_the_other() {
        let mut index = Index::default();
        let mut sizes = vec![index.bytes()];
        for (slot, id) in
            (0..1_000_000u64).map(|n| n.wrapping_mul(0xd134_2543_de82_ef95)).enumerate()
        {
            index.insert(id, slot as u32);
            if slot % 10_000 == 0 {
                sizes.push(index.bytes());
            }
            // Once it is of some size, it is equally full at any time.
            let ratio = index.bytes() as f64 / (slot + 1) as f64;
            assert!(slot < 200_000 || (16.5..18.0).contains(&ratio), "{slot}: {ratio}");
        }
        let all =
            index.segments.iter().flat_map(|segment| &segment.lines).flat_map(|line| line.ids);
        let at_home = all.filter(|&id| id > 0 && index.at_home(id).is_some()).count();
        assert!(at_home > 880_000, "{at_home}");
        // No hundredth of the ids makes more than a few hundredths of the segments grow.
        let most = sizes.windows(2).skip(20).map(|pair| pair[1] - pair[0]).max();
        assert!(most.unwrap() < index.bytes() / 40, "{most:?} of {}", index.bytes());
    }
}
