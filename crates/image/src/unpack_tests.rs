//! Archives, honest and hostile: what they leave on disk, and what they never reach.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use tar::Header;

struct Member<'a> {
    kind: EntryType,
    path: &'a [u8],
    link: &'a [u8],
    content: &'a [u8],
}

const fn file<'a>(path: &'a [u8], content: &'a [u8]) -> Member<'a> {
    Member { kind: EntryType::Regular, path, link: b"", content }
}

const fn link<'a>(kind: EntryType, path: &'a [u8], link: &'a [u8]) -> Member<'a> {
    Member { kind, path, link, content: b"" }
}

/// The tar crate's own builder refuses hostile paths, so headers are filled by hand.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..member.path.len()].copy_from_slice(member.path);
        header.as_old_mut().linkname[..member.link.len()].copy_from_slice(member.link);
        header.set_entry_type(member.kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(member.content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

struct Unpacked {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
    result: Result<(), UnpackError>,
}

fn extract(members: &[Member<'_>]) -> Unpacked {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), b"alive").unwrap();
    let bytes = archive(members);
    let result = unpack(bytes.as_slice(), Compression::None, &root, &Digest::of(&bytes));
    Unpacked { _dir: dir, root, outside, result }
}

fn root_only() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: owners and device nodes need root");
    }
    root
}

#[test]
fn nothing_is_written_outside() {
    if !root_only() {
        return;
    }
    use EntryType::{Link, Symlink};
    let packs: Vec<Vec<Member<'_>>> = vec![
        vec![file(b"../outside/canary", b"dead")],
        vec![file(b"a/../../outside/canary", b"dead")],
        vec![link(Symlink, b"d", b"../outside"), file(b"d/canary", b"dead")],
        vec![link(Symlink, b"d", b"../../../../../../../../tmp"), file(b"d/knarr-escape", b"dead")],
        vec![link(Symlink, b"f", b"../outside/canary"), file(b"f", b"dead")],
        vec![link(Link, b"h", b"../outside/canary"), file(b"h", b"dead")],
        vec![link(Symlink, b"d", b"../outside"), link(Link, b"h", b"d/canary"), file(b"h", b"dead")],
        vec![link(Symlink, b"d", b"../outside"), file(b"d/.wh.canary", b"")],
        vec![file(b".wh...", b"")],
        vec![file(b"/absolute", b"inside")],
    ];
    for (index, pack) in packs.iter().enumerate() {
        let unpacked = extract(pack);
        assert_eq!(fs::read(unpacked.outside.join("canary")).unwrap(), b"alive", "pack {index}");
        assert_eq!(fs::read_dir(&unpacked.outside).unwrap().count(), 1, "pack {index}");
        assert!(!Path::new("/tmp/knarr-escape").exists(), "pack {index}");
    }
    assert_eq!(fs::read(extract(&packs[9]).root.join("absolute")).unwrap(), b"inside");
    assert!(matches!(extract(&packs[0]).result, Err(UnpackError::Entry { .. })));
    assert!(matches!(extract(&packs[5]).result, Err(UnpackError::Entry { .. })));
}

#[test]
fn symlinked_parents_resolve_inside() {
    if !root_only() {
        return;
    }
    let members = [
        link(EntryType::Directory, b"usr/lib", b""),
        link(EntryType::Symlink, b"lib", b"/usr/lib"),
        file(b"lib/libc.so", b"elf"),
    ];
    let unpacked = extract(&members);
    unpacked.result.unwrap();
    assert_eq!(fs::read(unpacked.root.join("usr/lib/libc.so")).unwrap(), b"elf");
}

