//! The embedded backend does what every backend must do.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use trireme_backend_embedded::{Clock, Config, Embedded};
use trireme_conformance::{Subject, exercise};

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    exercise(async |_| {
        let (clock, hand) = Clock::manual(1_700_000_000_000);
        let backend = Embedded::new(Config { clock, ..Config::default() });
        Subject {
            backend: Arc::new(backend),
            advance: Some(Arc::new(move |by| hand.advance(by))),
            clean: None,
        }
    })
    .await;
}
