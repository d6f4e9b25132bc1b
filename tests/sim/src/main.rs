//! `sim [--seeds N] [--from S]`: runs seeds one after another and ends at the first that fails.

use std::process::ExitCode;
use std::time::Instant;

fn argument(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    let (seeds, from) = (argument("--seeds", 100), argument("--from", 1));
    let began = Instant::now();
    let (mut operations, mut revisions) = (0, 0);
    for seed in from..from + seeds {
        let (faults, record) = sim::try_seed(seed);
        if !faults.is_empty() {
            println!("{}", sim::report(seed, &faults, &record));
            return ExitCode::FAILURE;
        }
        operations += record.operations.len();
        revisions += record.finals.first().map_or(0, |last| last.revision);
    }
    println!(
        "{seeds} seeds from {from}: {operations} operations, {revisions} revisions, nothing found in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
