//! trireme-backend-cluster
