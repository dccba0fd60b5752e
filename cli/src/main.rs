//! The `trireme` command.
fn main() {}
