//! A container runs, is heard, and ends.

use cri::{ExitReason, RuntimeError, RuntimeService};

use crate::bench::{Bench, can_run};

#[tokio::test]
async fn runs_and_logs() {
    if !can_run("runs_and_logs") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let id = bench.start(&sandbox, bench.script("app", "echo out; echo err >&2; echo -n tail; exit 3")).await;
    assert_eq!(bench.ended(&id).await, (3, ExitReason::Error, String::new()));
    let raw = std::fs::read_to_string(bench.path("logs/app.log")).unwrap();
    let mut lines: Vec<&str> = raw.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout F tail"]);
    let stamp: jiff::Timestamp = raw.split(' ').next().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(stamp).as_secs() < 60);
    bench.runtime.remove_container(&id).await.unwrap();
    assert!(matches!(bench.runtime.container_status(&id).await, Err(RuntimeError::NotFound { .. })));
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}