#[test]
fn whiteouts_take_overlay_form() {
    if !root_only() {
        return;
    }
    let unpacked = extract(&[file(b"etc/.wh.passwd", b""), file(b"var/.wh..wh..opq", b"")]);
    unpacked.result.unwrap();
    let stat = rustix::fs::stat(unpacked.root.join("etc/passwd")).unwrap();
    assert_eq!((FileType::from_raw_mode(stat.st_mode), stat.st_rdev), (FileType::CharacterDevice, 0));
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(unpacked.root.join("var"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
}

#[test]
fn damage_and_lies_are_errors() {
    let bytes = archive(&[]);
    let root = tempfile::tempdir().expect("a temporary directory");
    let wrong = Digest::of(b"another");
    let result = unpack(bytes.as_slice(), Compression::None, root.path(), &wrong);
    assert!(matches!(result, Err(UnpackError::DiffId { .. })));
    let result = unpack(b"no gzip at all".as_slice(), Compression::Gzip, root.path(), &wrong);
    assert!(matches!(result, Err(UnpackError::Archive(_))));
    if root_only() {
        let hiding = extract(&[link(EntryType::Char, b"x", b"")]);
        assert!(matches!(hiding.result, Err(UnpackError::Entry { .. })));
    }
}

/// One member with a header that a test may bend.
fn bent(path: &str, content: &[u8], bend: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut bytes = archive(&[file(path.as_bytes(), content)]);
    let mut header = Header::from_byte_slice(&bytes[..512]).clone();
    bend(&mut header);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    bytes
}

/// Unpacks plain bytes; answers the root.
fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    unpack(bytes, Compression::None, dir.path(), &Digest::of(bytes)).unwrap();
    let root = dir.path().to_owned();
    (dir, root)
}

#[test]
fn attributes_are_kept() {
    if !root_only() {
        return;
    }
    let check = |what: &str, bend: fn(&mut Header), expect: (u32, u32, u32, i64)| {
        let (_dir, root) = unpacked(&bent("f", b"x", bend));
        let seen = fs::metadata(root.join("f")).unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid(), seen.mtime()), expect, "{what}");
    };
    check("as given", |_| {}, (0o755, 0, 0, 1));
    check("read-only", |header| header.set_mode(0o400), (0o400, 0, 0, 1));
    // The kernel clears set-id bits when the owner changes: owner first, mode second.
    check(
        "set-id of another owner",
        |header| {
            header.set_mode(0o6755);
            header.set_uid(1000);
            header.set_gid(50);
        },
        (0o6755, 1000, 50, 1),
    );
    check("sticky", |header| header.set_mode(0o1777), (0o1777, 0, 0, 1));
    check("a type in the mode is no type", |header| header.set_mode(0o120_644), (0o644, 0, 0, 1));
    check("old", |header| header.set_mtime(0), (0o755, 0, 0, 0));
}

