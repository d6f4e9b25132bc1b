//! A fixed set of seeds, as many as about a minute allows. More: `cargo xtask sim --seeds N`.

use std::time::{Duration, Instant};

const SEEDS: u64 = 60;
/// A slow machine runs fewer.
const TIME_MAX: Duration = Duration::from_secs(30);

#[test]
fn every_invariant_holds_in_every_run() {
    let began = Instant::now();
    let mut operations = 0;
    for seed in 1..=SEEDS {
        let (faults, record) = sim::try_seed(seed);
        assert!(faults.is_empty(), "{}", sim::report(seed, &faults, &record));
        operations += record.operations.len();
        if began.elapsed() > TIME_MAX {
            println!("{seed} of {SEEDS} seeds in {:?}", began.elapsed());
            break;
        }
    }
    assert!(operations > 100, "{operations} operations are no test");
}

#[test]
fn a_seed_takes_the_same_course_twice() {
    for seed in [3, 11, 17] {
        let (_, first) = sim::try_seed(seed);
        let (_, second) = sim::try_seed(seed);
        if first.fingerprint() != second.fingerprint() {
            let differ = first.events.iter().zip(&second.events).find(|(a, b)| a != b);
            panic!("seed {seed} took two courses, which first differ here: {differ:?}");
        }
    }
}
