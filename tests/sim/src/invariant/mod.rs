//! What must hold in every run, whatever was broken on the way. One file each: a name, a reason, a function from
//! the record to what is wrong with it.

pub mod acked_write_survives;
pub mod client_order;
pub mod compaction_hides_nothing;
pub mod leadership;
pub mod linearizability;
pub mod log_matching;
pub mod members_agree;
pub mod watch_in_order;

use crate::record::Record;

type Check = fn(&Record) -> Vec<String>;

pub const INVARIANTS: &[(&str, Check)] = &[
    ("acked write survives", acked_write_survives::check),
    ("a client's revision never goes back", client_order::check),
    ("compaction hides nothing", compaction_hides_nothing::check),
    ("leadership only moves on", leadership::check),
    ("linearizability", linearizability::check),
    ("logs match", log_matching::check),
    ("members agree", members_agree::check),
    ("watches see each revision once and in order", watch_in_order::check),
];

/// Everything that is wrong.
pub fn check(record: &Record) -> Vec<String> {
    let broken = INVARIANTS
        .iter()
        .flat_map(|(name, check)| check(record).into_iter().take(5).map(move |what| format!("{name}: {what}")));
    record.failures.iter().cloned().chain(broken).collect()
}

#[cfg(test)]
pub(crate) mod given {
    //! Small records to try the checks on.

    use crate::linearizable::Action;
    use crate::record::{Done, Final, Record, Watched};

    pub fn event(revision: u64, key: &str, value: &str) -> Watched {
        Watched::Event(revision, key.to_owned(), (!value.is_empty()).then(|| value.to_owned()))
    }

    pub fn watched(streams: &[(u64, Vec<Watched>)]) -> Record {
        let watches = streams.iter().map(|(member, seen)| ((*member, 1), seen.clone())).collect();
        Record { watches, ..Record::default() }
    }

    pub fn done(client: usize, action: Action, invoked: u64, returned: Option<(u64, u64)>) -> Done {
        Done { client, member: 1, key: "k".to_owned(), action, invoked, returned }
    }

    /// `entries`: key, value, revisions of creation and of the last change.
    pub fn last(member: u64, revision: u64, entries: &[(&str, &str, u64, u64)]) -> Final {
        let entries = entries
            .iter()
            .map(|(key, value, create, change)| ((*key).to_owned(), ((*value).to_owned(), *create, *change)));
        Final { member, revision, membership: vec![(1, true)], entries: entries.collect() }
    }
}
