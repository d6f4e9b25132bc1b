//! `idle`: what a cluster costs that does nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::processes::{self, Process, Usage};
use super::report::Section;
use super::session::Session;

/// Lets what the start set in motion come to rest.
const SETTLE: Duration = Duration::from_secs(5);
const MIB: f64 = 1024.0 * 1024.0;

pub async fn measure(session: &Session<'_>) -> Result<Section> {
    tokio::time::sleep(SETTLE).await;
    let running = processes::of_knarr();
    ensure!(!running.is_empty(), "no process of this binary runs a cluster on this machine");
    let before: Vec<Usage> = running.iter().map(|p| processes::usage_of([p.pid])).collect();
    let began = Instant::now();
    tokio::time::sleep(session.settings.idle).await;
    let seconds = began.elapsed().as_secs_f64();
    let after: Vec<Usage> = running.iter().map(|p| processes::usage_of([p.pid])).collect();

    let columns = &["processes", "pss_mib", "cpu_percent", "written_kib_per_s"];
    let mut section = Section::new("idle", format!("an idle cluster over {seconds:.0} s"), columns);
    for (role, members) in by_role(&running) {
        let pick = |usages: &[Usage]| members.iter().map(|at| usages[*at]).collect::<Vec<_>>();
        section.row(role, costs(&pick(&before), &pick(&after), seconds));
    }
    if running.len() > 1 {
        section.row("all", costs(&before, &after, seconds));
    }
    let program = std::env::current_exe().context("cannot find the own program")?;
    let bytes = std::fs::metadata(&program).context("cannot look at the own program")?.len();
    section.note(format!("the program is {:.1} MiB on disk", bytes as f64 / MIB));
    Ok(section)
}

/// Indexes of processes, by role.
fn by_role(running: &[Process]) -> BTreeMap<&str, Vec<usize>> {
    let mut roles: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, process) in running.iter().enumerate() {
        roles.entry(&process.role).or_default().push(at);
    }
    roles
}

fn costs(before: &[Usage], after: &[Usage], seconds: f64) -> [Option<f64>; 4] {
    let cpu = |usages: &[Usage]| usages.iter().map(|u| u.cpu.as_secs_f64()).sum::<f64>();
    let written = |usages: &[Usage]| usages.iter().map(|u| u.written_bytes).sum::<u64>() as f64;
    let pss = after.iter().map(|u| u.pss_bytes).sum::<u64>() as f64;
    [
        Some(after.len() as f64),
        Some(pss / MIB),
        Some((cpu(after) - cpu(before)) / seconds * 100.0),
        Some((written(after) - written(before)) / 1024.0 / seconds),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_rates_over_the_time() {
        let usage = |mib: u64, cpu_ms: u64, written_kib: u64| Usage {
            pss_bytes: mib << 20,
            cpu: Duration::from_millis(cpu_ms),
            written_bytes: written_kib << 10,
        };
        let (before, after) = ([usage(1, 100, 0), usage(2, 0, 8)], [usage(3, 300, 40), usage(4, 200, 8)]);
        assert_eq!(costs(&before, &after, 2.0), [Some(2.0), Some(7.0), Some(20.0), Some(20.0)]);
    }

    #[test]
    fn processes_of_one_role_are_one_line() {
        let process = |pid, role: &str| Process { pid, role: role.to_owned() };
        let running = [process(1, "shim"), process(2, "knarr up"), process(3, "shim")];
        assert_eq!(by_role(&running), BTreeMap::from([("knarr up", vec![1]), ("shim", vec![0, 2])]));
    }
}
