//! Clocks, and waiting.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Report;
use crate::libc::{PollFd, WRITABLE, poll as wait_for};

/// The host and the one who says what time it is may be this far apart.
const TOLERANCE: Duration = Duration::from_secs(120);
const NAP: Duration = Duration::from_millis(30);
const STDOUT: i32 = 1;

/// `now`: seconds since 1970.
pub fn clocks(report: &mut Report, now: &str) {
    let told = Duration::from_secs(now.parse().unwrap_or(0));
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    report.is("wall-clock", here.abs_diff(told) < TOLERANCE);
    let mut last = Instant::now();
    let goes_on = (0..1000).all(|_| {
        let before = std::mem::replace(&mut last, Instant::now());
        last >= before
    });
    report.is("monotonic-clock", goes_on);
    let before = Instant::now();
    std::thread::sleep(NAP);
    let slept = before.elapsed();
    report.is("sleep-is-not-shorter", slept >= NAP);
    report.is("sleep-ends", slept < NAP * 100);
}

pub fn poll(report: &mut Report) {
    let mut output = [PollFd { fd: STDOUT, events: WRITABLE, revents: 0 }];
    match wait_for(&mut output, 1000) {
        Ok(ready) => report.equals("stdout-is-ready", (ready, output[0].revents & WRITABLE), (1, WRITABLE)),
        Err(error) => report.works("stdout-is-ready", Err::<(), _>(error)),
    }
}
