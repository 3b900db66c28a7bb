//! How sure a lift is: what is luck in it, of the users who were drawn and of the trainings.
//!
//! A metric is a ratio of sums over cells, a user's day each. Its logarithm varies as the sum of
//! its first-order terms does (the delta method). The sum of terms that came about together, by one
//! user, by one model, on one day, says how much they vary together:
//!
//! ```text
//! users     sum over users (clusters of users) of (their terms)^2    luck of who is in which half
//! replicas  sum over models of one variant of (their terms)^2        that, and luck of trainings
//! days      sum over days of (B's terms - A's)^2                     that, and what days change
//! ```
//! Each is multiplied by n / (n - 1) of its n parts. Knows terms. Does not know what happened.

use serde::{Deserialize, Serialize};

use crate::lift::{Estimate, Pair, Ratio, t_quantile};

/// Where a term belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// A user, or a cluster of them: what was given to a variant by chance.
    pub(crate) unit: usize,
    /// Which of the models of the variant.
    pub(crate) replica: usize,
    pub(crate) day: usize,
}

/// Terms of users who are in one half. Their sum is 0.
pub(crate) struct Group {
    pub(crate) terms: Vec<f64>,
    pub(crate) cells: Vec<Cell>,
}

/// Variances of the logarithm of a factor, by what is taken as luck.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variances {
    /// Of users, or of clusters of them.
    pub users: f64,
    /// Of the models of a variant, each with its users: none of a single model.
    pub replicas: Option<f64>,
    /// Of days; none of a single one.
    pub days: Option<f64>,
    /// Degrees of freedom of these.
    pub freedom: Freedom,
}

/// Degrees of freedom: how many independent differences a variance is the mean of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as the variances")]
pub struct Freedom {
    pub users: f64,
    pub replicas: Option<f64>,
    pub days: Option<f64>,
}

/// A factor with its intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The interval to be reported: the widest of those over users and over models; over days
    /// where a variant has a single model.
    pub reported: Estimate,
    /// The one over users alone, which knows nothing of the luck of a training.
    pub over_users: Estimate,
    /// What they come from.
    pub variances: Option<Variances>,
}

/// The sums of the terms of `groups` by a number, of every number that a cell has.
fn sums(groups: &[Group], number: impl Fn(&Cell) -> usize) -> Vec<f64> {
    let cells = || groups.iter().flat_map(|group| group.cells.iter().zip(&group.terms));
    let most = cells().map(|(cell, _)| number(cell)).max().map_or(0, |it| it + 1);
    let (mut sums, mut there) = (vec![0.0; most], vec![false; most]);
    for (cell, term) in cells() {
        sums[number(cell)] += term;
        there[number(cell)] = true;
    }
    let of = sums.into_iter().zip(there);
    of.filter_map(|(sum, there)| there.then_some(sum)).collect()
}

/// The variance of independent parts whose sum is 0, and its degrees of freedom; none of one part.
fn variance(parts: &[f64]) -> Option<(f64, f64)> {
    let count = parts.len() as f64;
    let squares: f64 = parts.iter().map(|it| it * it).sum();
    (count > 1.0).then(|| (squares * count / (count - 1.0), count - 1.0))
}

/// The sum of two variances, with Welch's degrees of freedom.
fn welch(variances: &[(f64, f64)]) -> (f64, f64) {
    let sum: f64 = variances.iter().map(|it| it.0).sum();
    let parts: f64 = variances.iter().map(|(of, freedom)| of * of / freedom).sum();
    let least = variances.iter().map(|it| it.1).fold(f64::INFINITY, f64::min);
    (sum, if parts > 0.0 { sum * sum / parts } else { least })
}

fn by(groups: &[Group], number: impl Fn(&Cell) -> usize + Copy) -> Option<(f64, f64)> {
    let of: Option<Vec<(f64, f64)>> =
        groups.chunks(1).map(|group| variance(&sums(group, number))).collect();
    of.filter(|of| !of.is_empty()).map(|of| welch(&of))
}