#[test]
fn a_directory_keeps_its_time_whatever_comes_into_it() {
    if !root_only() {
        return;
    }
    let members = [
        link(EntryType::Directory, b"a", b""),
        link(EntryType::Directory, b"a/b", b""),
        file(b"a/b/f", b"x"),
        file(b"made/on/the/way", b"x"),
    ];
    let (_dir, root) = unpacked(&archive(&members));
    for path in ["a", "a/b", "a/b/f"] {
        assert_eq!(fs::metadata(root.join(path)).unwrap().mtime(), 1, "{path}");
    }
    assert_eq!(fs::metadata(root.join("made/on")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    if !root_only() {
        return;
    }
    use EntryType::{Directory, Fifo, Link, Symlink};
    // The members; then what `x` is: the content of a file, "dir", "fifo" or the target of a link.
    let check = |members: &[Member<'_>], expect: &str| {
        let (_dir, root) = unpacked(&archive(members));
        let path = root.join("x");
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let seen = if kind.is_dir() {
            format!("dir of {}", fs::read_dir(&path).unwrap().count())
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            fs::read_to_string(&path).unwrap()
        };
        assert_eq!(seen, expect);
    };
    check(&[file(b"x", b"1"), file(b"x", b"2")], "2");
    check(&[file(b"./x", b"1")], "1");
    check(&[file(b"//x", b"1")], "1");
    check(&[link(Directory, b"x", b""), file(b"x/f", b"1"), link(Directory, b"x", b"")], "dir of 1");
    check(&[link(Directory, b"x", b""), file(b"x/f", b"1"), file(b"x", b"2")], "2");
    check(&[file(b"x", b"1"), link(Directory, b"x", b"")], "dir of 0");
    check(&[link(Symlink, b"x", b"t"), file(b"x", b"1")], "1");
    check(&[file(b"x", b"1"), link(Symlink, b"x", b"t")], "-> t");
    check(&[file(b"t", b"1"), link(Link, b"x", b"t")], "1");
    check(&[file(b"t", b"1"), link(Link, b"x", b"/t"), file(b"t", b"2")], "1");
    check(&[link(Symlink, b"t", b"away"), link(Link, b"x", b"t")], "-> away");
    check(&[link(Fifo, b"x", b"")], "fifo");
    check(&[link(EntryType::XGlobalHeader, b"x", b""), file(b"x", b"1")], "1");
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    if !root_only() {
        return;
    }
    use EntryType::{Link, Symlink};
    let check = |members: &[Member<'_>], expect: &str| {
        let error = extract(members).result.unwrap_err();
        assert!(matches!(&error, UnpackError::Entry { .. }) && error.to_string().contains(expect), "{expect}: {error}");
    };
    check(&[link(Symlink, b"x", b"")], "is a link to nothing");
    check(&[link(Link, b"x", b"none")], "not in this layer");
    check(&[link(Link, b"x", b"no/where")], "not in this layer");
    check(&[link(Link, b"x", b"/")], "is a hard link to the root");
    check(&[link(Link, b"x", b"../t")], "leaves the layer");
    check(&[file(b".wh.", b"")], "hides no name");
    check(&[file(b"a/.wh..", b"")], "hides no name");
    check(&[link(EntryType::new(b'Z'), b"x", b"")], "unknown type 'Z'");
}

#[test]
fn devices_are_made_as_they_are_named() {
    if !root_only() {
        return;
    }
    let device = |kind: EntryType, major: u32, minor: u32| {
        bent("dev/x", b"", move |header| {
            header.set_entry_type(kind);
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    };
    let (_dir, root) = unpacked(&device(EntryType::Char, 1, 3));
    let null = fs::metadata(root.join("dev/x")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == makedev(1, 3));
    let (_dir, root) = unpacked(&device(EntryType::Block, 7, 0));
    assert!(fs::metadata(root.join("dev/x")).unwrap().file_type().is_block_device());
}

#[test]
fn only_harmless_attributes_are_taken_over() {
    if !root_only() {
        return;
    }
    let mut builder = tar::Builder::new(Vec::new());
    let names = ["user.note", "security.capability", "trusted.overlay.opaque", "security.selinux"];
    // VFS_CAP_REVISION_2 with cap_net_bind_service permitted.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let keys = names.map(|name| format!("SCHILY.xattr.{name}"));
    let pairs = keys.iter().map(|key| (key.as_str(), if key.ends_with("capability") { capability } else { b"y" }));
    builder.append_pax_extensions(pairs).unwrap();
    let mut header = Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(0);
    builder.append_data(&mut header, "f", io::empty()).unwrap();
    let (_dir, root) = unpacked(&builder.into_inner().unwrap());
    let has = |name: &str| rustix::fs::lgetxattr(root.join("f"), name, &mut [0_u8; 64]).is_ok();
    let seen: Vec<&str> = names.into_iter().filter(|name| has(name)).collect();
    let can_note = rustix::fs::setxattr(&root, "user.note", b"y", XattrFlags::empty()).is_ok();
    let expect: &[&str] = if can_note { &names[..2] } else { &names[1..2] };
    assert_eq!(seen, expect);
}

#[test]
fn long_names_and_every_compression_are_read() {
    let long = "d/".repeat(80) + &"n".repeat(200);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_size(4);
    builder.append_data(&mut header, &long, b"text".as_slice()).unwrap();
    let plain = builder.into_inner().unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    // gzip allows several members in a row, and some builders write them.
    let (first, second) = plain.split_at(700);
    let cases = [
        (Compression::None, plain.clone()),
        (Compression::Gzip, gzip(&plain)),
        (Compression::Gzip, [gzip(first), gzip(second)].concat()),
        (Compression::Zstd, zstd::encode_all(plain.as_slice(), 1).unwrap()),
    ];
    for (compression, bytes) in cases {
        let root = tempfile::tempdir().expect("a temporary directory");
        unpack(bytes.as_slice(), compression, root.path(), &Digest::of(&plain)).unwrap();
        assert_eq!(fs::read(root.path().join(&long)).unwrap(), b"text", "{compression:?}");
        let cut = &bytes[..bytes.len() / 2];
        let root = tempfile::tempdir().expect("a temporary directory");
        assert!(unpack(cut, compression, root.path(), &Digest::of(&plain)).is_err(), "{compression:?}");
    }
}

#[test]
fn a_layer_has_a_size_limit() {
    let mut hashing = Hashing { inner: io::repeat(0).take(10), hasher: Sha256::new(), left: 9 };
    let error = io::copy(&mut hashing, &mut io::sink()).unwrap_err();
    assert!(matches!(archive_error(error), UnpackError::TooLarge { what: "bytes", .. }));
    let mut hashing = Hashing { inner: io::repeat(0).take(10), hasher: Sha256::new(), left: 10 };
    assert_eq!(io::copy(&mut hashing, &mut io::sink()).unwrap(), 10);
    assert_eq!(Digest::from_hasher(hashing.hasher), Digest::of(&[0; 10]));
}
