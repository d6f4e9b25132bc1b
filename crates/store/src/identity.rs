//! Who a store directory belongs to and which code may touch it. Checked before anything else is read.

use std::io::{self, Read};

use crate::log::disk::{Disk, replace};
use crate::types::MemberId;

const NAME: &str = "IDENTITY";
const FORMAT_VERSION: u32 = 1;
const READER_VERSION_MIN: u32 = 1;

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

/// Takes possession of an empty directory, or checks that it is ours.
pub(crate) fn claim(disk: &dyn Disk, member: MemberId) -> Result<(), IdentityError> {
    if !disk.exists(NAME)? {
        // Without this file there is nothing else, or somebody removed it.
        if !disk.list("log")?.is_empty() || !disk.list("snapshots")?.is_empty() {
            return Err(IdentityError::Damaged);
        }
        let text = format!("knarr store\nformat {FORMAT_VERSION}\nreader {READER_VERSION_MIN}\nmember {member}\n");
        return Ok(replace(disk, NAME, text.as_bytes())?);
    }
    let mut text = String::new();
    disk.read(NAME)?.read_to_string(&mut text)?;
    let found = parse(&text)?;
    if found != member {
        return Err(IdentityError::OtherMember { found, expected: member });
    }
    Ok(())
}

fn parse(text: &str) -> Result<MemberId, IdentityError> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let number = |name| field(name).and_then(|value| value.parse().ok()).ok_or(IdentityError::Damaged);
    let (version, reader_min) = (number("format")?, number("reader")?);
    if reader_min > FORMAT_VERSION {
        return Err(IdentityError::TooNew { version, reader_min });
    }
    let member = field("member").and_then(|value| value.parse().ok()).ok_or(IdentityError::Damaged)?;
    Ok(MemberId(member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let rendered = match parse(text) {
            Ok(member) => format!("member {member}"),
            Err(error) => error.to_string(),
        };
        assert!(rendered.contains(expect), "{text:?}: {rendered}");
    }

    #[test]
    fn reads_ours_and_refuses_the_rest() {
        check("knarr store\nformat 1\nreader 1\nmember 7\n", "member 7");
        check("knarr store\nformat 9\nreader 1\nmember 7\nsomething new\n", "member 7");
        check("knarr store\nformat 9\nreader 2\nmembers 7\n", "newer version (format 9, readable from 2");
        check("knarr store\nformat 1\nreader 1\n", "damaged");
        check("", "damaged");
    }
}
