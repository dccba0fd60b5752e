//! Named places where a test lets the process die, before and after everything that touches a store or a broker.
//!
//! With `TRIREME_CRASH_POINT=name` in the environment the process aborts, without unwinding or flushing anything,
//! when it comes by that place for the first time; with `name:3`, for the third. Without it a place costs one load.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The environment variable that chooses a place.
pub const VARIABLE: &str = "TRIREME_CRASH_POINT";

/// All places, so that a test can visit each.
pub const CRASH_POINTS: &[&str] = &[
    "admit.before_store",
    "admit.after_store",
    "announce.before_store",
    "announce.after_store",
    "append.before_store",
    "append.after_store",
    "cancel.before_store",
    "cancel.after_store",
    "claim.before_store",
    "claim.after_store",
    "claim.after_hints",
    "complete.before_store",
    "complete.after_store",
    "complete.after_hints",
    "expire.before_store",
    "expire.after_store",
    "extend.before_store",
    "extend.after_store",
    "extend.after_hints",
    "fail.before_store",
    "fail.after_store",
    "fail.after_hints",
    "keep.before_store",
    "keep.after_store",
    "pause.before_store",
    "pause.after_store",
    "peek.before_store",
    "peek.after_store",
    "raise.before_store",
    "raise.after_store",
    "read.before_store",
    "read.after_store",
    "renew.before_store",
    "renew.after_store",
    "replay.before_store",
    "replay.after_store",
    "replayed.before_store",
    "replayed.after_store",
    "submit.before_store",
    "submit.after_store",
    "submit.after_hints",
    "sweep.before_store",
    "sweep.after_store",
    "sweep.after_hints",
    "wake.before_store",
    "wake.after_store",
    "wake.after_hints",
    "watch.before_store",
    "watch.after_store",
];

struct Chosen {
    name: String,
    left: AtomicU64,
}

/// Aborts the process if this place was chosen. `name` must stand in [`CRASH_POINTS`].
pub fn crash_point(name: &'static str) {
    static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?));
    debug_assert!(CRASH_POINTS.contains(&name), "crash point {name} is not in the list");
    if let Some(chosen) = chosen
        && chosen.name == name
        && chosen.left.fetch_sub(1, Relaxed) == 1
    {
        eprintln!("crash point {name}: aborting");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Chosen> {
    let (name, nth) = match text.split_once(':') {
        Some((name, nth)) => (name, nth.parse().ok()?),
        None => (text, 1),
    };
    Some(Chosen { name: name.to_owned(), left: AtomicU64::new(nth) })
}

/// Marks a place: `crash_point!("complete.after_store")`.
#[macro_export]
macro_rules! crash_point {
    ($name:expr) => {
        $crate::crash_point($name)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_a_place_and_a_visit() {
        let chosen = parse("claim.after_store:3").unwrap();
        assert_eq!((chosen.name.as_str(), chosen.left.into_inner()), ("claim.after_store", 3));
        assert_eq!(parse("claim.after_store").unwrap().left.into_inner(), 1);
        assert!(parse("claim.after_store:x").is_none());
    }
}
