//! trireme-coordinator