impl Variances {
    /// Of a sum over groups of different users; days are common to them.
    fn of(groups: &[Group]) -> Option<Variances> {
        let (users, of_users) = by(groups, |cell| cell.unit)?;
        let replicas = by(groups, |cell| cell.replica);
        let days = variance(&sums(groups, |cell| cell.day));
        let freedom = Freedom {
            users: of_users,
            replicas: replicas.map(|it| it.1),
            days: days.map(|it| it.1),
        };
        Some(Variances {
            users,
            replicas: replicas.map(|it| it.0),
            days: days.map(|it| it.0),
            freedom,
        })
    }

    /// Half the width of the interval of the logarithm over users.
    fn side_over_users(&self) -> f64 {
        t_quantile(self.freedom.users) * self.users.sqrt()
    }

    /// The same of the one that is reported.
    fn side(&self) -> f64 {
        let of = |variance: Option<f64>, freedom: Option<f64>| {
            variance.zip(freedom).map_or(0.0, |(it, freedom)| t_quantile(freedom) * it.sqrt())
        };
        let trainings = match self.replicas {
            Some(_) => of(self.replicas, self.freedom.replicas),
            None => of(self.days, self.freedom.days),
        };
        self.side_over_users().max(trainings)
    }
}

impl Spread {
    fn of(logarithm: f64, groups: &[Group]) -> Spread {
        let variances = Variances::of(groups);
        let estimate = |side: Option<f64>| Estimate::of_logarithm(logarithm, side);
        Spread {
            reported: estimate(variances.map(|it| it.side())),
            over_users: estimate(variances.map(|it| it.side_over_users())),
            variances,
        }
    }

    /// How much more B has than A, relative to A, where their cells are of different users; none
    /// where one of them has nothing.
    pub(crate) fn lift(sides: [(&[Pair], &[Cell]); 2]) -> Option<Spread> {
        let [a, b] = sides.map(|(pairs, cells)| Some((Ratio::of(pairs)?, cells)));
        let ((of_a, a), (of_b, b)) = (a?, b?);
        let logarithm = (of_b.value / of_a.value).ln();
        let group = |terms: Vec<f64>, cells: &[Cell]| Group { terms, cells: cells.to_vec() };
        let minus = of_a.terms.iter().map(|term| -term).collect();
        Some(Spread::of(logarithm, &[group(minus, a), group(of_b.terms, b)]))
    }

    /// How much more cells have in one world than in another, relative to it: `then[i]` and
    /// `now[i]` are both of `cells[i]`.
    ///
    /// # Panics
    /// If they are not as many.
    pub(crate) fn paired(then: &[Pair], now: &[Pair], cells: &[Cell]) -> Option<Spread> {
        let (logarithm, group) = paired(then, now, cells)?;
        Some(Spread::of(logarithm, &[group]))
    }

    /// The factor by which B over A is another one in a world than in the truth, less 1: of the
    /// users of A, what the world's A brought in against all on A, and the same of B.
    pub(crate) fn bias(a: [&[Pair]; 2], b: [&[Pair]; 2], cells: [&[Cell]; 2]) -> Option<Spread> {
        let (of_a, mut a) = paired(a[0], a[1], cells[0])?;
        let (of_b, b) = paired(b[0], b[1], cells[1])?;
        a.terms.iter_mut().for_each(|term| *term = -*term);
        Some(Spread::of(of_b - of_a, &[a, b]))
    }
}

/// The logarithm of the factor, and its terms.
fn paired(then: &[Pair], now: &[Pair], cells: &[Cell]) -> Option<(f64, Group)> {
    assert!(then.len() == now.len() && now.len() == cells.len(), "the same cells");
    let (before, after) = (Ratio::of(then)?, Ratio::of(now)?);
    let terms = after.terms.iter().zip(&before.terms).map(|(x, y)| x - y).collect();
    Some(((after.value / before.value).ln(), Group { terms, cells: cells.to_vec() }))
}

#[cfg(test)]
mod tests {
    use ams_data::synth::{Dice, Entity};

