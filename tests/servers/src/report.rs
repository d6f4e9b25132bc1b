//! One line of JSON for each round, for `cargo xtask faults`.
//!
//! Owns: the names of the fields. May not know: what the table looks like.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::verdict::Verdict;

/// Names the file.
const VARIABLE: &str = "KNARR_FAULT_REPORT";

pub struct Line<'a> {
    pub fault: &'a str,
    pub round: u64,
    pub seed: u64,
    /// How long no write was acknowledged.
    pub silence: Option<Duration>,
    pub verdict: &'a Verdict,
}

impl Line<'_> {
    pub fn to_json(&self) -> Value {
        let verdict = self.verdict;
        json!({
            "fault": self.fault, "round": self.round, "seed": self.seed,
            "silenceMs": self.silence.map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)),
            "acknowledged": verdict.acknowledged, "unknown": verdict.unknown, "reads": verdict.reads,
            "events": verdict.events, "resumed": verdict.resumed, "lost": verdict.lost.len(),
            "gaps": verdict.gaps.len(), "stale": verdict.stale.len(), "absurd": verdict.absurd.len(),
        })
    }

    /// Adds it to the file that the environment names, if it does.
    pub fn append(&self) {
        let Some(path) = std::env::var_os(VARIABLE) else { return };
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the report's file can be opened"), "{}", self.to_json())
            .expect("the report takes a line");
    }
}
