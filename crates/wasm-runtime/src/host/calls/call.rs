//! One call of one export on a fresh instance: limits, deadline, and how it ended.

use std::time::{Duration, Instant};

use cri::ExitReason;
use serde_json::json;
use tokio::sync::SemaphorePermit;
use wasmtime::component::Val;
use wasmtime::{PoolConcurrencyLimitError, WasmBacktrace};

use super::line::{self, Answer, Call, Refusal};
use super::split::{CALL_BYTES_MAX, Line};
use crate::host::container::Container;
use crate::host::exports::Export;
use crate::host::guest;
use crate::host::logs::Stream;
use crate::host::meter::{self, MemoryShare};
use crate::host::outcome;
use crate::host::ticker::TICK;
use crate::protocol::Outcome;

/// Frames that the message of a trap names; the details have all.
const FRAMES_IN_MESSAGE: usize = 4;
const FRAMES_MAX: usize = 64;

const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
const OUT_OF_MEMORY: &str = "OutOfMemory";

/// Memory of the host that one byte of a call may take: a list of small numbers becomes a list of values.
const BYTES_PER_ARGUMENT_BYTE: usize = 32;
/// Calls up to this long are not worth counting.
const ARGUMENT_BYTES_FREE: usize = 4 << 10;
/// Most that a result may take in the host, as values.
const RESULT_BYTES_MAX: u64 = 64 << 20;

/// Why an export gave no value.
pub enum Failure {
    /// There is no room for another instance in this host right now.
    NoRoom,
    Ended {
        outcome: Outcome,
        frames: Vec<String>,
    },
}

/// Calls `export`; the instance is gone afterwards, whatever happened.
pub async fn call(
    container: &Container,
    export: &Export,
    params: &[Val],
    deadline: Instant,
) -> Result<Option<Val>, Failure> {
    let ended = |outcome| Failure::Ended { outcome, frames: Vec::new() };
    let Some(component) = container.program.component() else {
        return Err(ended(outcome::of_error(&wasmtime::format_err!("a core module has no typed exports"), false)));
    };
    let mut guest = match guest::component(component.engine(), container, Some(deadline)) {
        Ok(guest) => guest,
        Err(error) => return Err(ended(outcome::of_error(&error, false))),
    };
    let result_bytes = container.usage.memory_limit_bytes().min(RESULT_BYTES_MAX);
    guest.store.set_hostcall_fuel(usize::try_from(result_bytes).unwrap_or(usize::MAX));
    let work = async {
        let instance = component.instantiate_async(&mut guest.store).await?;
        let function = instance.get_func(&mut guest.store, export.index);
        let function = function.ok_or_else(|| wasmtime::format_err!("the component's exports changed"))?;
        let mut results = [const { Val::Bool(false) }];
        let results = &mut results[..usize::from(export.result.is_some())];
        function.call_async(&mut guest.store, params, results).await?;
        wasmtime::error::Ok(results.first_mut().map(|value| std::mem::replace(value, Val::Bool(false))))
    };
    // The guest traps itself at the deadline where it spins; this catches the one that waits.
    match tokio::time::timeout_at((deadline + 4 * TICK).into(), work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.is::<PoolConcurrencyLimitError>() => Err(Failure::NoRoom),
        Ok(Err(error)) => Err(failed(container, &error, guest.was_refused_memory())),
        Err(_) => Err(ended(outcome::deadline())),
    }
}

fn failed(container: &Container, error: &wasmtime::Error, refused_memory: bool) -> Failure {
    let outcome = outcome::of_error(error, refused_memory);
    if outcome.exit_code != 0 && outcome.reason != ExitReason::DeadlineExceeded {
        container.log.say(Stream::Stderr, &outcome::log_text(error));
    }
    let trace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
    Failure::Ended { outcome, frames: frames(&trace) }
}

/// The functions of a backtrace, innermost first. Its text has their names as people know them.
fn frames(trace: &str) -> Vec<String> {
    let one = |line: &str| {
        let (number, rest) = line.trim().split_once(':')?;
        number.parse::<u32>().ok()?;
        let (_, name) = rest.split_once(" - ")?;
        Some(name.trim().to_owned())
    };
    trace.lines().filter_map(one).take(FRAMES_MAX).collect()
}

/// How a call may wait for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A stream is told to wait by not being read.
    WhileItHasTime,
    None,
}

/// One line in, one line out.
pub async fn answer(container: &Container, line: &Line, patience: Patience) -> Vec<u8> {
    counted(container, attempt(container, line, patience)).await.map_or_else(|refusal| refusal.render(), |end| end.line)
}

/// Counts an attempt at a call, and how it ended.
pub async fn counted(
    container: &Container,
    attempt: impl Future<Output = Result<Answer, Refusal>>,
) -> Result<Answer, Refusal> {
    let usage = &container.usage;
    meter::count(&usage.requests);
    let ended = attempt.await;
    match &ended {
        Ok(answer) if answer.is_error => meter::count(&usage.errors),
        Ok(_) => {}
        Err(refusal) if refusal.code < 500 => meter::count(&usage.refusals),
        Err(refusal) => usage.count_trap(match refusal.reason {
            DEADLINE_EXCEEDED => ExitReason::DeadlineExceeded,
            OUT_OF_MEMORY => ExitReason::OomKilled,
            _ => ExitReason::Error,
        }),
    }
    ended
}

