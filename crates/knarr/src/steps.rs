//! The list of steps a person watches: a tick and the time it took, one line each.
//!
//! Owns: how progress looks. Colours and moving lines only on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints steps as they end.
pub struct Steps {
    terminal: bool,
    started: Instant,
}

impl Steps {
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), started: Instant::now() }
    }

    /// Runs one step; its line appears when it is done. A failed step shows a cross and the error
    /// goes on to the caller.
    pub async fn run<T, E>(&self, name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        if self.terminal {
            print!("  • {name} …");
            let _ = std::io::stdout().flush();
        }
        let started = Instant::now();
        let result = work.await;
        let millis = started.elapsed().as_millis();
        let back = if self.terminal { "\r\x1b[2K" } else { "" };
        let (mark, time) = match (&result, self.terminal) {
            (Ok(_), true) => ("\x1b[32m✔\x1b[0m", format!(" \x1b[2m{millis} ms\x1b[0m")),
            (Ok(_), false) => ("✔", format!(" {millis} ms")),
            (Err(_), true) => ("\x1b[31m✘\x1b[0m", String::new()),
            (Err(_), false) => ("✘", String::new()),
        };
        println!("{back}  {mark} {name}{time}");
        result
    }

    /// A line between steps.
    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    /// Since the list was begun.
    pub fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}
