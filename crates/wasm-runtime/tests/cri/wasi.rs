//! What WASI promises, asked from inside by guests for 0.1, 0.2 and 0.3, where they were built (`cargo xtask
//! wasm-apps`).

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cri::{ContainerConfig, ContainerState, ExitReason, Mount, NetworkAttachment};

use crate::guests::guest;
use crate::world::World;

const SYNC_GUESTS: [&str; 2] = ["wasi-check-p1", "wasi-check"];
const ASYNC_GUEST: &str = "wasi-check-p3";
const MIB: u64 = 1 << 20;

struct Ran {
    code: i32,
    reason: ExitReason,
    message: String,
    log: String,
}

/// Runs a guest to its end as a container that `change` has changed.
async fn ran(world: &World, bytes: &[u8], arguments: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> Ran {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let name = format!("check-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut container = world.container(&name, bytes, 1);
    container.args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    change(&mut container);
    let (_, id) = world.run(world.pod(&name), container).await;
    let ContainerState::Exited { exit_code, reason, message, .. } = world.exited(&id).await.state else {
        unreachable!()
    };
    Ran { code: exit_code, reason, message, log: world.log(&name) }
}

/// Every promise of a group is kept, and there are at least `promises`.
async fn kept(world: &World, name: &str, arguments: &[&str], mounts: &[Mount], promises: usize) -> Option<Ran> {
    let bytes = guest(name)?;
    let ran = ran(world, &bytes, arguments, |container| container.mounts = mounts.to_vec()).await;
    let broken: Vec<&str> = ran.log.lines().filter(|line| line.contains("BROKEN")).collect();
    assert!(broken.is_empty(), "{name} {arguments:?}: {broken:#?}");
    let count = ran.log.lines().filter(|line| line.contains(" F kept ")).count();
    assert!(count >= promises && ran.log.contains("done"), "{name} {arguments:?}: {} {}", ran.message, ran.log);
    assert_eq!((ran.code, ran.reason), (0, ExitReason::Completed), "{name} {arguments:?}");
    Some(ran)
}

fn mount(dir: &Path, read_only: bool) -> Mount {
    Mount { host_path: dir.to_owned(), container_path: "/data".to_owned(), read_only }
}

/// A directory that a host process may write to.
fn volume(world: &World, name: &str) -> std::path::PathBuf {
    let dir = world.path().join(name).join("volume");
    std::fs::create_dir_all(&dir).unwrap();
    for path in [dir.parent().unwrap(), &dir] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    dir
}

fn now() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string()
}

#[tokio::test]
async fn time_entropy_and_streams() {
    let world = World::new().await;
    for name in SYNC_GUESTS {
        kept(&world, name, &["clocks", &now()], &[], 4).await;
        kept(&world, name, &["poll"], &[], 1).await;
        kept(&world, name, &["threads"], &[], 1).await;
        let (first, second) =
            (kept(&world, name, &["random"], &[], 3).await, kept(&world, name, &["random"], &[], 3).await);
        let (Some(first), Some(second)) = (first, second) else { continue };
        let number = |ran: &Ran| ran.log.lines().find_map(|line| Some(line.split_once("random ")?.1.to_owned()));
        assert!(number(&first).is_some() && number(&first) != number(&second), "{name}: instances share entropy");
        let said = kept(&world, name, &["streams", "40000"], &[], 4).await.expect("the guest was built").log;
        // A long line is cut, and each piece but the last is marked.
        let pieces = said.lines().filter(|line| line.contains(" stdout P x")).count();
        assert_eq!(pieces, 2, "{name}");
        assert!(said.contains(" stderr F to the other stream"), "{name}: {said}");
        assert!(said.contains(" stdout F a last line without an end: done"), "{name}: {said}");
    }
    world.clean().await;
}

#[tokio::test]
async fn files_of_a_mount() {
    let world = World::new().await;
    for name in SYNC_GUESTS {
        let dir = volume(&world, name);
        kept(&world, name, &["files", "/data"], &[mount(&dir, false)], 45).await;
    }
    let dir = volume(&world, ASYNC_GUEST);
    kept(&world, ASYNC_GUEST, &["all", &now()], &[mount(&dir, false)], 20).await;
    world.clean().await;
}

#[tokio::test]
async fn what_is_read_only_stays_as_it_is() {
    let world = World::new().await;
    for name in SYNC_GUESTS {
        let dir = volume(&world, name);
        std::fs::write(dir.join("there"), "as it was").unwrap();
        std::fs::create_dir(dir.join("dir")).unwrap();
        for path in [dir.join("there"), dir.join("dir")] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        }
        kept(&world, name, &["read-only", "/data"], &[mount(&dir, true)], 13).await;
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "{name}");
    }
    world.clean().await;
}

#[tokio::test]
async fn nothing_leads_out_of_a_mount() {
    let world = World::new().await;
    let check = async |name: &str, arguments: &[&str]| {
        let dir = volume(&world, name);
        let parent = dir.parent().unwrap();
        std::fs::write(parent.join("secret"), "kept").unwrap();
        // Anybody may write to it: what protects it is the mount alone.
        std::fs::set_permissions(parent.join("secret"), PermissionsExt::from_mode(0o666)).unwrap();
        let links = [("../secret", "to-secret"), ("/etc/passwd", "to-etc"), ("..", "to-parent"), ("/", "to-root")];
        for (target, link) in links {
            symlink(target, dir.join(link)).unwrap();
        }
        kept(&world, name, arguments, &[mount(&dir, false)], 20).await;
        assert_eq!(std::fs::read_to_string(parent.join("secret")).unwrap(), "kept", "{name}");
        let left: Vec<_> = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{name}: {left:?}");
        assert!(!dir.join("stolen").exists(), "{name}");
    };
    for name in SYNC_GUESTS {
        check(name, &["escape", "/data"]).await;
    }
    check(ASYNC_GUEST, &["escape"]).await;
    world.clean().await;
}

