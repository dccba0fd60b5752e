//! `trireme upgrade`: lets the store move on to this version once every process knows it.

use std::sync::Arc;

use trireme_backend_cluster::store::{Config, Store, Upgraded};

use crate::{
    exit::{Code, Failure, note, say},
    settings::Settings,
};

/// Asks the store alone: hints need no upgrade.
pub async fn upgrade(settings: Settings) -> Result<(), Failure> {
    let cluster = settings.cluster().map_err(|error| Failure::usage(format!("{error:#}")))?;
    let config = Config {
        shards: cluster.shards,
        connections: 2,
        timeout: cluster.redis_timeout,
        tls: cluster.redis_tls,
        ..Config::new(cluster.redis_url, cluster.prefix)
    };
    let store = Store::connect(config, Arc::new(|_| ())).await?;
    let upgraded = store.upgrade().await;
    store.close().await;
    match upgraded? {
        Upgraded::To(layout) => {
            say(format_args!("layout {layout}"));
            Ok(())
        }
        Upgraded::Refused(layout, behind) => {
            for member in &behind {
                note(format_args!("  {} {} reads layouts {}", member.role, member.version, member.spoken));
            }
            let count = behind.len();
            Err(Failure::new(
                Code::RunFailed,
                format!("{count} processes do not know layout {layout}: replace them"),
            ))
        }
    }
}
