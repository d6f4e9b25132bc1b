//! A program that runs once: shows its arguments, environment and a mounted file, and exits as told.

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("arguments: {:?}", std::env::args().collect::<Vec<_>>());
    let mut names: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    names.sort();
    println!("environment: {names:?}");
    if let Ok(path) = std::env::var("READ_FILE") {
        match std::fs::read_to_string(&path) {
            Ok(text) => println!("{path}: {}", text.trim_end()),
            Err(error) => {
                eprintln!("cannot read {path}: {error}");
                return ExitCode::from(2);
            }
        }
    }
    if let Some(seconds) = number("SLEEP_SECONDS") {
        std::thread::sleep(std::time::Duration::from_secs(seconds));
    }
    // WASI 0.2's exit knows only success and failure: any code but 0 arrives as 1.
    ExitCode::from(number("EXIT_CODE").and_then(|code| u8::try_from(code).ok()).unwrap_or(0))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
