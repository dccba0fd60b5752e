use std::sync::Arc;

use prometheus::Registry;
use trireme_backend::Error;
use trireme_model::{Claim, RunId, TaskId};
use trireme_test_servers::PrivateRedis;

use super::{Gauges, Metrics};
use crate::store::{Config, SCRIPTS, Store};

async fn claim(store: &Store) -> Result<trireme_model::Claimed, Error> {
    let (run, task) = (RunId::new("nobody").unwrap(), TaskId::new("a").unwrap());
    store.claim(Claim { run, task, claim: "c".into(), has_input: true }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_back_when_it_is_restarted_or_emptied_and_not_at_its_first_start() {
    let mut server = PrivateRedis::start(&[]).unwrap();
    let registry = Registry::new();
    let metrics = Metrics::new(SCRIPTS).unwrap();
    metrics.register(&registry).unwrap();
    let value = |series: &str| {
        let text = trireme_telemetry::encode(&registry);
        let line =
            text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{text}"));
        line.trim().parse::<u64>().unwrap()
    };
    let config = Config { metrics: Some(metrics.clone()), ..Config::new(server.url(), "t") };
    let store = Store::connect(config.clone(), Arc::new(|_| {})).await.unwrap();
    claim(&store).await.unwrap();
    let second = Store::connect(config.clone(), Arc::new(|_| {})).await.unwrap();
    assert_eq!(value("trireme_store_regressions_total"), 0);
    assert_eq!(value(r#"trireme_store_roundtrip_seconds_count{op="claim"}"#), 1);

    server.restart().unwrap();
    // both meet the new server, one of them begins the epoch
    store.health().await.unwrap();
    second.health().await.unwrap();
    assert_eq!(value("trireme_store_regressions_total"), 1);

    // a process that starts meets a server that another one had not seen before either
    server.restart().unwrap();
    let third = Store::connect(config, Arc::new(|_| {})).await.unwrap();
    assert_eq!(value("trireme_store_regressions_total"), 2);
    for store in [&store, &second, &third] {
        store.health().await.unwrap();
    }

    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    // whoever reads without finding an epoch begins one
    store.events(&RunId::new("nobody").unwrap(), 0, 1).await.unwrap_err();
    assert_eq!(value("trireme_store_regressions_total"), 3);
}

#[test]
fn pools_over_the_bound_are_told_as_other() {
    let registry = Registry::new();
    let gauges = Gauges::register(&registry, &[]).unwrap();
    for pool in 0..100 {
        gauges.pool(&format!("pool-{pool}"));
    }
    assert_eq!(gauges.pools().len(), 64);
    assert_eq!((gauges.pool("pool-7"), gauges.pool("pool-70")), ("pool-7", "other"));
}
