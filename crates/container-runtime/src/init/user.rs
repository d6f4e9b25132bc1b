//! Who the program runs as: the pod's word before the image's, names looked up in the container's
//! own `/etc/passwd` and `/etc/group`. Nothing is ever written to those files (CVE-2022-4318).

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use super::{Setup, refuse};
use crate::spec::UserSpec;

/// Larger account files are not read: they come from the image.
const ACCOUNTS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Numbers above are what -1 and overflows become elsewhere (CVE-2024-40635).
const ID_MAX: u32 = i32::MAX as u32;

/// Resolved to numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, sorted. `gid` is one of them, so that a file's rights for its group
    /// cannot be dodged by changing the primary group (CVE-2022-36109).
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks it up in the root directory of this process.
pub fn resolve(spec: &UserSpec) -> Setup<Identity> {
    match identify(spec, &accounts("/etc/passwd"), &accounts("/etc/group")) {
        Ok(identity) => Ok(identity),
        Err(why) => refuse(why),
    }
}

/// The file's text; empty when there is none. A fifo or device in its place is not waited for.
fn accounts(path: &str) -> String {
    let mut bytes = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        // What was read before an error is as good as a shorter file.
        let _ = file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn identify(spec: &UserSpec, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, group_name) = match spec.image_user.as_deref() {
        Some(text) => text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group))),
        None => ("", None),
    };
    let accounts: Vec<Account<'_>> = passwd.lines().filter_map(parse_account).collect();
    let (uid, account) = match (spec.run_as_user, user) {
        (Some(uid), _) => (uid, accounts.iter().find(|account| account.uid == uid)),
        (None, "") => (0, accounts.iter().find(|account| account.uid == 0)),
        (None, name) => match accounts.iter().find(|account| account.name == name) {
            Some(account) => (account.uid, Some(account)),
            None => {
                let uid = number(name).ok_or_else(|| format!("user {name:?} is not in the image's /etc/passwd"))?;
                (uid, accounts.iter().find(|account| account.uid == uid))
            }
        },
    };
    // The image's group belongs to the image's user.
    let group_name = group_name.filter(|name| !name.is_empty() && spec.run_as_user.is_none());
    let gid = match (spec.run_as_group, group_name) {
        (Some(gid), _) => gid,
        (None, Some(name)) => {
            group_number(name, group).ok_or_else(|| format!("group {name:?} is not in the image's /etc/group"))?
        }
        (None, None) => account.map_or(0, |account| account.gid),
    };
    for id in [uid, gid].iter().chain(&spec.supplemental_groups) {
        if *id > ID_MAX {
            return Err(format!("user or group number {id} is above {ID_MAX}"));
        }
    }
    let member_of = account.map(|account| memberships(account.name, group)).unwrap_or_default();
    let mut groups: Vec<u32> = spec.supplemental_groups.iter().copied().chain(member_of).chain([gid]).collect();
    groups.sort_unstable();
    groups.dedup();
    let home = account.map_or("/", |account| account.home);
    Ok(Identity { uid, gid, groups, home: if home.is_empty() { "/" } else { home }.to_owned() })
}

fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok().filter(|id| *id <= ID_MAX) } else { None }
}

/// `name:password:uid:gid:comment:home:shell`
fn parse_account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = number(fields.nth(1)?)?;
    let gid = number(fields.next()?)?;
    Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
}

/// `name:password:gid:member,member`
fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = number(fields.nth(1)?)?;
    Some((name, gid, fields.next().unwrap_or_default()))
}

fn group_number(name: &str, group: &str) -> Option<u32> {
    let known = group.lines().filter_map(parse_group).find(|(known, _, _)| *known == name);
    known.map(|(_, gid, _)| gid).or_else(|| number(name))
}

fn memberships(user: &str, group: &str) -> Vec<u32> {
    let of_user = |members: &str| members.split(',').any(|member| member.trim() == user);
    group.lines().filter_map(parse_group).filter(|(_, _, members)| of_user(members)).map(|(_, gid, _)| gid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n#c\n\nweb:x:33:34:w:/srv:/bin/false\nbad:x:-1:5::/:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:70:web,other\nbig:x:99999999999:web\naudio:x:71:other, web\n";

    fn check(image: &str, user: Option<u32>, group: Option<u32>, expect: Option<(u32, u32, &[u32], &str)>) {
        let spec = UserSpec {
            run_as_user: user,
            run_as_group: group,
            supplemental_groups: vec![2000],
            image_user: Some(image.to_owned()).filter(|image| !image.is_empty()),
        };
        let got = identify(&spec, PASSWD, GROUP).ok();
        let expect = expect.map(|(uid, gid, groups, home)| Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        });
        assert_eq!(got, expect, "image {image:?} user {user:?} group {group:?}");
    }

    #[test]
    fn users_of_pod_and_image() {
        check("", None, None, Some((0, 0, &[0, 2000], "/root")));
        check("web", None, None, Some((33, 34, &[34, 70, 71, 2000], "/srv")));
        check("33", None, None, Some((33, 34, &[34, 70, 71, 2000], "/srv")));
        check("web:log", None, None, Some((33, 70, &[70, 71, 2000], "/srv")));
        check("web:5", None, None, Some((33, 5, &[5, 70, 71, 2000], "/srv")));
        check("1234", None, None, Some((1234, 0, &[0, 2000], "/")));
        check("web:log", Some(1000), None, Some((1000, 0, &[0, 2000], "/")));
        check("web", Some(33), Some(9), Some((33, 9, &[9, 70, 71, 2000], "/srv")));
        check("", Some(0), Some(2000), Some((0, 2000, &[2000], "/root")));
    }

    #[test]
    fn strange_users_are_refused_and_never_root() {
        for image in ["nobody", "-1", "4294967296", "2147483648", "web:nogroup", "+0", "0x0", " "] {
            check(image, None, None, None);
        }
        check("", Some(u32::MAX), None, None);
        check("", None, Some(2_147_483_648), None);
    }
}
