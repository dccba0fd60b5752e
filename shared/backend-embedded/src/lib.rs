//! trireme-backend-embedded
