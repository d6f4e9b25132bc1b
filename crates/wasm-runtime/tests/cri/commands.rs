//! Programs that run once: exit codes, logs, mounts, stopping.

use std::time::{Duration, Instant};

use cri::{ContainerState, ExitReason, Mount, RuntimeService};

use crate::fixtures;
use crate::world::World;

#[tokio::test]
async fn exit_codes_and_reasons() {
    let world = World::new().await;
    let check = async |name: &str, bytes: Vec<u8>, code: i32, why: ExitReason, text: &str| {
        let (_, id) = world.run_guest(name, &bytes).await;
        let status = world.exited(&id).await;
        let ContainerState::Exited { exit_code, reason, message, .. } = status.state else { unreachable!() };
        assert_eq!((exit_code, reason), (code, why), "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
    };
    check("ok", fixtures::run_component(0), 0, ExitReason::Completed, "").await;
    check("failed", fixtures::run_component(1), 1, ExitReason::Error, "").await;
    check("three", fixtures::prints_and_exits(3), 3, ExitReason::Error, "").await;
    check("trap", fixtures::module_traps(), 134, ExitReason::Error, "unreachable").await;
    check("oom", fixtures::module_grows(), 137, ExitReason::OomKilled, "memory limit").await;
    assert!(world.log("trap").contains(" stderr F "), "{}", world.log("trap"));
    world.clean().await;
}

#[tokio::test]
async fn logs_have_the_cri_form() {
    let world = World::new().await;
    let (_, id) = world.run_guest("logs", &fixtures::prints_and_exits(0)).await;
    world.exited(&id).await;
    let log = world.log("logs");
    let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines, ["stdout F first", "stderr F first", "stdout F second", "stderr F second"]);
    world.clean().await;
}

#[tokio::test]
async fn mounts_are_seen_and_read_only_where_they_are() {
    let world = World::new().await;
    let dir = world.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("greeting.txt"), "hello from a volume\n").unwrap();
    let check = async |name: &str, host: &std::path::Path, guest: &str, read_only: bool, code: i32| {
        let mut container = world.container(name, &fixtures::reads_its_mount(), 1);
        container.mounts = vec![Mount { host_path: host.to_owned(), container_path: guest.to_owned(), read_only }];
        let (_, id) = world.run(world.pod(name), container).await;
        let status = world.exited(&id).await;
        assert!(matches!(status.state, ContainerState::Exited { exit_code, .. } if exit_code == code), "{status:?}");
        assert!(world.log(name).contains("stdout F hello from a volume"), "{}", world.log(name));
    };
    check("ro", &dir, "/data", true, 0).await;
    check("file", &dir.join("greeting.txt"), "/data/greeting.txt", true, 0).await;
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    check("rw", &dir, "/data", false, 9).await;
    world.clean().await;
}

#[tokio::test]
async fn a_spinning_command_holds_up_nobody_and_is_killed_after_its_grace() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(world.run_guest(&format!("spin{number}"), &fixtures::module_spins()).await.1);
    }
    let (_, quick) = world.run_guest("quick", &fixtures::run_component(0)).await;
    world.exited(&quick).await;
    let begin = Instant::now();
    world.runtime.stop_container(&ids[0], Duration::from_millis(200)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let state = world.runtime.container_status(&ids[0]).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, .. }), "{state:?}");
    let stats = world.runtime.list_stats().await.unwrap();
    let spent = stats.iter().find(|one| one.id == ids[1]).unwrap();
    assert!(spent.cpu_usage_nanos > 1_000_000, "{spent:?}");
    world.clean().await;
}

#[tokio::test]
async fn exec_calls_exports() {
    let world = World::new().await;
    let (_, id) = world.run_guest("plugin", &fixtures::plugin()).await;
    let check = async |words: &[&str], code: i32, out: &str, err: &str| {
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let done = world.runtime.exec_sync(&id, &command, Duration::from_secs(10)).await.unwrap();
        assert_eq!((done.exit_code, String::from_utf8_lossy(&done.stdout).as_ref()), (code, out));
        assert!(String::from_utf8_lossy(&done.stderr).contains(err), "{done:?}");
    };
    check(&["add", "2", "40"], 0, "42\n", "").await;
    check(&["add", "2"], 2, "", "takes 2 arguments (a, b), got 1").await;
    check(&["sh", "-c", "ls"], 127, "", "wasm containers have no shell; exec calls an export").await;
    let spin = world.runtime.exec_sync(&id, &["spin".to_owned()], Duration::from_millis(300)).await;
    assert!(spin.is_err() || spin.unwrap().exit_code == 124);
    world.clean().await;
}
