//! trireme-backend-cluster

pub mod broker;