#[tokio::test]
async fn arguments_environment_and_ends() {
    let world = World::new().await;
    for name in SYNC_GUESTS {
        let Some(bytes) = guest(name) else { continue };
        let said = ran(&world, &bytes, &["arguments", "two words", "", "ünïcode"], |_| ()).await.log;
        assert!(said.contains(r#"["guest.wasm", "arguments", "two words", "", "ünïcode"]"#), "{name}: {said}");
        let said = ran(&world, &bytes, &["environment"], |container| {
            container.env = vec![("A".to_owned(), "1 = 2".to_owned()), ("EMPTY".to_owned(), String::new())];
            container.working_dir = Some("/srv".to_owned());
        });
        let said = said.await.log;
        // And nothing of the host's own.
        assert!(said.contains(r#"["A=1 = 2", "EMPTY="]"#), "{name}: {said}");
        let check = async |arguments: &[&str], code: i32, reason: ExitReason, message: &str, log: &str| {
            let limit = |container: &mut ContainerConfig| container.resources.memory_limit_bytes = Some(64 * MIB);
            let ran = ran(&world, &bytes, arguments, limit).await;
            assert_eq!((ran.code, ran.reason), (code, reason), "{name} {arguments:?}: {}", ran.message);
            assert!(ran.message.contains(message), "{name} {arguments:?}: {}", ran.message);
            assert!(ran.log.contains(log), "{name} {arguments:?}: {}", ran.log);
        };
        check(&["exit", "0"], 0, ExitReason::Completed, "", "").await;
        // WASI 0.2 knows success and failure only.
        let seven = if name == "wasi-check" { 1 } else { 7 };
        check(&["exit", "7"], seven, ExitReason::Error, "", "").await;
        check(&["panic"], 134, ExitReason::Error, "unreachable", "as asked").await;
        check(&["recurse"], 134, ExitReason::Error, "", "").await;
        check(&["allocate", "16"], 0, ExitReason::Completed, "", "16").await;
        check(&["allocate", "100"], 137, ExitReason::OomKilled, "memory limit", "").await;
        check(&["no-group"], if name == "wasi-check" { 1 } else { 2 }, ExitReason::Error, "", "no group").await;
    }
    if let Some(bytes) = guest(ASYNC_GUEST) {
        for (arguments, code) in [(["fail", ""], 1), (["exit", "0"], 0), (["exit", "7"], 7)] {
            let ran = ran(&world, &bytes, &arguments, |_| ()).await;
            assert_eq!(ran.code, code, "{arguments:?}: {} {}", ran.message, ran.log);
        }
    }
    world.clean().await;
}

/// Answers every connection with `pong`.
fn listener() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut &stream, b"pong");
        }
    });
    address
}

#[tokio::test]
async fn sockets_are_for_those_that_may_use_them() {
    let world = World::new().await;
    let address = listener();
    let check = async |name: &str, own_localhost: bool, allowed: bool, works: &[&str], fails: &[&str]| {
        let Some(bytes) = guest(name) else { return };
        let pod_name = format!("{name}-{own_localhost}-{allowed}");
        let mut pod = world.pod(&pod_name);
        if own_localhost {
            pod.network = NetworkAttachment::Namespace { ip: [127, 0, 0, 1].into(), path: "/proc/self/ns/net".into() };
        }
        if allowed {
            pod.annotations.insert("knarr.dev/allow-sockets".to_owned(), "true".to_owned());
        }
        let mut container = world.container(&pod_name, &bytes, 1);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        container.args = match name {
            ASYNC_GUEST => vec!["sockets".to_owned(), host, port],
            _ => vec!["sockets".to_owned(), address.to_string()],
        };
        let (_, id) = world.run(pod, container).await;
        world.exited(&id).await;
        let log = world.log(&pod_name);
        for what in works {
            assert!(log.contains(&format!(" F {what}")), "{pod_name}: no {what} in {log}");
        }
        for what in fails {
            assert!(log.contains(&format!(" F {what} failed")), "{pod_name}: {what} in {log}");
        }
    };
    let everything = ["connect", "listen", "listen-everywhere", "datagram", "metadata", "resolve"];
    check("wasi-check", false, false, &[], &everything).await;
    // WASI 0.1 has no sockets to be had at all.
    check("wasi-check-p1", true, true, &[], &everything).await;
    // The machine's localhost is not the pod's.
    check("wasi-check", false, true, &["listen-everywhere: "], &["connect", "listen", "metadata", "resolve"]).await;
    check("wasi-check", true, false, &["connect: pong", "listen: ", "datagram: 8"], &["metadata", "resolve"]).await;
    check("wasi-check", true, true, &["connect: pong", "listen: ", "datagram: 8"], &["metadata", "resolve"]).await;
    check(ASYNC_GUEST, false, false, &["connect: Err"], &[]).await;
    check(ASYNC_GUEST, false, true, &["connect: Err"], &[]).await;
    check(ASYNC_GUEST, true, false, &["connect: Ok"], &[]).await;
    world.clean().await;
}