    use super::*;

    #[test]
    fn terms_of_a_day_meet_where_a_half_was_not_there_every_day() {
        let group = |days: [usize; 3], terms: [f64; 3]| Group {
            terms: terms.to_vec(),
            cells: days.map(|day| Cell { unit: day, replica: 0, day }).to_vec(),
        };
        let groups = [group([0, 2, 3], [1.0, 2.0, -3.0]), group([0, 1, 2], [-1.0, 3.0, -2.0])];
        assert_eq!(sums(&groups, |cell| cell.day), [0.0, 3.0, 0.0, -3.0]);
        // 4 / 3 of 9 + 9.
        assert_eq!(Variances::of(&groups).unwrap().days, Some(24.0));
    }

    /// A shop of two halves: the logarithm of the rate of a user's day is the sum of the luck of
    /// the user, of the model and of the model's night, each of the given size.
    struct Luck {
        users: f64,
        models: f64,
        nights: f64,
    }

    const USERS: usize = 60;

    /// Pairs of impressions and cells of one half.
    fn half(dice: &mut Dice, luck: &Luck, models: usize, days: usize) -> (Vec<Pair>, Vec<Cell>) {
        let of_models: Vec<f64> = (0..models).map(|_| luck.models * dice.normal()).collect();
        let of_nights: Vec<f64> = (0..models * days).map(|_| luck.nights * dice.normal()).collect();
        let (mut pairs, mut cells) = (Vec::new(), Vec::new());
        for unit in 0..USERS {
            let (replica, own) = (unit % models, luck.users * dice.normal());
            for day in 0..days {
                let impressions = (1 + dice.below(20)) as f64;
                let logarithm = own + of_models[replica] + of_nights[replica * days + day];
                pairs.push((impressions * 0.2 * logarithm.exp(), impressions));
                cells.push(Cell { unit, replica, day });
            }
        }
        (pairs, cells)
    }

    /// Of 400 tests of two equal variants, those whose interval has 0: what is reported, and the
    /// one over users.
    fn inside(luck: &Luck, models: usize, days: usize) -> [usize; 2] {
        let mut inside = [0; 2];
        for seed in 0..400 {
            let mut dice = Dice::new(seed, Entity::Page, 0, 0);
            let [a, b] = [(); 2].map(|()| half(&mut dice, luck, models, days));
            let found = Spread::lift([(&a.0, &a.1), (&b.0, &b.1)]).unwrap();
            inside[0] += usize::from(found.reported.covers(0.0));
            inside[1] += usize::from(found.over_users.covers(0.0));
        }
        inside
    }

    #[test]
    fn intervals_have_the_luck_that_they_say() {
        // Users alone: both are right, and the reported one may be wider.
        let [reported, users] = inside(&Luck { users: 0.3, models: 0.0, nights: 0.0 }, 3, 2);
        assert!((364..=396).contains(&users) && reported >= users, "{reported} {users}");
        // Models that differ for good: days do not know it, models do.
        let lasting = Luck { users: 0.3, models: 0.1, nights: 0.0 };
        let [reported, users] = inside(&lasting, 4, 2);
        assert!(reported >= 364 && users < 320, "{reported} {users}");
        // Of a single model that is made anew every night, days do.
        let [reported, users] = inside(&Luck { users: 0.1, models: 0.0, nights: 0.2 }, 1, 7);
        assert!(reported >= 360 && users < 200, "{reported} {users}");
    }

