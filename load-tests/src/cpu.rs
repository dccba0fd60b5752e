//! CPU time by process: steadier than any wall-clock time on a machine that others use too.

use std::collections::BTreeMap;

/// CPU seconds (user and system) per program since some start.
#[derive(Clone, Debug, Default)]
pub struct Cpu(BTreeMap<&'static str, f64>);

/// The programs that are looked at: this process, the broker, the store.
pub const PROGRAMS: [&str; 3] = ["client", "beam.smp", "redis-server"];

impl Cpu {
    /// CPU time used so far; for the servers, the sum over all processes of that name.
    pub fn now() -> Self {
        let mut used: BTreeMap<_, f64> = PROGRAMS.iter().map(|program| (*program, 0.0)).collect();
        let own = std::process::id();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let text = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((name, seconds)) = parse(&text) else { continue };
            let name = if pid == own { "client" } else { name };
            if let Some(program) = PROGRAMS.iter().find(|program| **program == name) {
                *used.entry(program).or_default() += seconds;
            }
        }
        Self(used)
    }

    /// What was used since `start`.
    pub fn since(start: &Self) -> Self {
        let now = Self::now();
        Self(now.0.iter().map(|(program, used)| (*program, used - start.of(program))).collect())
    }

    /// Seconds used by one of [`PROGRAMS`].
    pub fn of(&self, program: &str) -> f64 {
        self.0.get(program).copied().unwrap_or_default()
    }

    /// Seconds used by all of them.
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }
}

/// User and system seconds of a process; 0 if it is gone.
pub fn seconds_of(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse(&text).map_or(0.0, |(_, seconds)| seconds)
}

// Fields of /proc/PID/stat: the name in parentheses, then 11 more, then user and system time in 1/100 s.
fn parse(text: &str) -> Option<(&str, f64)> {
    let (before, after) = text.rsplit_once(") ")?;
    let name = before.split_once('(')?.1;
    let mut fields = after.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((name, (user + system) / 100.0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_user_and_system_time() {
        let text = "12 (beam.smp) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 30 0 100 0 0";
        assert_eq!(super::parse(text), Some(("beam.smp", 3.0)));
        assert_eq!(super::parse("garbage"), None);
    }
}
