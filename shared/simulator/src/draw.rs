//! Chance without order: every draw is a function of the scenario's seed, the content asked for,
//! how often that content was asked before, and what the draw is for. So the same request draws
//! the same latency whatever else runs beside it, and a retry draws afresh.

use std::f64::consts::TAU;

/// Identity of one call as far as chance is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    seed: u64,
    content: u64,
    occurrence: u64,
}

/// A short stream of numbers for one purpose of one call.
#[derive(Debug, Clone)]
pub(crate) struct Stream(u64);

impl Draw {
    pub(crate) fn new(seed: u64, content: u64, occurrence: u64) -> Self {
        Self { seed, content, occurrence }
    }

    pub(crate) fn occurrence(&self) -> u64 {
        self.occurrence
    }

    /// Starts the stream for `purpose` (for instance `"latency"`); purposes are independent.
    pub(crate) fn stream(&self, purpose: &str) -> Stream {
        let state = [self.content, self.occurrence, hash(purpose.as_bytes())]
            .into_iter()
            .fold(mix(self.seed), |state, part| mix(state ^ part));
        Stream(state)
    }
}

impl Stream {
    /// Starts a stream from a text alone; templates use it for made-up values.
    pub(crate) fn from_text(text: &str) -> Self {
        Self(hash(text.as_bytes()))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        // 1 - unit is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

/// The prime of FNV-1a with 64 bits.
pub(crate) const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits, finalised; fixed here because answers must not change with a library version.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    mix(bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_identity_changes_the_draw() {
        let first = |draw: Draw, purpose: &str| draw.stream(purpose).next_u64();
        let base = first(Draw::new(1, 2, 3), "a");
        assert_eq!(base, first(Draw::new(1, 2, 3), "a"));
        assert_ne!(base, first(Draw::new(9, 2, 3), "a"));
        assert_ne!(base, first(Draw::new(1, 9, 3), "a"));
        assert_ne!(base, first(Draw::new(1, 2, 9), "a"));
        assert_ne!(base, first(Draw::new(1, 2, 3), "b"));
    }

    #[test]
    fn unit_and_normal_have_their_moments() {
        let mut stream = Stream::from_text("moments");
        let count = 20_000;
        let (mut sum, mut normal, mut square) = (0.0, 0.0, 0.0);
        for _ in 0..count {
            let unit = stream.unit();
            assert!((0.0..1.0).contains(&unit));
            sum += unit;
            let z = stream.normal();
            normal += z;
            square += z * z;
        }
        let count = f64::from(count);
        assert!((sum / count - 0.5).abs() < 0.01);
        assert!((normal / count).abs() < 0.03);
        assert!((square / count - 1.0).abs() < 0.05);
    }
}
