//! A watch sees every revision after the one it began at, each once, in order and without a gap, unless it is told
//! that it fell behind.

use crate::record::{Record, Watched};

fn faults_of(watched: &[Watched]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut at = 0;
    let mut keys: Vec<&str> = Vec::new();
    for seen in watched {
        match seen {
            Watched::From(revision) | Watched::Lagged(revision) => {
                at = *revision;
                keys.clear();
                // The revision it begins after is complete.
                keys.push("");
            }
            Watched::Event(revision, key, _) if *revision == at && !keys.contains(&"") => {
                if keys.contains(&key.as_str()) {
                    faults.push(format!("{key} twice at {revision}"));
                }
                keys.push(key);
            }
            Watched::Event(revision, key, _) => {
                if *revision != at + 1 {
                    faults.push(format!("{revision} after {at}"));
                }
                at = *revision;
                keys.clear();
                keys.push(key);
            }
        }
    }
    faults
}

pub fn check(record: &Record) -> Vec<String> {
    let watches = record.watches.iter();
    let faults = watches.flat_map(|((member, incarnation), watched)| {
        let at = format!("member {member} ({incarnation})");
        faults_of(watched).into_iter().map(move |fault| format!("{at}: {fault}"))
    });
    faults.collect()
}

#[cfg(test)]
mod tests {
    use super::super::given::{event, watched};
    use super::*;

    #[test]
    fn finds_gaps_repeats_and_steps_back() {
        let faults = |seen: Vec<Watched>| check(&watched(&[(1, seen)])).len();
        let from = || Watched::From(4);
        assert_eq!(faults(vec![from(), event(5, "a", "1"), event(5, "b", "1"), event(6, "a", "")]), 0);
        assert_eq!(faults(vec![from(), event(5, "a", "1"), Watched::Lagged(9), event(10, "a", "")]), 0);
        assert_eq!(faults(vec![from(), event(6, "a", "1")]), 1, "a gap");
        assert_eq!(faults(vec![from(), event(4, "a", "1")]), 1, "what was before");
        assert_eq!(faults(vec![from(), event(5, "a", "1"), event(5, "a", "1")]), 1, "twice");
        assert_eq!(faults(vec![from(), event(5, "a", "1"), event(6, "a", "1"), event(5, "b", "1")]), 1, "back");
    }
}
