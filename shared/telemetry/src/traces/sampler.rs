//! Which runs are traced. Decided once per run, when it is accepted; everybody else does as the trace says.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use trireme_model::Trace;

/// New traces a second where nothing says which runs to trace. A span per attempt is a tenth of what the least of tasks
/// costs (`bench observation --ratio 1`); this many runs are more than anybody looks at.
pub(super) const PER_SECOND: u32 = 50;

/// A bound on new traces: so many a second, and as many at once.
pub(super) struct Limit {
    per_second: f64,
    /// What is left, and since when.
    left: Mutex<(f64, Instant)>,
}

impl Limit {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: Mutex::new((per_second, Instant::now())) }
    }

    /// Whether there is one more at this time.
    pub(super) fn take(&self, now: Instant) -> bool {
        // nothing can panic while the lock is held
        let mut held = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *held;
        let passed = now.saturating_duration_since(since).as_secs_f64();
        let left = (left + passed * self.per_second).min(self.per_second);
        let taken = left >= 1.0;
        *held = (if taken { left - 1.0 } else { left }, now.max(since));
        taken
    }
}

/// The samplers of the OpenTelemetry specification that `OTEL_TRACES_SAMPLER` names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// What a request's own trace says is followed.
    pub(super) parent: bool,
    /// Share of the others that is kept, 0 to 1.
    pub(super) ratio: f64,
}

impl Sampler {
    /// By its standard name; `argument` is the share of a `traceidratio`, 1 where it is missing.
    pub(super) fn named(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let ratio = || match argument {
            None => Ok(1.0),
            Some(text) => share(text)
                .ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG: {text:?} is no number from 0 to 1")),
        };
        let (parent, rest) = match name.strip_prefix("parentbased_") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let ratio = match rest {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => ratio()?,
            _ => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER: {name:?} is unknown; use always_on, always_off, traceidratio, \
                     parentbased_always_on, parentbased_always_off or parentbased_traceidratio"
                ));
            }
        };
        Ok(Self { parent, ratio })
    }

    /// The trace of a run whose request came with `given`.
    pub(super) fn decide(&self, given: Option<Trace>) -> Option<Trace> {
        match given {
            Some(trace) if self.parent => Some(trace),
            Some(trace) => Some(Trace { sampled: self.keeps(trace.id), ..trace }),
            None => {
                // 0 is no trace
                let id = rand::random::<u128>().max(1);
                self.keeps(id).then_some(Trace { id, parent: 0, sampled: true })
            }
        }
    }

    /// As the SDKs of other languages decide: by the lower 63 bits of the id.
    fn keeps(&self, id: u128) -> bool {
        let bound = (self.ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        ((id as u64) >> 1) < bound
    }
}

/// A number from 0 to 1.
pub(super) fn share(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_standard_names_are_understood() {
        for (name, argument, parent, ratio) in [
            ("always_on", None, false, 1.0),
            ("always_off", Some("x"), false, 0.0),
            ("traceidratio", Some("0.25"), false, 0.25),
            ("parentbased_always_on", None, true, 1.0),
            ("parentbased_always_off", None, true, 0.0),
            ("parentbased_traceidratio", None, true, 1.0),
        ] {
            assert_eq!(Sampler::named(name, argument), Ok(Sampler { parent, ratio }), "{name}");
        }
        assert!(Sampler::named("jaeger_remote", None).unwrap_err().contains("parentbased_always_on"));
        assert!(Sampler::named("traceidratio", Some("2")).unwrap_err().contains("0 to 1"));
    }

    #[test]
    fn a_limit_lets_a_burst_and_then_so_many_a_second_through() {
        let limit = Limit::new(10);
        let start = Instant::now();
        let taken = |ms: u64| (0..100).filter(|_| limit.take(start + Duration::from_millis(ms))).count();
        assert_eq!([taken(0), taken(0), taken(500), taken(400), taken(60_000)], [10, 0, 5, 0, 10]);
    }

    #[test]
    fn a_caller_decides_only_where_the_sampler_lets_it() {
        let given = |sampled| Some(Trace { id: 7, parent: 3, sampled });
        let follows = Sampler { parent: true, ratio: 0.0 };
        assert_eq!(follows.decide(given(true)), given(true));
        assert_eq!(follows.decide(given(false)), given(false));
        assert_eq!(follows.decide(None), None);
        let all = Sampler { parent: false, ratio: 1.0 };
        assert_eq!(all.decide(given(false)), given(true));
        assert!(all.decide(None).is_some_and(|trace| trace.sampled && trace.parent == 0 && trace.id != 0));
        assert_eq!(Sampler { parent: false, ratio: 0.0 }.decide(given(true)), given(false));
    }

    #[test]
    fn a_share_is_kept_and_always_the_same_one() {
        let half = Sampler { parent: true, ratio: 0.5 };
        let ids: Vec<u128> = (0..10_000_u128)
            .map(|at| (at << 64) | u128::from((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let kept = ids.iter().filter(|id| half.keeps(**id)).count();
        assert!((4_700..5_300).contains(&kept), "{kept}");
        // whoever keeps a smaller share keeps a part of it
        let tenth = Sampler { ratio: 0.1, ..half };
        assert!(ids.iter().filter(|id| tenth.keeps(**id)).all(|id| half.keeps(*id)));
    }
}
