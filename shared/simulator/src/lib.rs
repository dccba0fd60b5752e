//! trireme-simulator
