//! A disk whose power can be cut: ext4 in a file, shut down by the kernel without writing its journal out.
//!
//! Owns: the image, the mount, the cut. What was not synced is lost with it, as it is when a machine
//! loses power. May not know: what is stored on it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::eventually::try_within;
use nix::mount::umount;

use crate::host::{Host, run};

const SIZE_BYTES: u64 = 96 << 20;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written out.
const NO_LOG_FLUSH: u32 = 2;
const UNMOUNTED_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Mounted on one machine, where its mounts are.
#[derive(Debug, Clone)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// An empty disk, mounted.
    pub fn new(host: &Host, folder: &Path) -> Self {
        let disk = Self { image: folder.join("disk.ext4"), at: folder.join("disk") };
        std::fs::create_dir_all(&disk.at).expect("a new folder");
        let image = File::create(&disk.image).expect("a new file");
        image.set_len(SIZE_BYTES).expect("a file with a hole");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image), "an empty disk");
        disk.mount(host);
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The power goes: nothing reaches the disk any more.
    pub fn cut(&self, host: &Host) {
        let at = self.at.clone();
        host.run(move || shut_down(&File::open(at).expect("a mounted disk can be opened")));
    }

    /// The power is back, after everything that used it has ended.
    pub fn restore(&self, host: &Host) {
        let at = self.at.clone();
        let unmounted = host.run(move || try_within(UNMOUNTED_WITHIN, || umount(&at)));
        unmounted.expect("nobody uses the disk any more");
        self.mount(host);
    }

    fn mount(&self, host: &Host) {
        let disk = self.clone();
        host.run(move || {
            run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&disk.image).arg(&disk.at), "a disk")
        });
    }
}

nix::ioctl_read! {
    /// `EXT4_IOC_SHUTDOWN`; reads the flags although its number says otherwise.
    ext4_shutdown, b'X', 125, u32
}

#[allow(unsafe_code, reason = "the kernel offers a power cut only as an ioctl")]
fn shut_down(mounted: &File) {
    let mut flags = NO_LOG_FLUSH;
    // SAFETY: the file is open, and the kernel reads one u32, which lives until the call returns.
    unsafe { ext4_shutdown(mounted.as_raw_fd(), &raw mut flags) }.expect("ext4 can be shut down");
}