async fn attempt(container: &Container, line: &Line, patience: Patience) -> Result<Answer, Refusal> {
    let Line::Whole(text) = line else { return Err(too_long()) };
    let _held = hold(container, text.len())?;
    run(container, &line::parse(text)?, patience).await
}

pub fn too_long() -> Refusal {
    Refusal::new(413, "RequestEntityTooLarge", format!("a call may have {CALL_BYTES_MAX} bytes"))
}

/// Finds the export of a call, or says what there is.
pub fn export<'a>(container: &'a Container, name: &str) -> Result<&'a Export, Refusal> {
    container.exports().find(name).map_err(|missing| Refusal::new(404, "ExportNotFound", missing.why))
}

/// Runs a call within the limits of its container.
pub async fn run(container: &Container, call: &Call, patience: Patience) -> Result<Answer, Refusal> {
    let export = self::export(container, &call.export)?;
    let params = line::params(export, &call.args)?;
    begin(container)?;
    let _turn = turn(container, patience).await?;
    let deadline = Instant::now() + container.request_timeout();
    match self::call(container, export, &params, deadline).await {
        Ok(value) => Ok(line::answer(export, value.as_ref(), call.form)),
        Err(Failure::NoRoom) => Err(too_many(container, "instances on this node", Duration::from_millis(100))),
        Err(Failure::Ended { outcome, frames }) => Err(ended(container, export, &outcome, frames)),
    }
}

/// Counts against the limit per second.
pub fn begin(container: &Container) -> Result<(), Refusal> {
    container.rate().map_err(|wait| too_many(container, "calls in this second", wait))
}

/// The arguments of a long call count as memory of the container while it runs.
pub fn hold(container: &Container, bytes: usize) -> Result<Option<MemoryShare>, Refusal> {
    if bytes <= ARGUMENT_BYTES_FREE {
        return Ok(None);
    }
    let mut held = container.memory_share();
    if held.reserve(bytes.saturating_mul(BYTES_PER_ARGUMENT_BYTE)) {
        return Ok(Some(held));
    }
    let limit = container.usage.memory_limit_bytes();
    let why = format!("a call of {bytes} bytes does not fit into the memory limit of {limit} bytes");
    Err(Refusal::new(413, "RequestEntityTooLarge", why))
}

async fn turn(container: &Container, patience: Patience) -> Result<SemaphorePermit<'_>, Refusal> {
    if let Ok(turn) = container.turns.try_acquire() {
        return Ok(turn);
    }
    let refused = || too_many(container, "calls at once", Duration::from_millis(100));
    match patience {
        Patience::None => Err(refused()),
        Patience::WhileItHasTime => {
            let turn = tokio::time::timeout(container.request_timeout(), container.turns.acquire()).await;
            turn.map_err(|_| refused())?.map_err(|_| refused())
        }
    }
}

fn too_many(container: &Container, what: &str, wait: Duration) -> Refusal {
    let limits = &container.spec.limits;
    let limit = match what {
        "calls at once" => format!(" (limit: {}, or what fits into its memory)", limits.requests_at_once),
        "calls in this second" => format!(" (limit: {})", limits.calls_per_second.unwrap_or(0)),
        _ => String::new(),
    };
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let details = json!({ "retryAfterSeconds": seconds });
    Refusal { details, ..Refusal::new(429, "TooManyRequests", format!("too many {what}{limit}, try again later")) }
}

fn ended(container: &Container, export: &Export, outcome: &Outcome, frames: Vec<String>) -> Refusal {
    let name = &export.name;
    match outcome.reason {
        ExitReason::DeadlineExceeded => {
            let timeout = container.request_timeout();
            Refusal::new(504, DEADLINE_EXCEEDED, format!("{name}: took longer than its timeout of {timeout:?}"))
        }
        ExitReason::OomKilled => {
            let limit = container.usage.memory_limit_bytes();
            Refusal::new(500, OUT_OF_MEMORY, format!("{name}: reached its memory limit of {limit} bytes"))
        }
        _ => {
            let why = if outcome.message.is_empty() {
                format!("ended itself with exit code {}", outcome.exit_code)
            } else {
                outcome.message.clone()
            };
            let causes: Vec<_> = frames.iter().map(|name| json!({ "reason": "Frame", "message": name })).collect();
            let place = frames.iter().take(FRAMES_IN_MESSAGE).cloned().collect::<Vec<_>>().join(" < ");
            let place = if place.is_empty() { place } else { format!(" (in {place})") };
            let details = if causes.is_empty() { serde_json::Value::Null } else { json!({ "causes": causes }) };
            Refusal { details, ..Refusal::new(500, "Trapped", format!("{name} trapped: {why}{place}")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::frames;

    #[test]
    fn frames_are_read_from_a_backtrace() {
        let trace = "error while executing at wasm backtrace:\n    0:    0x2f3 - shop.wasm!shop::price\n    \
                     1:    0x1d9 - shop.wasm!<wasm function 12>\n   note: more\n";
        assert_eq!(frames(trace), ["shop.wasm!shop::price", "shop.wasm!<wasm function 12>"]);
        assert!(frames("").is_empty());
    }
}
