//! Which process: a pid alone may have been reused, a pid with its start time may not.

use serde::{Deserialize, Serialize};

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks since boot: field 22 of `/proc/<pid>/stat`, see proc(5).
    pub start_time: u64,
}

impl Identity {
    /// The process with this pid, if there is one that has not ended.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_time) = parse_stat(&stat)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, start_time })
    }

    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }
}

/// State letter and start time. The command name may contain blanks and parentheses, so fields
/// are counted from the last closing one.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_state_and_start_time_behind_any_name() {
        let tail = "S 1 2 3 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200";
        for name in ["sh", "a b", "x) S 1 (y"] {
            assert_eq!(parse_stat(&format!("42 ({name}) {tail}")), Some(('S', 98765)), "{name}");
        }
        assert_eq!(parse_stat("42 (sh"), None);
    }

    #[test]
    fn knows_itself_but_not_an_earlier_one() {
        let me = Identity::of(std::process::id() as i32).expect("this process is alive");
        assert!(me.is_alive());
        assert!(!Identity { start_time: me.start_time + 1, ..me }.is_alive());
    }
}
