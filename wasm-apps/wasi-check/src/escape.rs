//! Ways out of a mount.
//!
//! Beside the mount, outside of it, lies a file `secret`. In it, made by somebody with more rights, are the links
//! `to-secret` (`../secret`), `to-etc` (`/etc/passwd`), `to-parent` (`..`) and `to-root` (`/`).

use std::fs::{self, File};

use crate::{Report, libc};

pub fn all(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    let outside = [
        at("../secret"),
        at("./../secret"),
        at("inner/../../secret"),
        at("to-secret"),
        at("to-etc"),
        at("to-parent/secret"),
        at("to-root/etc/passwd"),
        at("to-parent/../etc/passwd"),
        "/etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
        "etc/passwd".to_owned(),
        "../etc/passwd".to_owned(),
        at("..//..//..//..//..//..//..//..//etc/passwd"),
        at("inner\0/../../secret"),
    ];
    for path in &outside {
        report.refused(&format!("read {}", path.escape_debug()), fs::read(path));
        report.refused(&format!("write {}", path.escape_debug()), fs::write(path, "taken"));
    }
    report.refused("list the parent", fs::read_dir(at("..")).map(|entries| entries.count()));
    report.refused("list the parent by a link", fs::read_dir(at("to-parent")).map(|entries| entries.count()));
    report.refused("list /", fs::read_dir("/").map(|entries| entries.count()));
    report.refused("make outside", fs::create_dir(at("../made")));
    report.refused("make outside by a link", fs::create_dir(at("to-parent/made")));
    report.works("something to move", fs::write(at("mine"), "m"));
    report.refused("move outside", fs::rename(at("mine"), at("../mine")));
    report.refused("move outside by a link", fs::rename(at("mine"), at("to-parent/mine")));
    report.refused("move inside", fs::rename(at("../secret"), at("stolen")));
    report.refused("remove outside", fs::remove_file(at("../secret")));
    report.refused("remove outside by a link", fs::remove_file(at("to-parent/secret")));
    report.refused("link inside", fs::hard_link(at("../secret"), at("stolen")));
    report.refused("link inside by a link", fs::hard_link(at("to-parent/secret"), at("stolen")));
    report.refused("link outside", fs::hard_link(at("mine"), at("../mine")));
    own_links(report, dir);
    // Around and back is no escape.
    report.works("inner", fs::create_dir(at("inner")));
    report.equals("around and back", fs::read_to_string(at("inner/../mine")).ok().as_deref(), Some("m"));
}

/// A link may be made with any relative text in it; it must lead nowhere.
fn own_links(report: &mut Report, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    for (number, target) in ["/etc/passwd", "../secret", "..", "/"].iter().enumerate() {
        let link = at(&format!("own-{number}"));
        // Refused at once, or when it is followed.
        if libc::symlink(target, &link).is_err() {
            continue;
        }
        report.refused(&format!("follow an own link to {target}"), File::open(&link).and_then(|file| file.metadata()));
        report.refused(&format!("list an own link to {target}"), fs::read_dir(&link).map(|entries| entries.count()));
        report.refused(&format!("read past an own link to {target}"), fs::read(format!("{link}/secret")));
    }
}
