//! Which member of which cluster a data directory belongs to.
//!
//! Owns: the file `<data-dir>/member.json`. A directory without it
//! belongs to whom its state belongs, or is to be that of the founder, member 1.
//! May not know: certificates, the store.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use store::MemberId;

use crate::data_dir::read_record;
use crate::pki::write_private;

const FILE: &str = "member.json";
const FOUNDER: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRecord {
    id: u64,
    /// False between being enrolled and being let in.
    joined: bool,
    /// Whose place it takes, until it is let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<u64>,
}

impl MemberRecord {
    pub fn founder() -> Self {
        Self::of(MemberId(FOUNDER))
    }

    /// A member that a data directory is of.
    pub fn of(member: MemberId) -> Self {
        Self { id: member.0, joined: true, replaces: None }
    }

    /// A newcomer that was given an id.
    pub fn enrolled(id: u64, replaces: Option<u64>) -> Self {
        Self { id, joined: false, replaces }
    }

    #[must_use]
    pub fn let_in(self) -> Self {
        Self { joined: true, replaces: None, ..self }
    }

    pub fn id(&self) -> MemberId {
        MemberId(self.id)
    }

    pub fn is_joined(&self) -> bool {
        self.joined
    }

    pub fn replaces(&self) -> Option<u64> {
        self.replaces
    }

    /// `None` when the directory has no such file.
    pub fn read(data_dir: &Path) -> Result<Option<Self>> {
        read_record(&path(data_dir))
    }

    pub fn write(&self, data_dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context("cannot encode the member record")?;
        write_private(&path(data_dir), &text).context("cannot write down which member this is")
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_until_it_is_let_in_and_after() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(MemberRecord::read(dir.path()).unwrap(), None);
        let record = MemberRecord::enrolled(4, Some(2));
        record.write(dir.path()).unwrap();
        assert_eq!(MemberRecord::read(dir.path()).unwrap(), Some(record));
        let record = record.let_in();
        record.write(dir.path()).unwrap();
        let read = MemberRecord::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.id().0, read.is_joined(), read.replaces()), (4, true, None));
        std::fs::write(path(dir.path()), "{").unwrap();
        assert!(MemberRecord::read(dir.path()).unwrap_err().to_string().contains("is damaged"));
    }
}
