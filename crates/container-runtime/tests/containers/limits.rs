//! Limits bite, and only where they should.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cri::{ContainerConfig, ExitReason, Resources, RuntimeService};

use crate::bench::{Bench, LONG, can_run};

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn directory(bench: &Bench, group: &str, controller: &str) -> PathBuf {
    let hierarchy = if is_v2() { "" } else { controller };
    Path::new("/sys/fs/cgroup").join(hierarchy).join(&bench.cgroups).join(group)
}

fn file(bench: &Bench, group: &str, controller: &str, v1: &str, v2: &str) -> String {
    let path = directory(bench, group, controller).join(if is_v2() { v2 } else { v1 });
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[tokio::test]
async fn memory_limit_kills_one_container() {
    if !can_run("memory_limit_kills_one_container") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let bystander = bench.start(&sandbox, bench.script("bystander", "sleep 60")).await;
    let mut hog = bench.container("hog", &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]);
    hog.resources.memory_limit_bytes = Some(32 << 20);
    let hog = bench.start(&sandbox, hog).await;
    let (code, reason, _) = bench.ended(&hog).await;
    assert_eq!((code, reason), (137, ExitReason::OomKilled), "{}", bench.log("hog"));
    let stats = bench.runtime.list_stats().await.unwrap();
    assert_eq!(stats.len(), 1);
    assert_eq!(stats[0].id, bystander);
    assert!(stats[0].cpu_usage_nanos > 0 && stats[0].memory_working_set_bytes > 0);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn memory_limit_of_the_pod_kills_a_container_and_nothing_else() {
    if !can_run("memory_limit_of_the_pod_kills_a_container_and_nothing_else") {
        return;
    }
    let bench = Bench::new().await;
    let mut pod = bench.pod("u1");
    pod.resources.memory_limit_bytes = Some(32 << 20);
    let sandbox = bench.runtime.run_pod_sandbox(pod).await.unwrap();
    // It says that it may be killed last, as one with all its requests met.
    let polite = Resources { memory_limit_bytes: Some(16 << 20), ..Resources::default() };
    let bystander = ContainerConfig { resources: polite, ..bench.script("bystander", "sleep 60") };
    let bystander = bench.start(&sandbox, bystander).await;
    let hog = bench.container("hog", &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]);
    let hog = bench.start(&sandbox, hog).await;
    let (code, reason, _) = bench.ended(&hog).await;
    assert_eq!((code, reason), (137, ExitReason::OomKilled), "{}", bench.log("hog"));
    let stats = bench.runtime.list_stats().await.unwrap();
    assert_eq!(stats.iter().map(|stats| &stats.id).collect::<Vec<_>>(), [&bystander]);
    assert_eq!(bench.runtime.list_pod_sandboxes().await.unwrap()[0].state, cri::SandboxState::Ready);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn cpu_limit_slows_a_busy_container() {
    if !can_run("cpu_limit_slows_a_busy_container") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let mut busy = bench.script("busy", "while :; do :; done");
    busy.resources.cpu_limit_millis = Some(100);
    bench.start(&sandbox, busy).await;
    let throttled = || {
        let text = file(&bench, "u1/busy-0", "cpu", "cpu.stat", "cpu.stat");
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap_or("0").to_owned();
        line.parse::<u32>().unwrap()
    };
    let deadline = Instant::now() + LONG;
    while throttled() < 3 {
        assert!(Instant::now() < deadline, "it was never slowed down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let used = async || bench.runtime.list_stats().await.unwrap()[0].cpu_usage_nanos;
    let (began, before) = (Instant::now(), used().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (after, nanos) = (used().await, u64::try_from(began.elapsed().as_nanos()).unwrap());
    // A tenth of the time, and what two periods may give at the edges.
    assert!(after > before && after - before < nanos / 10 + 30_000_000, "{} ns of {nanos}", after - before);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn limits_change_while_a_container_runs() {
    if !can_run("limits_change_while_a_container_runs") {
        return;
    }
    let bench = Bench::new().await;
    let of = |cpu: u64, mebibytes: u64| Resources {
        memory_limit_bytes: Some(mebibytes << 20),
        cpu_limit_millis: Some(cpu),
        cpu_request_millis: Some(cpu),
        pids_limit: None,
    };
    let mut pod = bench.pod("u1");
    pod.resources = of(100, 32);
    let sandbox = bench.runtime.run_pod_sandbox(pod).await.unwrap();
    let hold = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; echo held; sleep 1000";
    let app = ContainerConfig { resources: of(100, 32), ..bench.script("app", hold) };
    let app = bench.start(&sandbox, app).await;
    let update = async |pod: Resources, container: Resources| {
        let container = Some((app.clone(), container));
        bench.runtime.update_resources(cri::ResourceUpdate { sandbox: sandbox.clone(), pod, container }).await
    };
    let seen = |group: &str| {
        let quota = file(&bench, group, "cpu", "cpu.cfs_quota_us", "cpu.max");
        let memory = file(&bench, group, "memory", "memory.limit_in_bytes", "memory.max");
        let quota = quota.split(' ').next().unwrap_or_default().parse::<u64>().unwrap();
        (quota, memory.parse::<u64>().unwrap() >> 20)
    };
    assert_eq!(seen("u1/app-0"), (10_000, 32));
    // Up and down, and in both directions at once: the shim's share is on top of the pod's.
    for (cpu, mebibytes) in [(400, 64), (200, 48), (300, 40), (100, 80)] {
        update(of(cpu, mebibytes), of(cpu, mebibytes)).await.unwrap();
        assert_eq!((seen("u1/app-0"), seen("u1")), ((cpu * 100, mebibytes), (cpu * 100, mebibytes + 24)));
    }
    let deadline = Instant::now() + LONG;
    while !bench.log("app").contains("held") {
        assert!(Instant::now() < deadline, "it never held its memory");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = update(of(100, 8), of(100, 8)).await.unwrap_err().to_string();
    assert!(refused.contains("bytes in use"), "{refused}");
    assert_eq!((seen("u1/app-0"), seen("u1")), ((10_000, 80), (10_000, 104)), "nothing changed");
    // Without a limit, and a pod alone.
    update(Resources::default(), of(100, 80)).await.unwrap();
    let pod_memory = file(&bench, "u1", "memory", "memory.limit_in_bytes", "memory.max");
    assert!(pod_memory == "max" || pod_memory.parse::<u64>().unwrap() > 1 << 62, "{pod_memory}");
    let alone = cri::ResourceUpdate { sandbox: sandbox.clone(), pod: of(200, 90), container: None };
    bench.runtime.update_resources(alone).await.unwrap();
    assert_eq!((seen("u1"), seen("u1/app-0")), ((20_000, 114), (10_000, 80)));
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn cgroups_go_with_their_owners() {
    if !can_run("cgroups_go_with_their_owners") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let id = bench.start(&sandbox, bench.script("app", "sleep 1000 & sleep 1000")).await;
    let exists = |group| ["memory", "cpu", "pids"].map(|controller| directory(&bench, group, controller).exists());
    assert_eq!((exists("u1"), exists("u1/app-0"), exists("u1/shim")), ([true; 3], [true; 3], [true; 3]));
    bench.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    bench.runtime.remove_container(&id).await.unwrap();
    assert_eq!((exists("u1"), exists("u1/app-0")), ([true; 3], [false; 3]));
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(exists("u1"), [false; 3]);
}

#[tokio::test]
async fn limits_are_written() {
    if !can_run("limits_are_written") {
        return;
    }
    let bench = Bench::new().await;
    let mut pod = bench.pod("u1");
    pod.resources.cpu_limit_millis = Some(2000);
    let sandbox = bench.runtime.run_pod_sandbox(pod).await.unwrap();
    let mut config = bench.script("app", "sleep 60");
    config.resources = Resources {
        memory_limit_bytes: Some(64 << 20),
        cpu_limit_millis: Some(500),
        cpu_request_millis: Some(250),
        pids_limit: Some(20),
    };
    bench.start(&sandbox, config).await;
    bench.start(&sandbox, bench.script("free", "sleep 60")).await;
    let read = |controller, v1, v2| file(&bench, "u1/app-0", controller, v1, v2);
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "20");
    if is_v2() {
        assert_eq!(read("cpu", "", "cpu.max"), "50000 100000");
        assert_eq!(file(&bench, "u1", "cpu", "", "cpu.max"), "200000 100000");
        let ends_all = ["u1", "u1/app-0", "u1/free-0"].map(|group| file(&bench, group, "", "", "memory.oom.group"));
        assert_eq!(ends_all, ["0", "1", "1"]);
    } else {
        assert_eq!(read("cpu", "cpu.cfs_quota_us", ""), "50000");
        assert_eq!(read("cpu", "cpu.shares", ""), "256");
        assert_eq!(file(&bench, "u1", "cpu", "cpu.cfs_quota_us", ""), "200000");
    }
    assert_eq!(file(&bench, "u1/free-0", "pids", "pids.max", "pids.max"), "4096");
    assert_eq!(file(&bench, "u1/app-0", "pids", "cgroup.procs", "cgroup.procs").lines().count(), 1);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn pids_limit_stops_forks() {
    if !can_run("pids_limit_stops_forks") {
        return;
    }
    let bench = Bench::new().await;
    let mut config = bench.script("app", "for i in $(seq 20); do sleep 5 & done; echo all forked");
    config.resources.pids_limit = Some(8);
    let (code, log) = bench.run(config).await;
    assert!(code != 0 && !log.contains("all forked"), "{code} {log}");
}