    #[test]
    fn variances_are_those_of_the_definition() {
        let pairs = [(2.0, 4.0), (1.0, 4.0), (0.0, 3.0), (3.0, 5.0)];
        let cells = [(0, 0, 0), (0, 0, 1), (1, 1, 0), (2, 1, 1)].map(|(unit, replica, day)| Cell {
            unit,
            replica,
            day,
        });
        let found = Spread::lift([(&pairs, &cells), (&pairs, &cells)]).unwrap();
        assert_eq!(found.reported.value, 0.0);
        let term = |at: usize| pairs[at].0 / 6.0 - pairs[at].1 / 16.0;
        let squares = |of: &[f64]| of.iter().map(|it| it * it).sum::<f64>();
        let got = found.variances.unwrap();
        let users = 2.0 * 1.5 * squares(&[term(0) + term(1), term(2), term(3)]);
        let replicas = 2.0 * 2.0 * squares(&[term(0) + term(1), term(2) + term(3)]);
        assert!((got.users - users).abs() < 1e-12, "{got:?}");
        assert!((got.replicas.unwrap() - replicas).abs() < 1e-12, "{got:?}");
        // What days do to both is not in the difference.
        assert!(got.days.unwrap() < 1e-12, "{got:?}");
        let freedom = got.freedom;
        assert_eq!((freedom.users, freedom.replicas, freedom.days), (4.0, Some(2.0), Some(1.0)));
    }

    /// Users who see 1 to 20 items, and click each by a rate of their own around `rate`.
    fn users(seed: u64, count: usize, rate: f64) -> Vec<Pair> {
        let mut dice = Dice::new(seed, Entity::Page, 0, 0);
        let user = |_| {
            let impressions = 1 + dice.below(20);
            let own = rate * (0.3 * dice.normal()).exp();
            let clicks = (0..impressions).filter(|_| dice.happens(own)).count();
            (clicks as f64, impressions as f64)
        };
        (0..count).map(user).collect()
    }

    /// Cells of one model and one day.
    fn cells(count: usize) -> Vec<Cell> {
        (0..count).map(|unit| Cell { unit, ..Cell::default() }).collect()
    }

    fn lift(a: &[Pair], b: &[Pair]) -> Option<Estimate> {
        Some(Spread::lift([(a, &cells(a.len())), (b, &cells(b.len()))])?.over_users)
    }

    #[test]
    fn intervals_cover_the_truth_as_often_as_they_say() {
        let truth: f64 = 0.12 / 0.1 - 1.0;
        let covered = (0..400).filter(|&seed| {
            let (a, b) = (users(seed, 150, 0.1), users(1000 + seed, 200, 0.12));
            lift(&a, &b).unwrap().covers(truth)
        });
        let covered = covered.count();
        assert!((366..=396).contains(&covered), "{covered} of 400, expected 380");
    }

    #[test]
    fn the_interval_of_a_lift_is_that_of_a_bootstrap() {
        let (a, b) = (users(1, 300, 0.1), users(2, 300, 0.15));
        let mut dice = Dice::new(3, Entity::Page, 0, 0);
        let mut draws: Vec<f64> = (0..2000)
            .map(|_| {
                let mut ratio = |units: &[Pair]| {
                    let (mut above, mut below) = (0.0, 0.0);
                    for _ in 0..units.len() {
                        let unit = units[dice.below(units.len())];
                        (above, below) = (above + unit.0, below + unit.1);
                    }
                    above / below
                };
                let of_a = ratio(&a);
                ratio(&b) / of_a - 1.0
            })
            .collect();
        draws.sort_by(f64::total_cmp);
        let got = lift(&a, &b).unwrap();
        let (low, high) = (got.low.unwrap(), got.high.unwrap());
        assert!((low - draws[50]).abs() < 0.04 && (high - draws[1949]).abs() < 0.04, "{got:?}");
    }

    #[test]
    fn the_same_users_in_two_worlds_differ_by_less() {
        let then = users(1, 200, 0.2);
        let now: Vec<Pair> = then.iter().map(|(y, x)| (1.1 * y, *x)).collect();
        let cells = cells(200);
        let paired = Spread::paired(&then, &now, &cells).unwrap().reported;
        assert!((paired.value - 0.1).abs() < 1e-12);
        assert!(paired.high.unwrap() - paired.low.unwrap() < 1e-6);
        let biased = Spread::bias([&then, &then], [&then, &now], [&cells, &cells]).unwrap();
        assert!((biased.reported.value - 0.1).abs() < 1e-12);
        assert_eq!(lift(&then, &[(0.0, 3.0)]), None);
    }
}
