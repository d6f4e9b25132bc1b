//! Files of a mount.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use crate::{Report, libc};

/// More than one answer of the host's holds.
const MANY: usize = 500;

pub fn all(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    contents(report, &at("a"));
    names(report, dir);
    links(report, dir);
    directories(report, dir);
    times(report, &at("a"));
    errors(report, dir);
}

fn contents(report: &mut Report, path: &str) {
    report.works("write", fs::write(path, "0123456789"));
    report.equals("read", fs::read_to_string(path).ok().as_deref(), Some("0123456789"));
    let appended = OpenOptions::new().append(true).open(path).and_then(|mut file| {
        file.write_all(b"ab")?;
        file.write_all(b"cd")
    });
    report.works("append", appended);
    let middle = File::open(path).and_then(|mut file| {
        let mut bytes = [0; 4];
        file.seek(SeekFrom::End(-6))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    });
    report.equals("seek", middle.ok(), Some(*b"89ab"));
    let over = OpenOptions::new().write(true).open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(2))?;
        file.write_all(b"XY")?;
        file.sync_all()?;
        file.sync_data()?;
        file.set_len(6)
    });
    report.works("write-in-place", over);
    report.equals("cut", fs::read_to_string(path).ok().as_deref(), Some("01XY45"));
    let longer = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(8));
    report.works("lengthen", longer);
    report.equals("zeros", fs::read(path).ok(), Some(b"01XY45\0\0".to_vec()));
    report.fails_with("create-new", File::create_new(path).map(|_| ()), ErrorKind::AlreadyExists);
    report.works("truncate", File::create(path));
    report.equals("empty", fs::metadata(path).map(|found| found.len()).ok(), Some(0));
}

fn names(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    report.works("write-one", fs::write(at("one"), "1"));
    report.works("write-two", fs::write(at("two"), "2"));
    report.works("rename-over", fs::rename(at("one"), at("two")));
    report.equals("renamed", fs::read_to_string(at("two")).ok().as_deref(), Some("1"));
    report.is("old-name-is-gone", !fs::exists(at("one")).unwrap_or(true));
    report.works("copy", fs::copy(at("two"), at("three")));
    report.works("remove", fs::remove_file(at("two")));
    report.works("unusual-name", fs::write(at("ünïcode name \u{1f980}"), "u"));
    // An open file stays one when its name goes.
    let kept = File::open(at("three")).and_then(|mut file| {
        fs::remove_file(at("three"))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    });
    report.equals("open-after-removal", kept.ok().as_deref(), Some("1"));
}

fn links(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    report.works("link-target", fs::write(at("target"), "t"));
    report.works("hard-link", fs::hard_link(at("target"), at("hard")));
    report.works("through-hard-link", fs::write(at("hard"), "both"));
    report.equals("hard-link-is-it", fs::read_to_string(at("target")).ok().as_deref(), Some("both"));
    report.works("symlink", libc::symlink("target", &at("soft")));
    report.equals("through-symlink", fs::read_to_string(at("soft")).ok().as_deref(), Some("both"));
    let target = fs::read_link(at("soft")).map(|path| path.display().to_string());
    report.equals("read-link", target.ok().as_deref(), Some("target"));
    report.is("symlink-is-one", fs::symlink_metadata(at("soft")).is_ok_and(|found| found.is_symlink()));
    report.works("dangling", libc::symlink("nowhere", &at("dangling")));
    report.fails_with("dangling-is-not-found", fs::read(at("dangling")), ErrorKind::NotFound);
    report.works("loop", libc::symlink("loop", &at("loop")));
    report.refused("loop-ends", fs::read(at("loop")));
}

fn directories(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    report.works("make", fs::create_dir(at("dir")));
    report.works("make-all", fs::create_dir_all(at("dir/x/y/z")));
    let filled = (0..MANY).try_for_each(|number| fs::write(at(&format!("dir/{number}")), ""));
    report.works("fill", filled);
    let listed = fs::read_dir(at("dir")).map(|entries| entries.filter_map(Result::ok).count());
    report.equals("list", listed.ok(), Some(MANY + 1));
    report.refused("remove-what-is-not-empty", fs::remove_dir(at("dir")));
    report.works("rename-directory", fs::rename(at("dir"), at("moved")));
    report.is("its-files-went-along", fs::exists(at("moved/7")).unwrap_or(false));
    report.works("remove-all", fs::remove_dir_all(at("moved")));
    report.is("nothing-is-left", !fs::exists(at("moved")).unwrap_or(true));
}

fn times(report: &mut Report, path: &str) {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let set = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_times(FileTimes::new().set_modified(then))?;
        file.metadata()?.modified()
    });
    report.equals("set-times", set.ok(), Some(then));
}

fn errors(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    report.fails_with("not-found", fs::read(at("no")), ErrorKind::NotFound);
    report.refused("no-directory", fs::read(at("a/b")));
    report.refused("write-a-directory", fs::write(dir, "x"));
    report.refused("long-name", fs::write(at(&"n".repeat(5000)), "x"));
    let not_for_writing = File::open(at("a")).and_then(|mut file| file.write_all(b"x"));
    report.refused("write-what-is-open-for-reading", not_for_writing);
}

/// There are a file `there` and a directory `dir` in it.
pub fn read_only(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    report.equals("read", fs::read_to_string(at("there")).ok().as_deref(), Some("as it was"));
    report.refused("write", fs::write(at("there"), "x"));
    report.refused("append", OpenOptions::new().append(true).open(at("there")));
    report.refused("create", File::create(at("new")));
    report.refused("make", fs::create_dir(at("new")));
    report.refused("rename", fs::rename(at("there"), at("elsewhere")));
    report.refused("remove", fs::remove_file(at("there")));
    report.refused("remove-directory", fs::remove_dir(at("dir")));
    report.refused("hard-link", fs::hard_link(at("there"), at("hard")));
    report.refused("symlink", libc::symlink("there", &at("soft")));
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    report.refused("set-times", File::open(at("there")).and_then(|file| file.set_times(times)));
    report.refused("cut", File::open(at("there")).and_then(|file| file.set_len(0)));
    report.equals("still", fs::read_to_string(at("there")).ok().as_deref(), Some("as it was"));
}
