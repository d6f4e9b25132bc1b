//! What a test needs from the machine, and the one lock that keeps clusters apart: each uses the
//! machine's network and cgroups.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads of this process.
static THREADS: Mutex<()> = Mutex::new(());

/// Held while a test uses the machine.
pub struct Machine {
    _threads: MutexGuard<'static, ()>,
    /// Other processes; the kernel frees it with this one.
    _processes: File,
}

/// Waits for the machine. None, after a line that says why, when the test cannot run here.
pub fn machine() -> Option<Machine> {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing);
    }
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::env::temp_dir().join("knarr-e2e.lock");
    let file = File::create(&path).expect("the temporary folder takes a lock file");
    file.lock().expect("a lock file can be locked");
    Some(Machine { _threads: threads, _processes: file })
}

/// Says why a test does not run; on the build machine that is a failure.
pub fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var("KNARR_E2E").as_deref() != Ok("require"), "this test must run here, but {why}");
    println!("skipped: {why}");
    None
}

/// Why a test that needs root, these programs and `knarr` cannot run here.
pub fn missing(programs: &[&str]) -> Option<String> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    if !root {
        return Some("it needs root".to_owned());
    }
    if let Some(missing) = programs.iter().find(|name| program(name).is_none()) {
        return Some(format!("there is no {missing} on the PATH"));
    }
    let binary = binary();
    (!binary.is_file()).then(|| format!("there is no {}: run `cargo xtask test`", binary.display()))
}

/// A program on the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The `knarr` to try.
pub fn binary() -> PathBuf {
    std::env::var_os("KNARR_BIN").map_or_else(|| target_folder().join("debug/knarr"), PathBuf::from)
}

/// The example guests and the example program, as `cargo xtask` gathered them.
pub fn example(name: &str) -> PathBuf {
    let folder = std::env::var_os("KNARR_EXAMPLES_DIR").map_or_else(|| target_folder().join("embedded"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "there is no {}: run `cargo xtask test`", path.display());
    path
}

/// Cargo's target folder: the tests run from `<target>/debug/deps`.
fn target_folder() -> PathBuf {
    let tests = std::env::current_exe().expect("a running program knows its path");
    tests.ancestors().nth(3).map_or_else(PathBuf::new, Path::to_owned)
}
