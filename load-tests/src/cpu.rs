//! CPU time by process: steadier than any wall-clock time on a machine that others use too.

use std::collections::BTreeMap;

/// Processes that share a piece of work, each by what figures call it; several may have one name.
#[derive(Clone, Debug, Default)]
pub struct Processes(pub Vec<(String, u32)>);

/// CPU seconds (user and system) by name.
#[derive(Clone, Debug, Default)]
pub struct Used(BTreeMap<String, f64>);

/// The servers that [`Processes::with_servers`] finds: their program, and what figures call them.
const SERVERS: [(&str, &str); 2] = [("beam.smp", "rabbitmq"), ("redis-server", "redis")];

impl Processes {
    /// This process as `client`, and every broker and store of the machine.
    pub fn with_servers() -> Self {
        let mut found = vec![("client".to_owned(), std::process::id())];
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let text = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let program = parse(&text).map_or("", |(program, _)| program);
            if let Some((_, name)) = SERVERS.iter().find(|(known, _)| *known == program) {
                found.push(((*name).to_owned(), pid));
            }
        }
        Self(found)
    }

    /// What each has used since its start.
    pub fn used(&self) -> Used {
        let mut used = BTreeMap::new();
        for (name, pid) in &self.0 {
            *used.entry(name.clone()).or_default() += seconds_of(*pid);
        }
        Used(used)
    }

    /// What each has used since `before` was taken.
    pub fn since(&self, before: &Used) -> Used {
        Used(self.used().0.into_iter().map(|(name, used)| (name.clone(), used - before.of(&name))).collect())
    }
}

impl Used {
    /// Seconds of the processes of this name.
    pub fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Seconds of all.
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// Names and seconds.
    pub fn each(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, seconds)| (name.as_str(), *seconds))
    }
}

/// User and system seconds of a process; 0 if it is gone.
pub fn seconds_of(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse(&text).map_or(0.0, |(_, seconds)| seconds)
}

/// CPU seconds that all processes of the machine have used, and those that it had, both since some start.
pub fn of_machine() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_machine(&text).unwrap_or_default()
}

// The first line of /proc/stat: user, nice, system, idle, waiting for disks, interrupts (two), stolen, in 1/100 s.
fn parse_machine(text: &str) -> Option<(f64, f64)> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let times = fields.map(|field| field.parse().ok()).collect::<Option<Vec<f64>>>()?;
    let all: f64 = times.iter().sum();
    let idle: f64 = times.iter().skip(3).take(2).sum();
    Some(((all - idle) / 100.0, all / 100.0))
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

    #[test]
    fn reads_what_the_machine_did() {
        let text = "cpu  100 10 40 800 50 0 0 0 7 7\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(super::parse_machine(text), Some((1.5, 10.0)));
        assert_eq!(super::parse_machine("garbage"), None);
    }
}
