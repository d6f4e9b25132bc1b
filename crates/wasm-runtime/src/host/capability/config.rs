//! `wasi:config`: the container's environment, and the files of the directory that the pod names.
//!
//! Files are read when they are asked for, so that a changed ConfigMap is seen without a restart. A file comes
//! before a variable of the same name.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, LinkerInstance, Lower};

use super::{Capability, Interface};
use crate::host::guest::ComponentState;

/// As large as a ConfigMap may be.
const VALUE_BYTES_MAX: u64 = 1 << 20;
/// All values together that `get-all` answers with.
const ALL_BYTES_MAX: usize = 4 << 20;
const FILES_MAX: usize = 1000;

pub const CONFIG: Capability = Capability {
    package: "wasi:config",
    // The second is Spin's name for the same interface.
    versions: &["0.2.0-rc.1", "0.2.0-draft-2024-09-27"],
    interfaces: &[Interface { name: "store", define }],
};

#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    #[expect(dead_code, reason = "a case of the interface; nothing here is upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type Pairs = Vec<(String, String)>;

fn define(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    instance.func_wrap("get", |store: StoreContextMut<'_, ComponentState>, (key,): (String,)| {
        Ok((store.data().granted().config.get(&key),))
    })?;
    instance.func_wrap("get-all", |store: StoreContextMut<'_, ComponentState>, (): ()| {
        Ok((store.data().granted().config.all(),))
    })
}

/// Where a container's configuration is.
pub struct Values {
    env: Pairs,
    dir: Option<OwnedFd>,
}

impl Values {
    pub fn new(env: Pairs, dir: Option<OwnedFd>) -> Self {
        Self { env, dir }
    }

    fn get(&self, key: &str) -> Result<Option<String>, Error> {
        if let Some(dir) = &self.dir
            && is_file_name(key)
            && let Some(text) = read(dir, key).map_err(|error| failed(key, &error))?
        {
            return Ok(Some(text));
        }
        Ok(self.env.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()))
    }

    fn all(&self) -> Result<Pairs, Error> {
        let mut all = Vec::new();
        if let Some(dir) = &self.dir {
            let mut bytes = 0;
            for name in names(dir).map_err(|error| failed("the directory", &error))? {
                // One that went away meanwhile is not there.
                let Some(text) = read(dir, &name).map_err(|error| failed(&name, &error))? else { continue };
                bytes += text.len();
                if bytes > ALL_BYTES_MAX {
                    return Err(Error::Io(format!("all values together are over {ALL_BYTES_MAX} bytes")));
                }
                all.push((name, text));
            }
        }
        let of_files = all.len();
        for (name, value) in &self.env {
            if all[..of_files].iter().all(|(known, _)| known != name) {
                all.push((name.clone(), value.clone()));
            }
        }
        Ok(all)
    }
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::Io(format!("{what}: {error}"))
}

/// What a key of a ConfigMap may be; those that begin with dots are the volume's own.
fn is_file_name(key: &str) -> bool {
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    plain && !key.is_empty() && key.len() <= 253 && !key.starts_with("..") && key != "."
}

/// A file of the directory, followed through the links a ConfigMap volume is made of, and never out of it.
fn read(dir: &impl AsFd, name: &str) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let file = File::from(opened);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        return Err(io::Error::other(format!("a value of more than {VALUE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("the value is no text"))
}

/// Sorted.
fn names(dir: &impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !is_file_name(name) {
            continue;
        }
        // A link is judged by what it leads to; reading it says the rest.
        let is_dir = statat(dir, name, rustix::fs::AtFlags::empty())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_dir {
            names.push(name.to_owned());
        }
        if names.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files")));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn values(dir: &std::path::Path) -> Values {
        let env = [("A", "env"), ("mode", "env")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Values::new(env.to_vec(), Some(File::open(dir).unwrap().into()))
    }

    /// As a ConfigMap volume: names are links through `..data`, which is swapped as one.
    fn publish(dir: &std::path::Path, version: &str, mode: &str) {
        let at = dir.join(format!("..{version}"));
        std::fs::create_dir(&at).unwrap();
        std::fs::write(at.join("mode"), mode).unwrap();
        let _ = std::fs::remove_file(dir.join("..data"));
        symlink(format!("..{version}"), dir.join("..data")).unwrap();
        if std::fs::symlink_metadata(dir.join("mode")).is_err() {
            symlink("..data/mode", dir.join("mode")).unwrap();
        }
    }

    #[test]
    fn files_are_read_when_asked_and_come_first() {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), "1", "one");
        let values = values(dir.path());
        let get = |key: &str| values.get(key).unwrap();
        assert_eq!((get("mode").as_deref(), get("A").as_deref(), get("none")), (Some("one"), Some("env"), None));
        publish(dir.path(), "2", "two");
        assert_eq!(get("mode").as_deref(), Some("two"));
        let all = values.all().unwrap();
        assert_eq!(all, [("mode".to_owned(), "two".to_owned()), ("A".to_owned(), "env".to_owned())]);
    }

    #[test]
    fn nothing_outside_of_the_directory_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let inner = dir.path().join("config");
        std::fs::create_dir(&inner).unwrap();
        symlink("../secret", inner.join("up")).unwrap();
        symlink(dir.path().join("secret"), inner.join("absolute")).unwrap();
        std::fs::write(inner.join("binary"), [0xff]).unwrap();
        std::fs::create_dir(inner.join("folder")).unwrap();
        let values = values(&inner);
        for key in ["../secret", "..", ".", "", "a/b", "folder"] {
            assert_eq!(values.get(key), Ok(None), "{key}");
        }
        for key in ["up", "absolute", "binary"] {
            assert!(matches!(values.get(key), Err(Error::Io(_))), "{key}");
        }
    }
}
