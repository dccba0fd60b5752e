//! Medians, and how sure a ratio of them is.

/// Resamples of one interval: the 2.5th percentile of 4,000 is known to a fifth of its distance from the median.
const RESAMPLES: usize = 4000;

/// A number and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// From the data as they are.
    pub value: f64,
    /// 2.5th percentile of the resamples.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (len, half) if len % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The value at or below which `share` (0 to 1) of the values lie, the nearest one; NaN of nothing.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// median(`slow`) / median(`fast`) over pairs (same index, same item), with a bootstrap interval that draws items.
pub fn ratio_of_medians(slow: &[f64], fast: &[f64], seed: u64) -> Interval {
    let count = slow.len().min(fast.len());
    let (slow, fast) = (&slow[..count], &fast[..count]);
    let value = median(slow) / median(fast);
    if count == 0 {
        return Interval { value, low: f64::NAN, high: f64::NAN };
    }
    let mut random = Random::new(seed);
    let mut ratios = Vec::with_capacity(RESAMPLES);
    let (mut above, mut below) = (vec![0.0; count], vec![0.0; count]);
    for _ in 0..RESAMPLES {
        for at in 0..count {
            let item = random.below(count as u64) as usize;
            above[at] = slow[item];
            below[at] = fast[item];
        }
        ratios.push(median(&above) / median(&below));
    }
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((share * RESAMPLES as f64) as usize).min(RESAMPLES - 1)];
    Interval { value, low: at(0.025), high: at(0.975) }
}

/// SplitMix64: repeatable numbers that do not change with a library's version.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number under `bound`, which is over 0. The bias is under 1e-12 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// A number from 0 to under 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `from`, which is not empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(2.0, median(&[3.0, 1.0, 2.0]));
        assert_eq!(2.5, median(&[4.0, 1.0, 2.0, 3.0]));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quantiles() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([1.0, 90.0, 99.0, 100.0], [0.0, 0.9, 0.99, 1.0].map(|share| quantile(&hundred, share)));
        // Of few values the 99th percentile is the largest.
        assert_eq!(3.0, quantile(&[3.0, 1.0, 2.0], 0.99));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_constant_ratio_has_no_width() {
        let fast: Vec<f64> = (1..=50).map(f64::from).collect();
        let slow: Vec<f64> = fast.iter().map(|value| value * 3.0).collect();
        let interval = ratio_of_medians(&slow, &fast, 1);
        assert_eq!((3.0, 3.0, 3.0), (interval.value, interval.low, interval.high));
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        let mut random = Random::new(7);
        let mut unit = || random.unit();
        let mut covered = 0;
        for round in 0..100 {
            // Medians 2 and 1.
            let slow: Vec<f64> = (0..30).map(|_| 1.5 + unit()).collect();
            let fast: Vec<f64> = (0..30).map(|_| 0.5 + unit()).collect();
            let interval = ratio_of_medians(&slow, &fast, round);
            covered += usize::from((interval.low..=interval.high).contains(&2.0));
        }
        // 95 expected; a binomial lies within 87 and 100 in all but two of a thousand cases.
        assert!((87..=100).contains(&covered), "{covered} of 100");
    }

    #[test]
    fn the_seed_decides() {
        let (slow, fast) = ([3.0, 5.0, 9.0, 4.0, 6.0], [1.0, 2.0, 3.0, 2.5, 1.5]);
        assert_eq!(ratio_of_medians(&slow, &fast, 1), ratio_of_medians(&slow, &fast, 1));
        assert!(ratio_of_medians(&slow, &fast, 1).low < ratio_of_medians(&slow, &fast, 1).high);
    }
}
