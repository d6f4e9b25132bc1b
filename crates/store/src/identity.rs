//! Who a store directory belongs to and which code may touch it. Checked before anything else is read.
//!
//! A directory without an identity holds no member, whatever else is in it that a restore left. A restored one begins
//! with an identity that names the snapshot it waits for; giving that its name is the last step, taken by whoever
//! comes next.

use std::io::{self, Read};
use std::path::Path;

use crate::log::disk::{Disk, replace};
use crate::types::MemberId;

const NAME: &str = "IDENTITY";
const SNAPSHOTS: &str = "snapshots";
const WAITING: &str = ".restored";
const FORMAT_VERSION: u32 = 2;
/// Who can read a directory of plain files, and who one in which some are sealed.
const READER_VERSION_PLAIN: u32 = 1;
const READER_VERSION_SEALED: u32 = 2;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read or write the identity of the store")]
    Io(#[from] io::Error),
    #[error(
        "the store was written by a newer version (format {version}, readable from {reader_min} on; this is {FORMAT_VERSION})"
    )]
    TooNew { version: u32, reader_min: u32 },
    #[error("the store belongs to member {found}, not to member {expected}")]
    OtherMember { found: MemberId, expected: MemberId },
    #[error("the identity of the store is damaged")]
    Damaged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    member: MemberId,
    reader_min: u32,
    /// The snapshot that has to be given its name.
    waits_for: Option<String>,
}

impl Identity {
    fn new(member: MemberId, reader_min: u32) -> Self {
        Self { member, reader_min, waits_for: None }
    }

    fn render(&self) -> String {
        let Self { member, reader_min, waits_for } = self;
        let waits = waits_for.as_ref().map_or_else(String::new, |name| format!("restored {name}\n"));
        format!("knarr store\nformat {FORMAT_VERSION}\nreader {reader_min}\nmember {member}\n{waits}")
    }

    fn write(&self, disk: &dyn Disk) -> Result<(), IdentityError> {
        Ok(replace(disk, NAME, self.render().as_bytes())?)
    }
}

/// What a snapshot is called until the directory has an identity.
pub(crate) fn waiting_name(snapshot: &str) -> String {
    format!("{snapshot}{WAITING}")
}

/// Is there no member, nor anything that one has left?
pub(crate) fn is_free(disk: &dyn Disk) -> io::Result<bool> {
    Ok(!disk.exists(NAME)? && disk.list("log")?.is_empty() && !disk.list(SNAPSHOTS)?.iter().any(|name| counts(name)))
}

/// Neither what was being written nor what waits for an identity.
fn counts(snapshot: &str) -> bool {
    !snapshot.ends_with(".tmp") && !snapshot.ends_with(WAITING)
}

/// Makes a free directory that of a member whose state is a snapshot that waits there. [`claim`] does the rest.
pub(crate) fn claim_for_restored(disk: &dyn Disk, member: MemberId, snapshot: &str) -> Result<(), IdentityError> {
    // Code that does not know what the last line says would see an empty directory.
    Identity { waits_for: Some(snapshot.to_owned()), ..Identity::new(member, READER_VERSION_SEALED) }.write(disk)
}

/// Takes possession of an empty directory, or checks that it is ours. Where files will be `sealed`, code that knows
/// nothing of it is kept out before there is one.
pub(crate) fn claim(disk: &dyn Disk, member: MemberId, sealed: bool) -> Result<(), IdentityError> {
    let reader_min = if sealed { READER_VERSION_SEALED } else { READER_VERSION_PLAIN };
    if !disk.exists(NAME)? {
        // Without this file there is nothing else, or somebody removed it.
        if !is_free(disk)? {
            return Err(IdentityError::Damaged);
        }
        for name in disk.list(SNAPSHOTS)? {
            disk.remove(&format!("{SNAPSHOTS}/{name}"))?;
        }
        return Identity::new(member, reader_min).write(disk);
    }
    let mut text = String::new();
    disk.read(NAME)?.read_to_string(&mut text)?;
    let found = parse(&text)?;
    if found.member != member {
        return Err(IdentityError::OtherMember { found: found.member, expected: member });
    }
    if let Some(snapshot) = &found.waits_for {
        let waiting = waiting_name(snapshot);
        if disk.exists(&waiting)? {
            disk.rename(&waiting, snapshot)?;
        } else if !disk.exists(snapshot)? {
            return Err(IdentityError::Damaged);
        }
        return Identity::new(member, reader_min).write(disk);
    }
    // Never lowered: a sealed file may be left.
    if found.reader_min < reader_min { Identity::new(member, reader_min).write(disk) } else { Ok(()) }
}

/// Whose store directory it is; `None` for an empty one and for one that is not there. Touches nothing.
pub fn member_of(dir: &Path) -> Result<Option<MemberId>, IdentityError> {
    match std::fs::read_to_string(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => Ok(Some(parse(&text?)?.member)),
    }
}

fn parse(text: &str) -> Result<Identity, IdentityError> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let number = |name| field(name).and_then(|value| value.parse().ok()).ok_or(IdentityError::Damaged);
    let (version, reader_min) = (number("format")?, number("reader")?);
    if reader_min > FORMAT_VERSION {
        return Err(IdentityError::TooNew { version, reader_min });
    }
    let member = field("member").and_then(|value| value.parse().ok()).ok_or(IdentityError::Damaged)?;
    let waits_for = field("restored").map(str::to_owned);
    Ok(Identity { member: MemberId(member), reader_min, waits_for })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::OsDisk;

    /// Code that cannot read sealed files is kept out from before the first one on.
    #[test]
    fn a_key_raises_the_oldest_reader_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let disk = OsDisk::open(dir.path()).unwrap();
        for (sealed, expect) in
            [(false, "reader 1\n"), (false, "reader 1\n"), (true, "reader 2\n"), (false, "reader 2\n")]
        {
            claim(&disk, MemberId(7), sealed).unwrap();
            let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
            assert!(text.contains(expect), "{text}");
        }
    }

    fn check(text: &str, expect: &str) {
        let rendered = match parse(text) {
            Ok(identity) => identity.render(),
            Err(error) => error.to_string(),
        };
        assert!(rendered.contains(expect), "{text:?}: {rendered}");
    }

    #[test]
    fn reads_ours_and_refuses_the_rest() {
        check("knarr store\nformat 1\nreader 1\nmember 7\n", "member 7");
        check("knarr store\nformat 9\nreader 1\nmember 7\nsomething new\n", "member 7");
        check("knarr store\nformat 9\nreader 3\nmembers 7\n", "newer version (format 9, readable from 3");
        check("knarr store\nformat 2\nreader 2\nmember 7\nrestored snapshots/x\n", "\nrestored snapshots/x\n");
        check("knarr store\nformat 1\nreader 1\n", "damaged");
        check("", "damaged");
    }
}
