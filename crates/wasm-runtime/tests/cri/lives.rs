//! Agents come and go, hosts crash: who survives whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::{ContainerState, ExitReason, Isolation, RuntimeService, SandboxState};
use futures::StreamExt;

use crate::fixtures;
use crate::world::{World, free_port, get};

#[tokio::test]
async fn a_new_agent_adopts_what_runs() {
    let mut world = World::new().await;
    let port = free_port();
    let (_, web) = world.run(world.pod("web"), world.container("web", &fixtures::http_ok(), port)).await;
    let (_, done) = world.run_guest("done", &fixtures::prints_and_exits(4)).await;
    world.exited(&done).await;
    let pid = world.host_pid();
    world.reopen().await;
    assert_eq!(world.host_pid(), pid);
    assert_eq!(get(port, "/").await.0, 200);
    let state = world.runtime.container_status(&web).await.unwrap().state;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    let state = world.runtime.container_status(&done).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 4, .. }), "{state:?}");
    // The adopted host takes new work and tells of changes.
    let mut events = world.runtime.events();
    world.runtime.stop_container(&web, Duration::from_secs(5)).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
    assert_eq!(event.container, web);
    let (_, more) = world.run_guest("more", &fixtures::run_component(0)).await;
    world.exited(&more).await;
    assert_eq!(world.host_pid(), pid);
    world.clean().await;
}

#[tokio::test]
async fn what_ends_while_no_agent_looks_is_found_out() {
    let mut world = World::new().await;
    let (_, id) = world.run_guest("spin", &fixtures::module_spins()).await;
    let pid = nix::unistd::Pid::from_raw(world.host_pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.reopen().await;
    let state = world.runtime.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { reason: ExitReason::SandboxLost, .. }), "{state:?}");
    world.clean().await;
}

#[tokio::test]
async fn a_host_crash_takes_its_own_pods_only() {
    let world = World::new().await;
    let (shared_port, own_port) = (free_port(), free_port());
    let (sandbox, shared) =
        world.run(world.pod("shared"), world.container("shared", &fixtures::http_ok(), shared_port)).await;
    let pid = nix::unistd::Pid::from_raw(world.host_pid().cast_signed());
    let alone = cri::PodSandboxConfig { isolation: Isolation::Pod, ..world.pod("alone") };
    let (_, own) = world.run(alone, world.container("alone", &fixtures::http_ok(), own_port)).await;
    let mut events = world.runtime.events();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
    assert_eq!(event.container, shared);
    let state = world.exited(&shared).await.state;
    assert!(
        matches!(state, ContainerState::Exited { reason: ExitReason::SandboxLost, exit_code: 137, .. }),
        "{state:?}"
    );
    assert_eq!(get(own_port, "/").await.0, 200);
    assert!(matches!(world.runtime.container_status(&own).await.unwrap().state, ContainerState::Running { .. }));
    // The next attempt in the same sandbox gets a new host.
    let again = cri::ContainerConfig { attempt: 1, ..world.container("shared", &fixtures::http_ok(), shared_port) };
    let id = world.runtime.create_container(&sandbox, again).await.unwrap();
    world.runtime.start_container(&id).await.unwrap();
    assert_eq!(get(shared_port, "/").await.0, 200);
    let sandboxes = world.runtime.list_pod_sandboxes().await.unwrap();
    assert!(sandboxes.iter().all(|one| one.state == SandboxState::Ready));
    world.clean().await;
}

#[tokio::test]
async fn a_full_host_gets_another_beside_it() {
    const OPEN_FILES: u64 = 128;
    let mut world = World::with_open_files(OPEN_FILES).await;
    let first = format!("ns-{}", world.namespace);
    let second = format!("{first}.1");
    let mut pods = Vec::new();
    // Each takes two files at least: its log and its port.
    while world.hosts().len() < 2 {
        assert!(pods.len() as u64 <= OPEN_FILES / 2, "{:?}", world.hosts());
        let (name, port) = (format!("pod{}", pods.len()), free_port());
        let (sandbox, _) = world.run(world.pod(&name), world.container(&name, &fixtures::http_ok(), port)).await;
        pods.push((sandbox, name, port));
    }
    assert_eq!(world.hosts(), [first.clone(), second.clone()].into());
    // A container of a pod that is there already stays with its pod.
    let beside = world.container("beside", &fixtures::plugin(), free_port());
    let id = world.runtime.create_container(&pods[0].0, beside).await.unwrap();
    world.runtime.start_container(&id).await.unwrap();
    for (_, name, port) in &pods {
        assert_eq!(get(*port, "/").await.0, 200, "{name}");
    }
    // Who looks for them later finds them where they are, and the second goes with its last pod.
    world.reopen().await;
    for (_, name, port) in &pods {
        assert_eq!(get(*port, "/").await.0, 200, "{name}");
    }
    let (last, _, _) = pods.pop().unwrap();
    world.runtime.remove_pod_sandbox(&last).await.unwrap();
    assert_eq!(world.hosts(), [first].into());
    world.clean().await;
}

#[tokio::test]
async fn a_host_has_no_rights_left() {
    let world = World::new().await;
    world.run_guest("idle", &fixtures::plugin()).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.host_pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert!(std::fs::read(format!("/proc/{}/environ", world.host_pid())).unwrap().is_empty(), "its environment");
    if nix::unistd::geteuid().is_root() {
        assert!(field("Uid").starts_with("65534"), "{}", field("Uid"));
        for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000400", "{set}");
        }
        assert_eq!(field("Groups"), "");
    } else {
        println!("skipped: users and capabilities change only under root");
    }
    world.clean().await;
}

/// Where this machine has memory cgroups that it lets us make.
fn writable_cgroups() -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchy = if root.join("cgroup.controllers").exists() { root.to_owned() } else { root.join("memory") };
    nix::unistd::access(&hierarchy, nix::unistd::AccessFlags::W_OK).is_ok().then_some(hierarchy)
}

#[tokio::test]
async fn a_host_is_in_the_cgroup_of_its_namespace() {
    let Some(cgroups) = writable_cgroups() else {
        println!("skipped: needs root and writable cgroups");
        return;
    };
    let world = World::new().await;
    world.run_guest("done", &fixtures::prints_and_exits(0)).await;
    let group = format!("knarr/wasm/{}", world.namespace);
    let of_host = std::fs::read_to_string(format!("/proc/{}/cgroup", world.host_pid())).unwrap();
    assert!(of_host.lines().any(|line| line.ends_with(&format!(":/{group}"))), "{of_host}");
    assert!(cgroups.join(&group).join("cgroup.procs").exists());
    world.clean().await;
    assert!(!cgroups.join(&group).exists());
}

#[tokio::test]
async fn unknown_things_are_no_error_to_stop() {
    let world = World::new().await;
    let container = cri::ContainerId("none".to_owned());
    let sandbox = cri::SandboxId("none".to_owned());
    world.runtime.stop_container(&container, Duration::ZERO).await.unwrap();
    world.runtime.remove_container(&container).await.unwrap();
    world.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    world.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(world.runtime.container_status(&container).await.is_err());
}
