//! `trireme upgrade`: lets the store move on to this version once every process knows it.

use trireme_backend_cluster::store::Upgraded;

use crate::{
    exit::{Code, Failure, note, say},
    fleet,
    settings::Settings,
};

/// Asks the store alone: hints need no upgrade.
pub async fn upgrade(settings: Settings) -> Result<(), Failure> {
    let store = fleet::store(&settings).await?;
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
