//! Layers as lists of names: what the root holds. Then the same on disk.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, XattrFlags, makedev, mknodat, setxattr};

use super::*;

/// `a/` is a directory, `a/!` an opaque one, `-a` a whiteout, anything else a file. Parents are
/// listed, as they are on disk.
fn layer(names: &str) -> Vec<Entry> {
    let mut entries = vec![Entry { path: PathBuf::new(), kind: Kind::Directory { opaque: false } }];
    for name in names.split_whitespace() {
        let (path, kind) = match (name.strip_suffix("/!"), name.strip_suffix('/'), name.strip_prefix('-')) {
            (Some(path), ..) => (path, Kind::Directory { opaque: true }),
            (_, Some(path), _) => (path, Kind::Directory { opaque: false }),
            (.., Some(path)) => (path, Kind::Whiteout),
            _ => (name, Kind::File),
        };
        entries.push(Entry { path: path.into(), kind });
    }
    entries
}

#[test]
fn layers_are_laid_over_each_other() {
    let check = |layers: &[&str], expect: &str| {
        let mut plan = Plan::new();
        for (index, names) in layers.iter().enumerate() {
            lay(&mut plan, index, &layer(names));
        }
        let show = |(path, origin): (&PathBuf, &Origin)| match origin {
            Origin::Directory(layer) => format!("{}/={layer}", path.display()),
            Origin::File(layer) => format!("{}={layer}", path.display()),
        };
        let shown: Vec<String> = plan.iter().map(show).collect();
        assert_eq!(shown.join(" "), expect, "{layers:?}");
    };
    check(&["a"], "/=0 a=0");
    check(&["a", "b"], "/=1 a=0 b=1");
    check(&["a b", "a"], "/=1 a=1 b=0");
    check(&["d/ d/a", "d/ d/b"], "/=1 d/=1 d/a=0 d/b=1");
    check(&["a b", "-a"], "/=1 b=0");
    check(&["d/ d/e/ d/e/a dx", "-d"], "/=1 dx=0");
    check(&["d/ d/a", "d/! d/b"], "/=1 d/=1 d/b=1");
    check(&["d/ d/a", "d"], "/=1 d=1");
    check(&["d", "d/ d/a"], "/=1 d/=1 d/a=1");
    check(&["a", "-a", "a"], "/=2 a=2");
    check(&["d/ d/a", "-d", "d/ d/b"], "/=2 d/=2 d/b=2");
    check(&["-a"], "/=0");
    check(&[], "");
}

#[test]
fn an_opaque_root_hides_all_below() {
    let mut plan = Plan::new();
    lay(&mut plan, 0, &layer("a d/ d/b"));
    let opaque = Entry { path: PathBuf::new(), kind: Kind::Directory { opaque: true } };
    lay(&mut plan, 1, &[opaque, Entry { path: "c".into(), kind: Kind::File }]);
    let expect = [("", Origin::Directory(1)), ("c", Origin::File(1))];
    assert_eq!(plan, expect.map(|(path, origin)| (PathBuf::from(path), origin)).into());
}

#[test]
fn the_key_of_a_root_depends_on_its_layers_and_their_order() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let keys = [
        root_key(&[]),
        root_key(std::slice::from_ref(&a)),
        root_key(&[a.clone(), b.clone()]),
        root_key(&[b.clone(), a.clone()]),
    ];
    assert_eq!(root_key(&[a, b]), keys[2]);
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "key {index}");
    }
}

/// Two layers on disk: the upper one hides, replaces and links.
fn layers(dir: &Path) -> [PathBuf; 2] {
    let [lower, upper] = ["lower", "upper"].map(|name| dir.join(name));
    for path in [lower.join("etc"), lower.join("var/log"), upper.join("etc"), upper.join("var"), upper.join("bin")] {
        fs::create_dir_all(path).unwrap();
    }
    for (path, content) in [("etc/gone", "1"), ("etc/kept", "2"), ("var/log/old", "3"), ("app.wasm", "old")] {
        fs::write(lower.join(path), content).unwrap();
    }
    for (path, content) in [("var/new", "4"), ("app.wasm", "new")] {
        fs::write(upper.join(path), content).unwrap();
    }
    symlink("/app.wasm", upper.join("bin/app")).unwrap();
    symlink("../../../../outside", upper.join("bin/escape")).unwrap();
    mknodat(CWD, upper.join("etc/gone"), FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
    setxattr(upper.join("var"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
    fs::set_permissions(upper.join("etc"), fs::Permissions::from_mode(0o750)).unwrap();
    let long_ago = fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(7));
    fs::File::open(upper.join("etc")).unwrap().set_times(long_ago).unwrap();
    [lower, upper]
}

#[test]
fn a_root_on_disk_is_links_and_directories() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: whiteouts need root");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layers = layers(dir.path());
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    merge(&layers, &root).unwrap();

    let mut seen: Vec<String> = observe(&root).unwrap().iter().map(|entry| entry.path.display().to_string()).collect();
    seen.sort();
    assert_eq!(seen, ["", "app.wasm", "bin", "bin/app", "bin/escape", "etc", "etc/kept", "var", "var/new"]);
    for (path, layer) in [("app.wasm", 1), ("etc/kept", 0), ("var/new", 1)] {
        let inode = |root: &Path| fs::metadata(root.join(path)).unwrap().ino();
        assert_eq!(inode(&root), inode(&layers[layer]), "{path}");
    }
    let etc = fs::metadata(root.join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.mtime()), (0o750, 7));
    assert!(!is_opaque(&root.join("var")));

    let find = |path: &str| find_file(&root, Path::new(path)).unwrap();
    let app = root.canonicalize().unwrap().join("app.wasm");
    for (path, expect) in [
        ("/app.wasm", Some(&app)),
        ("app.wasm", Some(&app)),
        ("/bin/app", Some(&app)),
        ("/bin/escape", None),
        ("/etc", None),
        ("/etc/gone", None),
        ("/app.wasm/x", None),
        ("/none", None),
    ] {
        assert_eq!(find(path).as_ref(), expect, "{path}");
    }
}

#[test]
fn what_cannot_be_read_or_made_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (none, root) = (dir.path().join("none"), dir.path().join("root"));
    let error = merge(std::slice::from_ref(&none), &root).unwrap_err();
    assert!(matches!(&error, MergeError::Read { path, .. } if *path == none), "{error}");
    let layer = dir.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("a"), b"a").unwrap();
    let error = merge(&[layer], &root).unwrap_err();
    assert!(matches!(&error, MergeError::Make { path, .. } if path == Path::new("a")), "{error}");
    assert!(find_file(&root, Path::new("a")).is_err());
}
