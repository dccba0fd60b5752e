//! A fleet of real processes on RabbitMQ and Redis: the same results as one process, and what holds when
//! members leave, servers go away and come back, and processes die at every crash point.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod crash;
mod outputs;
mod servers;
mod story;
