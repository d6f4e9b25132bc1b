//! Whether an image can run here at all: it has a root file system, and its program is for this
//! processor. A cheap look at one file; what it cannot tell, the start will.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cri::{ImageKind, ResolvedImage, RuntimeError};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::RUNTIME;

/// `e_machine` of the ELF header for what this program was built for.
const OWN_MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    0
};

pub fn check(image: &ResolvedImage) -> Result<(), RuntimeError> {
    let unsupported = |why: String| RuntimeError::Unsupported { runtime: RUNTIME, image: image.reference.clone(), why };
    let ImageKind::Rootfs { layers } = &image.kind else {
        return Err(unsupported("it is Wasm; it needs the wasm runtime".to_owned()));
    };
    if layers.is_empty() {
        return Err(unsupported("it has no layers, so there is no program in it".to_owned()));
    }
    if let Some(missing) = layers.iter().find(|layer| !layer.is_dir()) {
        return Err(unsupported(format!("its layer {} is not unpacked on this node", missing.display())));
    }
    let program = image.config.entrypoint.first().or(image.config.cmd.first());
    let Some(program) = program.filter(|path| path.starts_with('/')) else {
        return Ok(());
    };
    match machine_of(layers, program) {
        Some(machine) if OWN_MACHINE != 0 && machine != OWN_MACHINE => Err(unsupported(format!(
            "{program} is built for another processor (ELF machine {machine}, this node has {OWN_MACHINE})"
        ))),
        _ => Ok(()),
    }
}

/// `e_machine` of the program in the topmost layer that has it; links within a layer are followed.
fn machine_of(layers: &[PathBuf], program: &str) -> Option<u16> {
    let mut header = [0u8; 20];
    let mut file = layers.iter().rev().find_map(|layer| open_inside(layer, program))?;
    file.read_exact(&mut header).ok()?;
    let little_endian = header.starts_with(b"\x7fELF") && header[5] == 1;
    little_endian.then(|| u16::from_le_bytes([header[18], header[19]]))
}

fn open_inside(layer: &Path, program: &str) -> Option<File> {
    let root = File::open(layer).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat2(&root, program, flags, Mode::empty(), resolve).ok()?);
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::ImageConfig;

    fn image(layers: Vec<PathBuf>, entrypoint: &str) -> ResolvedImage {
        ResolvedImage {
            reference: "app:v1".to_owned(),
            manifest_digest: String::new(),
            image_id: String::new(),
            kind: ImageKind::Rootfs { layers },
            config: ImageConfig { entrypoint: vec![entrypoint.to_owned()], ..ImageConfig::default() },
            size_bytes: 0,
            has_other_kind: false,
        }
    }

    #[test]
    fn images_that_cannot_run_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().to_owned();
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        elf.extend((OWN_MACHINE).to_le_bytes());
        std::fs::write(layer.join("own"), &elf).unwrap();
        elf[18] ^= 1;
        std::fs::write(layer.join("other"), &elf).unwrap();
        std::fs::write(layer.join("script"), "#!/bin/sh\necho a long enough script\n").unwrap();
        std::os::unix::fs::symlink("/own", layer.join("link")).unwrap();
        for (program, fine) in
            [("/own", true), ("/link", true), ("/other", false), ("/script", true), ("/none", true), ("sh", true)]
        {
            assert_eq!(check(&image(vec![layer.clone()], program)).is_ok(), fine, "{program}");
        }
        assert!(check(&image(Vec::new(), "/own")).is_err());
        assert!(check(&image(vec![layer.join("absent")], "/own")).is_err());
        let wasm = ImageKind::Wasm { file: layer, digest: String::new(), argv0: String::new(), root: None };
        assert!(check(&ResolvedImage { kind: wasm, ..image(Vec::new(), "x") }).is_err());
    }
}
