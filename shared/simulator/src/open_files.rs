//! The limit on open files: each open call is a socket, and the usual soft limit of 1,024 is less
//! than what one simulator holds.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the process's soft limit on open files to its hard limit and returns what holds now.
/// Programs that serve or open thousands of calls do this once at their start.
///
/// # Errors
/// What the system says when it refuses.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    // No maximum means unlimited.
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(hard.unwrap_or(u64::MAX), raise_open_files().unwrap());
        assert_eq!(hard, getrlimit(Resource::Nofile).current);
    }
}
