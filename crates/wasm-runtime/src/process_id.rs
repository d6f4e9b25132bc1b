//! Naming a process so that a reused pid is not mistaken for it: pid and start time.

use std::io;

use serde::{Deserialize, Serialize};

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks between boot and start (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

impl ProcessId {
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (state, start_ticks) =
            parse(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat has an unknown form"))?;
        if state == 'Z' {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
        }
        Ok(Self { pid, start_ticks })
    }

    pub fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }
}

/// State and start time; the command name before them may hold anything, parentheses included.
fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_behind_the_name() {
        let check = |stat: &str, expect: Option<(char, u64)>| assert_eq!(parse(stat), expect, "{stat}");
        check("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20", Some(('S', 4242)));
        check("7 (x) Z 1 2", None);
        check("", None);
    }

    #[test]
    fn we_are_alive_and_not_somebody_else() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_ticks: own.start_ticks + 1, ..own }.is_alive());
    }
}
