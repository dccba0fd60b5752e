//! trireme-worker
