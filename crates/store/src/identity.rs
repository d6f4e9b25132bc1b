//! Who a store directory belongs to and which code may touch it. Checked before anything else is read.

use std::io::{self, Read};

use crate::log::disk::{Disk, replace};
use crate::types::MemberId;

const NAME: &str = "IDENTITY";
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
}

impl Identity {
    fn render(&self) -> String {
        let Self { member, reader_min } = self;
        format!("knarr store\nformat {FORMAT_VERSION}\nreader {reader_min}\nmember {member}\n")
    }
}

/// Takes possession of an empty directory, or checks that it is ours. Where files will be `sealed`, code that knows
/// nothing of it is kept out before there is one.
pub(crate) fn claim(disk: &dyn Disk, member: MemberId, sealed: bool) -> Result<(), IdentityError> {
    let reader_min = if sealed { READER_VERSION_SEALED } else { READER_VERSION_PLAIN };
    if !disk.exists(NAME)? {
        // Without this file there is nothing else, or somebody removed it.
        if !disk.list("log")?.is_empty() || !disk.list("snapshots")?.is_empty() {
            return Err(IdentityError::Damaged);
        }
        return Ok(replace(disk, NAME, Identity { member, reader_min }.render().as_bytes())?);
    }
    let mut text = String::new();
    disk.read(NAME)?.read_to_string(&mut text)?;
    let found = parse(&text)?;
    if found.member != member {
        return Err(IdentityError::OtherMember { found: found.member, expected: member });
    }
    // Never lowered: a sealed file may be left.
    if found.reader_min < reader_min {
        replace(disk, NAME, Identity { reader_min, ..found }.render().as_bytes())?;
    }
    Ok(())
}

fn parse(text: &str) -> Result<Identity, IdentityError> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let number = |name| field(name).and_then(|value| value.parse().ok()).ok_or(IdentityError::Damaged);
    let (version, reader_min) = (number("format")?, number("reader")?);
    if reader_min > FORMAT_VERSION {
        return Err(IdentityError::TooNew { version, reader_min });
    }
    let member = field("member").and_then(|value| value.parse().ok()).ok_or(IdentityError::Damaged)?;
    Ok(Identity { member: MemberId(member), reader_min })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check("knarr store\nformat 1\nreader 1\n", "damaged");
        check("", "damaged");
    }
}
