//! From wasmtime's errors to exit codes, reasons and log text. Pure.

use cri::ExitReason;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::protocol::Outcome;

/// 128 + SIGABRT, as the wasmtime CLI has it.
const EXIT_TRAP: i32 = 134;
/// 128 + SIGKILL, as the kernel's OOM killer has it.
const EXIT_OOM: i32 = 137;
/// As timeout(1) has it.
const EXIT_DEADLINE: i32 = 124;
const EXIT_KILLED: i32 = 137;

pub fn completed() -> Outcome {
    exited(0)
}

pub fn exited(exit_code: i32) -> Outcome {
    let reason = if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error };
    Outcome { exit_code, reason, message: String::new() }
}

/// The grace period ended before the guest did.
pub fn killed() -> Outcome {
    let message = "still running at the end of its grace period".to_owned();
    Outcome { exit_code: EXIT_KILLED, reason: ExitReason::Error, message }
}

pub fn deadline() -> Outcome {
    let message = "ran longer than its deadline".to_owned();
    Outcome { exit_code: EXIT_DEADLINE, reason: ExitReason::DeadlineExceeded, message }
}

/// What an error out of a guest call means. `refused_memory`: the limit refused it memory before.
pub fn of_error(error: &wasmtime::Error, refused_memory: bool) -> Outcome {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return exited(exit.0);
    }
    if refused_memory {
        let message = "memory limit reached: a memory.grow was refused, then the guest trapped".to_owned();
        return Outcome { exit_code: EXIT_OOM, reason: ExitReason::OomKilled, message };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => deadline(),
        Some(trap) => trapped(format!("{trap}{}", place(error))),
        None => trapped(format!("{}{}", error.root_cause(), place(error))),
    }
}

fn trapped(message: String) -> Outcome {
    Outcome { exit_code: EXIT_TRAP, reason: ExitReason::Error, message }
}

/// Where the guest was, if its frames have names.
fn place(error: &wasmtime::Error) -> String {
    let frame = error.downcast_ref::<WasmBacktrace>().and_then(|trace| trace.frames().first());
    frame.and_then(|frame| frame.func_name()).map(|name| format!(" in {name}")).unwrap_or_default()
}

/// The text for the container's own log: everything there is, backtrace included.
pub fn log_text(error: &wasmtime::Error) -> String {
    format!("{error:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_exit_codes() {
        let check = |error: wasmtime::Error, refused: bool, code: i32, reason: ExitReason| {
            let outcome = of_error(&error, refused);
            assert_eq!((outcome.exit_code, outcome.reason), (code, reason), "{error:?}");
        };
        check(wasmtime::Error::from(I32Exit(0)), false, 0, ExitReason::Completed);
        check(wasmtime::Error::from(I32Exit(3)), true, 3, ExitReason::Error);
        check(Trap::UnreachableCodeReached.into(), false, 134, ExitReason::Error);
        check(Trap::UnreachableCodeReached.into(), true, 137, ExitReason::OomKilled);
        check(Trap::Interrupt.into(), false, 124, ExitReason::DeadlineExceeded);
        check(wasmtime::format_err!("host says no"), false, 134, ExitReason::Error);
        assert_eq!(of_error(&wasmtime::format_err!("host says no"), false).message, "host says no");
    }
}
