//! Statistics of repeated runs: the least, the median, and the interval of a ratio.
//!
//! Clients run in turn, so the runs of one round had the same conditions: ratios are taken within a
//! round, and their median is given. The interval is from the percentile bootstrap (Efron 1979):
//! rounds are drawn again, with replacement, and the median of each draw is taken.

use serde::{Deserialize, Serialize};

const DRAWS: usize = 4000;
/// Fixed, so that the same runs give the same interval.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The median of paired ratios, and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

pub(crate) fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(match sorted.len() % 2 {
        0 => (sorted[sorted.len() / 2 - 1] + upper) / 2.0,
        _ => upper,
    })
}

/// Returns the ratio of `ours` to `theirs`, run by run; `None` if no round has both.
pub(crate) fn paired_ratio(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .filter(|(_, theirs)| **theirs > 0.0)
        .map(|(ours, theirs)| ours / theirs)
        .collect();
    let median_ratio = median(&ratios)?;
    let mut random = XorShift(SEED);
    let mut medians: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let draw: Vec<f64> = (0..ratios.len())
                .map(|_| ratios[random.below(ratios.len())])
                .collect();
            median(&draw)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    Some(Ratio {
        median: median_ratio,
        low: medians[DRAWS * 25 / 1000],
        high: medians[DRAWS * 975 / 1000 - 1],
    })
}

/// Marsaglia's xorshift64.
struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half, because the lower bits are weaker.
        (self.0 >> 32) as usize % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_it() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 2.0]), Some(3.5));
        assert_eq!(least(&[9.0, 1.0, 5.0]), Some(1.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // Conditions that double both in a round do not show.
        let theirs = [10.0, 20.0, 40.0, 10.0, 80.0];
        let ours = theirs.map(|cost| cost * 0.5);
        let ratio = paired_ratio(&ours, &theirs).expect("there are runs");
        assert_eq!(
            ratio,
            Ratio {
                median: 0.5,
                low: 0.5,
                high: 0.5
            }
        );
    }

    #[test]
    fn the_interval_holds_the_median_and_widens_with_the_spread() {
        let theirs = [1.0; 15];
        let calm: Vec<f64> = (0..15).map(|i| 0.8 + f64::from(i) * 0.001).collect();
        let rough: Vec<f64> = (0..15).map(|i| 0.5 + f64::from(i) * 0.04).collect();
        let (calm, rough) = (
            paired_ratio(&calm, &theirs).expect("there are runs"),
            paired_ratio(&rough, &theirs).expect("there are runs"),
        );
        for ratio in [calm, rough] {
            assert!(
                ratio.low < ratio.median && ratio.median < ratio.high,
                "{ratio:?}"
            );
        }
        assert!(rough.high - rough.low > 10.0 * (calm.high - calm.low));
        // One outlier in fifteen does not move the upper end.
        let mut wild = [0.8; 15];
        wild[7] = 30.0;
        assert_eq!(
            paired_ratio(&wild, &theirs).map(|ratio| ratio.high),
            Some(0.8)
        );
    }

    #[test]
    fn the_same_runs_give_the_same_interval() {
        let runs: Vec<f64> = (0..15).map(|i| 1.0 + f64::from(i % 7)).collect();
        let again = paired_ratio(&runs, &[2.0; 15]);
        assert_eq!(paired_ratio(&runs, &[2.0; 15]), again);
        assert_eq!(paired_ratio(&[], &[1.0]), None);
    }
}
