//! What agents do between two calls: plans, histories, signs of being stuck, elided outputs. Pure: no I/O, no clock.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod canonical;
pub mod elide;
pub mod history;
pub mod plan;
pub mod prompt;
pub mod record;
pub mod repair;
pub mod stuck;
pub mod work;

pub use canonical::{call_key, canonical, result_key};
pub use work::{Arguments, Finish, Work};
