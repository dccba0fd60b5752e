//! How long an ended run is kept, and runs that are forgotten before.

use serde_json::json;
use trireme_model::{Deleted, FailureClass, Keep, Submit, limits::LINGER_MS};

use crate::stage::Stage;

pub(crate) async fn is_the_runs_own_and_failed_ones_may_have_another(stage: Stage) {
    let Some(advance) = stage.subject.advance.clone() else { return };
    let keep = Keep { ended: LINGER_MS, failed: 3 * LINGER_MS };
    for name in ["good", "bad"] {
        let request = Submit { keep, ..stage.request(name, stage.draw().tool("a", &[])) };
        stage.backend().submit(request).await.unwrap();
    }
    let (good, bad) = (stage.run_id("good"), stage.run_id("bad"));
    stage.does(&good, "a", json!(1)).await;
    let failing = stage.take(&bad, "a").await;
    stage.fails(&failing, FailureClass::Permanent).await;
    let known = async || {
        stage.sweep().await;
        let known = async |run| stage.backend().summary(run).await.unwrap().is_some();
        (known(&good).await, known(&bad).await)
    };
    advance(LINGER_MS - 1);
    assert_eq!(known().await, (true, true));
    advance(1);
    assert_eq!(known().await, (false, true));
    advance(2 * LINGER_MS - 1);
    assert_eq!(known().await, (false, true));
    advance(1);
    assert_eq!(known().await, (false, false));
}

pub(crate) async fn ends_when_the_run_is_deleted(stage: Stage) {
    let run = stage.submit(stage.draw().tool("a", &[])).await;
    assert_eq!(stage.backend().delete(&run).await.unwrap(), Deleted::Running);
    stage.does(&run, "a", json!("x".repeat(100_000))).await;
    assert_eq!(stage.backend().delete(&run).await.unwrap(), Deleted::Deleted);
    assert_eq!(stage.backend().delete(&run).await.unwrap(), Deleted::Gone);
    assert_eq!(stage.backend().run(&run).await.unwrap(), None);
    assert_eq!(stage.backend().events(&run, 0, 1).await.unwrap(), None);
}
