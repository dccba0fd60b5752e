//! trireme-tool
