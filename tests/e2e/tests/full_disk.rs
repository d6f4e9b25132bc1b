//! A full disk is named, and when there is room again everything goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Cluster, Options, Said};

/// Room for a cluster and one small image.
const DISK: &str = "size=24m";

/// A file system that is soon full.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).expect("a new folder");
        Said::by(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(at), "").ok();
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes what is left.
    fn fill(&self) {
        let full = std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(self.filler()).expect("a new file"));
        full.expect_err("a disk has an end");
    }

    fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler can be removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_survived() {
    let Some(mut cluster) = Cluster::prepare() else { return };
    let disk = SmallDisk::mount(&cluster.data_dir());
    cluster.start_again(Options::default());
    cluster.build_image(&e2e::needs::example("backend"), "backend:v1", &[]).ok();

    disk.fill();
    let said = cluster.build_image(&e2e::needs::example("hello-http.wasm"), "hello:v1", &[]).refused();
    assert!(said.contains("No space left on device"), "{said}");
    assert!(cluster.kubectl("get nodes").ok().contains("Ready"));

    disk.free();
    cluster.build_image(&e2e::needs::example("hello-http.wasm"), "hello:v1", &[]).ok();
    cluster.kubectl("run fits --image=registry.local/backend:v1").ok();
    cluster.wait_value("pod/fits", ".status.phase", "Running");
    assert!(cluster.stop().success(), "{}", cluster.log());
}
