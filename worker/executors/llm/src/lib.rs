//! trireme-llm
