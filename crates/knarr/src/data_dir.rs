//! A program's data directory: making it, and reading the records in it.
//!
//! Owns: the errors of both. May not know: what a record says. Records are written by [`crate::pki::write_private`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// The directory by its whole name; made if it is not there.
pub fn open(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the data directory {}", path.display()))?;
    path.canonicalize().with_context(|| format!("cannot use the data directory {}", path.display()))
}

/// A JSON file; `None` when there is none.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
}
