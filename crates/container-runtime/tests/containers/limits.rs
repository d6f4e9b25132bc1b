//! Limits bite, and only where they should.

use std::fs;
use std::path::{Path, PathBuf};

use cri::{ExitReason, Resources, RuntimeService};

use crate::bench::{Bench, can_run};

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn file(bench: &Bench, group: &str, controller: &str, v1: &str, v2: &str) -> String {
    let root = PathBuf::from("/sys/fs/cgroup");
    let path = if is_v2() {
        root.join(&bench.cgroups).join(group).join(v2)
    } else {
        root.join(controller).join(&bench.cgroups).join(group).join(v1)
    };
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
