//! Which native code goes because nobody uses it.
//!
//! Owns: when code counts as used (the time of its `.json`, which every use sets), and what a directory may be rid of.
//! Code that goes is had again from where it came from; a guest that runs has its file open and goes on. Pure, but for
//! reading the directory and removing files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A use is written down this often: it is not about minutes.
const NOTED_EVERY: Duration = Duration::from_secs(600);
/// What is not whole may be about to be, for as long as a compiler can take.
const UNFINISHED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: String,
    changed: SystemTime,
    bytes: u64,
}

/// Removes code that was not used for so long, but for that of the Wasm files with these digests. Answers the bytes.
pub fn expire(dir: &Path, in_use: &BTreeSet<String>, unused_for: Duration, now: SystemTime) -> io::Result<u64> {
    let found = list(dir)?;
    let gone = plan(&found, in_use, unused_for, now);
    let mut bytes = 0;
    for file in gone {
        match std::fs::remove_file(dir.join(&file.name)) {
            Ok(()) => bytes += file.bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Says that the code with this description is used. An old time is no reason to refuse it.
pub fn note_use(sidecar: &Path, now: SystemTime) {
    let noted = || -> io::Result<()> {
        let file = File::options().write(true).open(sidecar)?;
        let before = file.metadata()?.modified()?;
        let is_old = now.duration_since(before).is_ok_and(|age| age >= NOTED_EVERY);
        if is_old { file.set_modified(now) } else { Ok(()) }
    };
    if let Err(error) = noted() {
        tracing::debug!(file = %sidecar.display(), %error, "the use of native code is not noted");
    }
}

fn list(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // It may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        if metadata.is_file() {
            found.push(Found { name, changed: metadata.modified()?, bytes: metadata.len() });
        }
    }
    Ok(found)
}

/// The description of each goes before the code, so that no half is taken for a whole.
fn plan<'a>(found: &'a [Found], in_use: &BTreeSet<String>, unused_for: Duration, now: SystemTime) -> Vec<&'a Found> {
    let older = |file: &Found, than: Duration| now.duration_since(file.changed).is_ok_and(|age| age >= than);
    let stem = |file: &'a Found, suffix: &str| file.name.strip_suffix(suffix);
    let sidecars: BTreeMap<&str, &Found> = found.iter().filter_map(|file| Some((stem(file, ".json")?, file))).collect();
    let digest = |stem: &str| format!("sha256:{}", stem.split('-').next().unwrap_or_default());
    let goes = |stem: &str, sidecar: &Found| older(sidecar, unused_for) && !in_use.contains(&digest(stem));
    let mut gone: Vec<&Found> =
        sidecars.iter().filter(|(stem, file)| goes(stem, file)).map(|(_, file)| *file).collect();
    for file in found {
        let is_gone = match stem(file, ".cwasm") {
            Some(stem) => match sidecars.get(stem) {
                Some(sidecar) => goes(stem, sidecar),
                None => older(file, UNFINISHED_FOR),
            },
            None => file.name.contains(".cwasm.tmp-") && older(file, UNFINISHED_FOR),
        };
        if is_gone {
            gone.push(file);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn what_goes() {
        let now = SystemTime::now();
        // Files as `name days`, digests in use, and what goes after ten days.
        let check = |files: &[(&str, u32)], in_use: &[&str], expect: &[&str]| {
            let file =
                |(name, days): &(&str, u32)| Found { name: (*name).to_owned(), changed: now - DAY * *days, bytes: 1 };
            let found: Vec<Found> = files.iter().map(file).collect();
            let in_use = in_use.iter().map(|hex| format!("sha256:{hex}")).collect();
            let gone: Vec<&str> = plan(&found, &in_use, DAY * 10, now).iter().map(|file| file.name.as_str()).collect();
            assert_eq!(gone, expect, "{files:?}");
        };
        check(&[("a-1.cwasm", 30), ("a-1.json", 30)], &[], &["a-1.json", "a-1.cwasm"]);
        check(&[("a-1.cwasm", 30), ("a-1.json", 30)], &["a"], &[]);
        // It was used: its description says so, the code is as old as it is.
        check(&[("a-1.cwasm", 30), ("a-1.json", 9)], &[], &[]);
        check(&[("a-1.cwasm", 30), ("a-1.json", 10)], &["b"], &["a-1.json", "a-1.cwasm"]);
        // Of another engine, of the same file.
        check(
            &[("a-1.json", 30), ("a-1.cwasm", 30), ("a-2.json", 1), ("a-2.cwasm", 1)],
            &[],
            &["a-1.json", "a-1.cwasm"],
        );
        // What is not whole.
        check(
            &[("a-1.cwasm", 0), ("b-1.cwasm", 2), ("c-1.cwasm.tmp-7", 0), ("d-1.cwasm.tmp-7", 1)],
            &[],
            &["b-1.cwasm", "d-1.cwasm.tmp-7"],
        );
        check(&[("key", 300), ("else", 300)], &[], &[]);
    }

    #[test]
    fn a_use_is_noted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let old = SystemTime::now() - DAY * 20;
        for name in ["a-1.cwasm", "a-1.json", "b-1.cwasm", "b-1.json"] {
            let file = File::create(dir.path().join(name)).expect("a new file");
            file.set_len(5).expect("a small file");
            file.set_modified(old).expect("times can be set");
        }
        note_use(&dir.path().join("a-1.json"), SystemTime::now());
        note_use(&dir.path().join("none.json"), SystemTime::now());
        let freed = expire(dir.path(), &BTreeSet::new(), DAY * 10, SystemTime::now());
        assert_eq!(freed.expect("a directory"), 10);
        assert!(dir.path().join("a-1.json").exists() && dir.path().join("a-1.cwasm").exists());
        assert!(!dir.path().join("b-1.json").exists() && !dir.path().join("b-1.cwasm").exists());
    }
}
