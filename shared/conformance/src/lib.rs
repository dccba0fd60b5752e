//! trireme-conformance
