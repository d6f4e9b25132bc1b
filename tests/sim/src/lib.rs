//! Whole clusters in one process over a simulated network, disk and clock, all of it from a seed. A run records
//! what clients and watches were told; the invariants judge the record. A failure names its seed, and the same seed
//! takes the same course.
//!
//! - [`chance`]: what a seed decides; [`plan`]: which faults a run has
//! - [`disk`], [`network`]: the store's seams, breakable
//! - [`world`], [`client`], [`operator`]: machines, who uses them, who changes the membership
//! - [`run`]: one run; [`record`]: what was seen of it
//! - [`invariant`]: one file for each property; [`linearizable`]: the search that one of them needs

pub mod chance;
pub mod client;
pub mod disk;
pub mod invariant;
pub mod linearizable;
pub mod network;
pub mod operator;
pub mod plan;
pub mod record;
pub mod run;
pub mod world;

use plan::Plan;
use record::Record;

/// Runs a seed. The faults found, and the record for whoever wants to know more.
pub fn try_seed(seed: u64) -> (Vec<String>, Record) {
    let record = run::run(seed, Plan::of_seed(seed));
    (invariant::check(&record), record)
}

/// A failure as it is shown: the seed first.
pub fn report(seed: u64, faults: &[String], record: &Record) -> String {
    let last = record.events.iter().rev().take(60).rev();
    let events: Vec<&str> = last.map(String::as_str).collect();
    format!("seed {seed}:\n  {}\nthe last events:\n  {}", faults.join("\n  "), events.join("\n  "))
}
