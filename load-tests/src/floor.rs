//! The raw floor: what RabbitMQ and Redis cost by themselves, used as well as we know how and for nothing else.
//!
//! Per task: one publish (confirms in flight), one delivery, one small script, one ack (several in one frame).
//! A run of our own engine is held against these figures, taken in the same run on the same machine.

pub mod amqp;
mod shapes;
mod steps;

pub use shapes::{FanOut, Single, fan_out, single};
pub use steps::steps;

use lapin::types::{AMQPValue, FieldTable};

/// How messages are kept.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Its name in tables.
    pub name: &'static str,
    /// Value of `x-queue-type`.
    pub queue_type: &'static str,
    /// Value of `x-queue-version`, for classic queues only.
    pub version: Option<i32>,
    /// Delivery mode 2.
    pub persistent: bool,
}

/// Classic queue, messages not written to disk.
pub const TRANSIENT: Mode =
    Mode { name: "classic transient", queue_type: "classic", version: None, persistent: false };
/// Classic queue, messages written to disk.
pub const PERSISTENT: Mode =
    Mode { name: "classic persistent", queue_type: "classic", version: None, persistent: true };
/// Classic queue with the second storage version (always lazy), messages not marked persistent.
pub const TRANSIENT_V2: Mode =
    Mode { name: "classic v2 transient", queue_type: "classic", version: Some(2), persistent: false };
/// Quorum queue: always on disk.
pub const QUORUM: Mode = Mode { name: "quorum", queue_type: "quorum", version: None, persistent: true };

impl Mode {
    /// All that are measured.
    pub const ALL: [Self; 4] = [TRANSIENT, TRANSIENT_V2, PERSISTENT, QUORUM];

    fn arguments(self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(self.queue_type.into()));
        if let Some(version) = self.version {
            arguments.insert("x-queue-version".into(), AMQPValue::LongInt(version));
        }
        arguments
    }
}
