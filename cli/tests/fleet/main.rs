//! A fleet of real processes on RabbitMQ and Redis: the same results as one process, and what holds when
//! members leave, servers go away and come back, and processes die at every crash point.
#![allow(clippy::unwrap_used)]

#[path = "../support/support.rs"]
mod support;

mod access;
mod agents;
mod alerts;
mod crash;
mod day_two;
mod doctor;
mod metrics;
mod outputs;
mod servers;
mod story;
mod traces;
mod versions;
