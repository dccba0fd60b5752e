//! The text of `/metrics`.

use prometheus::{Encoder, Registry, TextEncoder};

/// The media type of what [`encode`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of histogram buckets in seconds, 1 ms to 30 min: one set for all durations, so that they can
/// be compared in one graph.
pub const BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

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
