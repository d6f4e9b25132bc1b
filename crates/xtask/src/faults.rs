//! `cargo xtask faults [--rounds N] [--seed S]`: real servers with faults, over as many rounds as there is time
//! for, and a table of what was seen.
//!
//! Owns: the table. May not know: what a fault does or what is right; tests that fail say so themselves.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{cargo, run as run_command, target_directory};
use crate::{examples, test};

const ROUNDS: &str = "10";
/// The tests that let faults happen in rounds.
const TESTS: [&str; 4] = ["kill", "pause", "partition", "power_cut"];

pub fn run(args: &[String]) -> Result<()> {
    let (rounds, seed) = options(args)?;
    let folder = examples::build()?;
    run_command(&mut test::with_examples(&["build", "--package", "knarr", "--locked"], &folder))?;
    let target = target_directory()?;
    let report = target.join("faults.jsonl");
    // Lines are added to it.
    if report.exists() {
        std::fs::remove_file(&report).context("cannot remove the last report")?;
    }
    let mut command = cargo();
    command.args(["test", "--package", "servers", "--locked", "--no-fail-fast"]);
    command.args(TESTS.iter().flat_map(|name| ["--test", name])).args(["--", "--nocapture"]);
    command.env("KNARR_BIN", target.join("debug/knarr")).env("KNARR_E2E", "require");
    command.env("KNARR_FAULT_ROUNDS", rounds).env("KNARR_FAULT_REPORT", &report);
    if let Some(seed) = seed {
        command.env("KNARR_FAULT_SEED", seed);
    }
    let passed = run_command(&mut command);
    print!("{}", table(&read(&report)?));
    passed
}

/// Rounds and seed.
fn options(args: &[String]) -> Result<(String, Option<String>)> {
    let (mut rounds, mut seed) = (ROUNDS.to_owned(), None);
    for pair in args.chunks(2) {
        match pair {
            [name, value] if value.parse::<u64>().is_err() => bail!("{name} takes a number, not {value:?}"),
            [name, value] if name == "--rounds" => rounds.clone_from(value),
            [name, value] if name == "--seed" => seed = Some(value.clone()),
            _ => bail!("there is no option {:?}: cargo xtask faults [--rounds N] [--seed S]", pair[0]),
        }
    }
    Ok((rounds, seed))
}

fn read(report: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(report).with_context(|| format!("no round ended: no {}", report.display()))?;
    text.lines().map(|line| serde_json::from_str(line).context("the report has a broken line")).collect()
}

/// A row for each kind of fault, and one for all.
fn table(rounds: &[Value]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for round in rounds {
        kinds.entry(round["fault"].as_str().unwrap_or_default()).or_default().push(round);
    }
    let mut text = format!(
        "\n{:<30}{:>6}{:>9}{:>8}{:>8}{:>9}{:>9}{:>6}{:>6}{:>7}{:>7}\n",
        "fault", "rounds", "writes", "unknown", "reads", "events", "resumed", "lost", "gaps", "stale", "absurd"
    );
    for (kind, rounds) in &kinds {
        text += &row(kind, rounds);
    }
    text += &row("all", &rounds.iter().collect::<Vec<_>>());
    for (kind, rounds) in &kinds {
        let mut silences: Vec<u64> = rounds.iter().filter_map(|round| round["silenceMs"].as_u64()).collect();
        silences.sort_unstable();
        if let Some(most) = silences.last() {
            let (median, p99) = (percentile(&silences, 50), percentile(&silences, 99));
            text += &format!(
                "\n{kind}: without an acknowledged write for {median} ms (median), {p99} (p99), {most} (max)\n"
            );
        }
    }
    text
}

fn row(name: &str, rounds: &[&Value]) -> String {
    let sum = |field: &str| -> u64 { rounds.iter().filter_map(|round| round[field].as_u64()).sum() };
    format!(
        "{name:<30}{:>6}{:>9}{:>8}{:>8}{:>9}{:>9}{:>6}{:>6}{:>7}{:>7}\n",
        rounds.len(),
        sum("acknowledged"),
        sum("unknown"),
        sum("reads"),
        sum("events"),
        sum("resumed"),
        sum("lost"),
        sum("gaps"),
        sum("stale"),
        sum("absurd")
    )
}

/// The smallest that so many of a hundred do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_for_each_kind_and_the_silences() {
        let round =
            |fault: &str, silence: Option<u64>| json!({ "fault": fault, "acknowledged": 10, "silenceMs": silence });
        let rounds = [round("kill", Some(900)), round("kill", Some(700)), round("cut", None)];
        let table = table(&rounds);
        let row = |name: &str| -> Vec<String> {
            let line = table.lines().find(|line| line.starts_with(name)).expect("a row");
            line.split_whitespace().skip(1).take(2).map(str::to_owned).collect()
        };
        assert_eq!(
            (row("kill"), row("cut"), row("all")),
            (vec!["2".into(), "20".into()], vec!["1".into(), "10".into()], vec!["3".into(), "30".into()])
        );
        assert!(
            table.ends_with("kill: without an acknowledged write for 700 ms (median), 900 (p99), 900 (max)\n"),
            "{table}"
        );
    }

    #[test]
    fn options_are_numbers() {
        let args = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(options(&args("--seed 7 --rounds 3")).unwrap(), ("3".to_owned(), Some("7".to_owned())));
        assert_eq!(options(&[]).unwrap(), (ROUNDS.to_owned(), None));
        for bad in ["--rounds", "--rounds many", "--times 3"] {
            assert!(options(&args(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let numbers: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&numbers, 50), percentile(&numbers, 99), percentile(&[], 99)), (100, 198, 0));
    }
}
