//! trireme-spec
