//! What metrics of all processes have in common: buckets, what runs, bounded labels, the text of `/metrics`.

use std::sync::{Arc, PoisonError, RwLock};

use ahash::HashMap;
use prometheus::{Encoder, IntGauge, Opts, Registry, TextEncoder};

/// The media type of what [`encode`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of histogram buckets in seconds, 1 ms to 30 min: one set for all durations, so that they can
/// be compared in one graph.
pub const BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The name under which everything over a [`Bounded`]'s limit is counted.
pub const OTHER: &str = "other";

/// Metrics by a name that others choose (of a pool, of a model), so that their number needs a bound. Keeping the
/// children spares looking them up by their labels each time.
pub struct Bounded<T> {
    children: RwLock<HashMap<String, Arc<T>>>,
    limit: usize,
    make: Box<dyn Fn(&str) -> T + Send + Sync>,
}

impl<T> Bounded<T> {
    /// At most `limit` names, for each what `make` gives; all others share [`OTHER`].
    pub fn new(limit: usize, make: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        Self { children: RwLock::default(), limit, make: Box::new(make) }
    }

    /// The child of `name`.
    pub fn get(&self, name: &str) -> Arc<T> {
        // a panic of `make` leaves the table as it was
        if let Some(child) = self.children.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return child.clone();
        }
        let mut children = self.children.write().unwrap_or_else(PoisonError::into_inner);
        let full = children.len() - usize::from(children.contains_key(OTHER)) >= self.limit;
        let name = if full && !children.contains_key(name) { OTHER } else { name };
        children.entry(name.to_owned()).or_insert_with(|| Arc::new((self.make)(name))).clone()
    }
}

impl<T> std::fmt::Debug for Bounded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Registers `trireme_build_info`, always 1: `process` (`coordinator`, `worker` or `dev`), its version, and the
/// revision it was built from (`TRIREME_REVISION` at build time, as the Dockerfile sets it).
pub fn build_info(registry: &Registry, process: &str) -> Result<(), prometheus::Error> {
    let opts = Opts::new("trireme_build_info", "What runs: version, revision and process; always 1.")
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("revision", option_env!("TRIREME_REVISION").unwrap_or("unknown"))
        .const_label("process", process);
    let info = IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}

/// Everything in `registry` in Prometheus' text format. What can't be written is left out and logged.
pub fn encode(registry: &Registry) -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::warn!(%error, "some metrics could not be written");
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_over_the_bound_share_one_child() {
        let bounded = Bounded::new(2, str::to_owned);
        let names = ["a", "b", "c", "a", "d", "other", "b"].map(|name| bounded.get(name).as_str().to_owned());
        assert_eq!(names, ["a", "b", OTHER, "a", OTHER, OTHER, "b"]);
    }

    #[test]
    fn the_build_says_what_it_is() {
        let registry = Registry::new();
        build_info(&registry, "worker").unwrap();
        let text = encode(&registry);
        let line = text.lines().find(|line| line.starts_with("trireme_build_info{")).unwrap();
        assert!(
            line.contains(r#"process="worker""#) && line.contains("version=") && line.ends_with(" 1"),
            "{line}"
        );
    }

    #[test]
    fn metrics_are_text_with_help_and_value() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("oars_total", "Oars broken.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let text = encode(&registry);
        assert!(text.contains("# HELP oars_total Oars broken."), "{text}");
        assert!(text.contains("\noars_total 3\n"), "{text}");
    }
}
