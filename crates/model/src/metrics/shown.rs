//! Impressions that a ranking would show: the first of their groups by a score.
//!
//! An error upwards is what brings some of them there, so their rates are predicted too high more
//! often than those of others (the winner's curse).

/// Rows of the `top` greatest scores in each group of more than `top` rows, in the order of rows.
/// Of equal scores the earlier row is shown.
///
/// `groups` has the number of rows of each group, one group after the other; `scores`, not NaN, are
/// (B).
pub fn shown(groups: &[usize], scores: &[f64], top: usize) -> Vec<usize> {
    assert_eq!(groups.iter().sum::<usize>(), scores.len(), "rows of groups, and scores");
    let (mut begin, mut rows, mut shown) = (0, Vec::new(), Vec::new());
    for &count in groups {
        let end = begin + count;
        if count > top {
            rows.clear();
            rows.extend(begin..end);
            rows.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            rows.truncate(top);
            rows.sort_unstable();
            shown.extend_from_slice(&rows);
        }
        begin = end;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_by_score_are_shown() {
        let groups = [1, 3, 0, 3];
        let scores = [0.5, 3.0, 1.0, 1.0, -1.0, 0.0, 2.0];
        assert_eq!(shown(&groups, &scores, 1), [1, 6]);
        assert_eq!(shown(&groups, &scores, 2), [1, 2, 5, 6]);
        assert_eq!(shown(&groups, &scores, 3), [0usize; 0]);
        assert_eq!(shown(&[], &[], 1), [0usize; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// A row is shown if fewer than `top` of its group come before it.
        #[test]
        fn a_row_has_few_before_it(
            groups in prop::collection::vec(prop::collection::vec(0..4u8, 0..7), 0..6),
            top in 1..4usize,
        ) {
            let mut expected = Vec::new();
            let mut begin = 0;
            for group in &groups {
                for (at, score) in group.iter().enumerate() {
                    let before = group.iter().enumerate().filter(|&(other, others)| {
                        others > score || (others == score && other < at)
                    });
                    if group.len() > top && before.count() < top {
                        expected.push(begin + at);
                    }
                }
                begin += group.len();
            }
            let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
            let scores: Vec<f64> = groups.concat().into_iter().map(f64::from).collect();
            prop_assert_eq!(shown(&sizes, &scores, top), expected);
        }
    }
}
