//! The images the tests run: the examples, a BusyBox, and tiny guests written as text.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::layout::{Layout, tar_of};
use crate::needs::{example, program, skip};

/// Answers HTTP; calls `$BACKEND_URL` at `/backend`.
pub const HELLO: &str = "registry.local/hello:v1";
/// Runs once; shows what it was given.
pub const COMMAND: &str = "registry.local/command:v1";
/// The static Linux HTTP server.
pub const BACKEND: &str = "registry.local/backend:v1";
/// A static BusyBox at `/bin/busybox`.
pub const BUSYBOX: &str = "registry.local/busybox:v1";

/// A component that wants what nobody here has.
pub const UNKNOWN_IMPORT: &str = r#"(component
    (import "acme:gpu/compute@1.0.0" (instance $gpu (export "multiply" (func (result u32)))))
    (alias export $gpu "multiply" (func $multiply))
    (core func $lowered (canon lower (func $multiply)))
    (core module $program
        (import "gpu" "multiply" (func $multiply (result i32)))
        (func (export "run") (result i32) (drop (call $multiply)) (i32.const 0)))
    (core instance $instance (instantiate $program
        (with "gpu" (instance (export "multiply" (func $lowered))))))
    (func $run (result (result)) (canon lift (core func $instance "run")))
    (component $shim
        (import "run" (func $run (result (result))))
        (export "run" (func $run)))
    (instance $cli (instantiate $shim (with "run" (func $run))))
    (export "wasi:cli/run@0.2.0" (instance $cli)))"#;

/// A module that traps at once.
pub const TRAP: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start") unreachable))"#;

impl Cluster {
    /// The example guests and the example program.
    pub fn push_examples(&self) {
        self.build_image(&example("hello-http.wasm"), "hello:v1", &[]).ok();
        self.build_image(&example("hello-command.wasm"), "command:v1", &[]).ok();
        self.build_image(&example("backend"), "backend:v1", &[]).ok();
    }

    /// BusyBox as an image; false when this machine has none.
    pub fn push_busybox(&self) -> bool {
        let Some(busybox) = program("busybox") else {
            return skip::<()>("there is no busybox on the PATH").is_some();
        };
        let root = tempfile::tempdir().expect("a temporary folder");
        for folder in ["bin", "tmp"] {
            fs::create_dir(root.path().join(folder)).expect("a new folder");
        }
        fs::copy(busybox, root.path().join("bin/busybox")).expect("busybox can be copied");
        self.build_image(root.path(), "busybox:v1", &["--entrypoint", "/bin/busybox"]).ok();
        true
    }

    /// A guest written in the text format.
    pub fn push_wat(&self, text: &str, tag: &str) {
        let (_folder, path) = wasm_file(&wat::parse_str(text).expect("the test's guest is well-formed"));
        self.build_image(&path, tag, &[]).ok();
    }

    /// An index of a Wasm guest and a Linux program.
    pub fn push_dual(&self, wasm: &[u8], linux: &Path, tag: &str) {
        let layout = Layout::new();
        let program = fs::read(linux).expect("the program can be read");
        let linux = layout.linux(&tar_of("app", &program), &["/app"]);
        layout.finish(&layout.index(&[layout.wasm(wasm), linux]));
        self.knarr(&["image", "push", &layout.path().display().to_string(), "--tag", tag]).ok();
    }
}

/// Bytes in a file whose name ends as Wasm files do; the folder ends with the first value.
pub fn wasm_file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("guest.wasm");
    fs::write(&path, bytes).expect("a new file");
    (folder, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_are_well_formed() {
        for text in [UNKNOWN_IMPORT, TRAP] {
            wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
