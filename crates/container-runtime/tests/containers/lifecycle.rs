//! Starts that fail, stops, commands, restarts of the agent, deaths of the shim.

use std::fs;
use std::time::{Duration, Instant};

use cri::{ContainerState, ExitReason, RuntimeError, RuntimeService, SandboxState};
use futures::StreamExt;

use crate::bench::{Bench, LONG, can_run, processes_with, slowdown};

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn programs_that_cannot_be_executed() {
    if !can_run("programs_that_cannot_be_executed") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    fs::write(bench.path("layer/bin/orphan"), "#!/bin/nothing\n").unwrap();
    fs::set_permissions(bench.path("layer/bin/orphan"), fs::metadata("/bin/busybox").unwrap().permissions()).unwrap();
    for (name, command, code, message) in [
        ("a", "foo", 127, "exec: \"foo\": executable file not found in $PATH"),
        ("b", "/no/foo", 127, "exec: \"/no/foo\": stat /no/foo: no such file or directory"),
        ("c", "/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        (
            "d",
            "orphan",
            127,
            "exec: \"orphan\": no such file or directory (is its interpreter or loader in the image?)",
        ),
    ] {
        let id = bench.runtime.create_container(&sandbox, bench.container(name, &[command])).await.unwrap();
        match bench.runtime.start_container(&id).await {
            Err(RuntimeError::StartContainer { container, why }) => assert_eq!((&*container, &*why), (name, message)),
            other => panic!("{command}: {other:?}"),
        }
        assert_eq!(bench.ended(&id).await, (code, ExitReason::ContainerCannotRun, message.to_owned()));
    }
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_users_are_refused() {
    if !can_run("unknown_users_are_refused") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let mut config = bench.script("app", "id");
    config.image.config.user = Some("4294967296".to_owned());
    let id = bench.runtime.create_container(&sandbox, config).await.unwrap();
    assert!(bench.runtime.start_container(&id).await.is_err());
    assert_eq!(bench.ended(&id).await.1, ExitReason::ContainerCannotRun);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn stops_with_grace_and_without() {
    if !can_run("stops_with_grace_and_without") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let polite = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let id = bench.start(&sandbox, bench.script("polite", polite)).await;
    bench.logged("polite", "up").await;
    bench.runtime.stop_container(&id, LONG).await.unwrap();
    assert_eq!(bench.ended(&id).await.0, 5);
    assert_eq!(bench.log("polite"), "up\nbye\n");

    let stubborn = "trap '' TERM; echo up; sleep 1000 & while :; do sleep 0.05; done";
    let id = bench.start(&sandbox, bench.script("stubborn", stubborn)).await;
    bench.logged("stubborn", "up").await;
    let before = Instant::now();
    bench.runtime.stop_container(&id, Duration::from_millis(300)).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300) && before.elapsed() < LONG);
    assert_eq!(bench.ended(&id).await.0, 137);
    bench.runtime.stop_container(&id, LONG).await.unwrap();

    let mut own_signal = bench.script("usr1", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done");
    own_signal.image.config.stop_signal = Some("SIGUSR1".to_owned());
    let id = bench.start(&sandbox, own_signal).await;
    bench.logged("usr1", "up").await;
    bench.runtime.stop_container(&id, LONG).await.unwrap();
    assert_eq!(bench.ended(&id).await.0, 9);

    let created = bench.runtime.create_container(&sandbox, bench.script("never", "echo no")).await.unwrap();
    bench.runtime.stop_container(&created, LONG).await.unwrap();
    assert_eq!(bench.ended(&created).await.0, 137);
    bench.runtime.remove_container(&created).await.unwrap();
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn commands_in_a_container() {
    if !can_run("commands_in_a_container") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let mut config = bench.script("app", "touch /marker; sleep 1000");
    config.env = vec![("A".to_owned(), "1".to_owned())];
    config.security.run_as_user = Some(33);
    config.security.no_new_privileges = true;
    config.working_dir = Some("/data".to_owned());
    let id = bench.start(&sandbox, config).await;
    let exec = |script: &str| {
        let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let (runtime, id) = (bench.runtime.clone(), id.clone());
        async move { runtime.exec_sync(&id, &command, LONG).await.unwrap() }
    };
    let outcome = exec("id -u; pwd; echo $A; hostname; echo oops >&2; exit 7").await;
    assert_eq!(outcome.exit_code, 7);
    assert_eq!(String::from_utf8_lossy(&outcome.stdout), "33\n/data\n1\nweb-0\n");
    assert_eq!(outcome.stderr, b"oops\n");
    let outcome = exec(
        "grep -E 'Cap(Inh|Eff|Bnd)|NoNew|Seccomp:' /proc/self/status; readlink /proc/self/ns/pid; \
                        readlink /proc/1/ns/pid; ls /proc/self/fd | wc -l; cat /proc/self/cgroup",
    )
    .await;
    let text = String::from_utf8_lossy(&outcome.stdout).replace('\t', "");
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.starts_with("CapInh:0000000000000000\nCapEff:0000000000000000\nCapBnd:00000000a80425fb"), "{text}");
    assert!(text.contains("NoNewPrivs:1\nSeccomp:2\n"), "{text}");
    assert!(lines.iter().any(|line| line.ends_with("pids:/") || *line == "0::/"), "in the container's cgroup: {text}");

    let outcome = exec("yes | head -c 1000000").await;
    assert_eq!(outcome.stdout.len(), 64 * 1024);
    let outcome = bench.runtime.exec_sync(&id, &words("nonesuch"), LONG).await.unwrap();
    assert_eq!(outcome.exit_code, 127);
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("not found in $PATH"));

    let before = Instant::now();
    let outcome = bench.runtime.exec_sync(&id, &words("sleep 777"), Duration::from_millis(200)).await;
    assert!(matches!(outcome, Err(RuntimeError::ExecTimeout { .. })), "{outcome:?}");
    assert!(before.elapsed() < Duration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!String::from_utf8_lossy(&exec("ps").await.stdout).contains("sleep 777"));
    // A child that keeps the pipes open does not keep the caller.
    let outcome = exec("sleep 888 & echo done").await;
    assert_eq!(outcome.stdout, b"done\n");

    bench.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(bench.runtime.exec_sync(&id, &words("true"), LONG).await.is_err());
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn events_tell_of_starts_and_ends() {
    if !can_run("events_tell_of_starts_and_ends") {
        return;
    }
    let bench = Bench::new().await;
    let mut events = bench.runtime.events();
    let sandbox = bench.sandbox("u1").await;
    let id = bench.start(&sandbox, bench.script("app", "sleep 0.1")).await;
    for _ in 0..2 {
        let event = tokio::time::timeout(LONG, events.next()).await.unwrap().unwrap();
        assert_eq!((event.pod_uid.as_str(), &event.container), ("u1", &id));
    }
    assert_eq!(bench.ended(&id).await.0, 0);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_new_agent_finds_what_runs() {
    if !can_run("a_new_agent_finds_what_runs") {
        return;
    }
    let mut bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let runs = bench.start(&sandbox, bench.script("runs", "echo first; sleep 0.5; echo second; sleep 1000")).await;
    let ended = bench.start(&sandbox, bench.script("ended", "exit 4")).await;
    bench.ended(&ended).await;
    let created = bench.runtime.create_container(&sandbox, bench.script("created", "echo ran")).await.unwrap();
    let before = bench.runtime.list_containers().await.unwrap();
    let shims = processes_with(bench.dir.path().to_str().unwrap());

    bench.reopen().await;
    assert_eq!(bench.runtime.list_containers().await.unwrap(), before);
    assert_eq!(processes_with(bench.dir.path().to_str().unwrap()), shims);
    assert_eq!(bench.runtime.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::Ready);
    bench.logged("runs", "second").await;
    assert_eq!(bench.runtime.exec_sync(&runs, &words("echo hi"), LONG).await.unwrap().stdout, b"hi\n");
    bench.runtime.start_container(&created).await.unwrap();
    bench.ended(&created).await;
    assert_eq!(bench.log("created"), "ran\n");
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

fn shim_pid(bench: &Bench) -> i32 {
    let state = fs::read_to_string(bench.path("run/u1/state.json")).expect("a state file");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    state["shim"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
}

#[tokio::test]
async fn a_shim_that_dies_takes_its_containers_along() {
    if !can_run("a_shim_that_dies_takes_its_containers_along") {
        return;
    }
    let mut bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let runs = bench.start(&sandbox, bench.script("runs", "sleep 98765")).await;
    let ended = bench.start(&sandbox, bench.script("ended", "exit 4")).await;
    bench.ended(&ended).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim_pid(&bench)), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(bench.ended(&runs).await.1, ExitReason::SandboxLost);
    assert_eq!(bench.ended(&ended).await.0, 4);
    assert_eq!(bench.runtime.list_pod_sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    assert!(processes_with("98765").is_empty());
    assert!(bench.runtime.create_container(&sandbox, bench.script("late", "true")).await.is_err());

    bench.reopen().await;
    assert_eq!(bench.ended(&runs).await.1, ExitReason::SandboxLost);
    bench.runtime.remove_container(&runs).await.unwrap();
    assert_eq!(bench.runtime.list_containers().await.unwrap().len(), 1);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn stopped_sandboxes_keep_their_records() {
    if !can_run("stopped_sandboxes_keep_their_records") {
        return;
    }
    let mut bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let id = bench.start(&sandbox, bench.script("app", "sleep 1000")).await;
    bench.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    bench.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.ended(&id).await, (137, ExitReason::Error, String::new()));
    assert!(processes_with(bench.dir.path().to_str().unwrap()).is_empty());
    bench.reopen().await;
    assert_eq!(bench.ended(&id).await, (137, ExitReason::Error, String::new()));
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn sandboxes_that_cannot_stand_leave_nothing() {
    if !can_run("sandboxes_that_cannot_stand_leave_nothing") {
        return;
    }
    let bench = Bench::new().await;
    let mut pod = bench.pod("u1");
    pod.network = cri::NetworkAttachment::Namespace { ip: [10, 0, 0, 1].into(), path: "/nonexistent".into() };
    let error = bench.runtime.run_pod_sandbox(pod).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    assert_eq!(bench.traces(), Vec::<String>::new());
    for uid in ["../x", "", "a/b"] {
        assert!(bench.runtime.run_pod_sandbox(bench.pod(uid)).await.is_err());
    }
}

#[tokio::test]
async fn many_pods_at_once_and_nothing_is_left() {
    if !can_run("many_pods_at_once_and_nothing_is_left") {
        return;
    }
    let bench = Bench::new().await;
    let pods = (0..6).map(|pod| {
        let bench = &bench;
        async move {
            let sandbox = bench.sandbox(&format!("pod{pod}")).await;
            let mut ids = Vec::new();
            for container in 0..3 {
                let name = format!("c{pod}-{container}");
                ids.push(bench.start(&sandbox, bench.script(&name, "echo $$; cat /etc/hostname")).await);
            }
            for id in &ids {
                assert_eq!(bench.ended(id).await.0, 0);
            }
            for container in 0..3 {
                assert_eq!(bench.log(&format!("c{pod}-{container}")), "1\nweb-0\n");
            }
            bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        }
    });
    futures::future::join_all(pods).await;
    assert!(bench.runtime.list_containers().await.unwrap().is_empty());
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn starts_are_fast() {
    if !can_run("starts_are_fast") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let mut times = Vec::new();
    for attempt in 0..12 {
        let config = cri::ContainerConfig { attempt, ..bench.container("app", &["true"]) };
        let before = Instant::now();
        let id = bench.start(&sandbox, config).await;
        times.push(before.elapsed());
        bench.ended(&id).await;
        assert!(matches!(
            bench.runtime.container_status(&id).await.unwrap().state,
            ContainerState::Exited { exit_code: 0, .. }
        ));
    }
    times.sort_unstable();
    println!("create+start: min {:?} median {:?} max {:?}", times[0], times[6], times[11]);
    // The machine may be busy; this only catches what became slow by an order of magnitude.
    assert!(times[6] < Duration::from_millis(250) * slowdown(), "{times:?}");
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}
