//! Calling one export with words from a command line: what `exec` means for Wasm.
//!
//! Owns: words as arguments (scalars as they are, everything else in WAVE), `NAME(ARGUMENTS)` as one word, and the
//! answer as output and exit code. How a call runs is `calls`.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{Type, Val, wasm_wave};

use crate::host::calls::call::{Failure, call};
use crate::host::calls::line::{self, Form};
use crate::host::container::Container;
use crate::host::executor::Executor;
use crate::host::exports::Export;
use crate::host::meter::Metered;
use crate::protocol::Response;

/// As a shell answers for a command it does not find.
const EXIT_NOT_FOUND: i32 = 127;
const EXIT_BAD_ARGUMENTS: i32 = 2;
/// As for a call that could not begin.
const EXIT_NO_ROOM: i32 = 126;

/// Calls `export` on a fresh instance.
pub async fn invoke(
    container: Arc<Container>,
    executor: &Executor,
    export: String,
    args: Vec<String>,
    deadline: Instant,
) -> Response {
    let usage = Arc::clone(&container.usage);
    let (running, token) = (executor.running(), container.callers.token());
    let work = Metered::new(usage, async move {
        let (_running, _token) = (running, token);
        answer(&container, &export, &args, deadline).await
    });
    let work = AbortOnDropHandle::new(executor.spawn(work));
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => Response::Failed { why: error.to_string() },
        Err(_) => Response::TimedOut,
    }
}

async fn answer(container: &Container, word: &str, args: &[String], deadline: Instant) -> Response {
    let whole_call = args.is_empty().then(|| line::wave(word, Form::Wave).ok()).flatten();
    let name = whole_call.as_ref().map_or(word, |call| call.export.as_str());
    let Ok(export) = container.exports().find(name) else {
        return not_found(name, &container.exports().list());
    };
    let params = match &whole_call {
        Some(call) => line::params(export, &call.args).map_err(|refusal| refusal.message),
        None => parse_all(&export.params, args).map_err(|why| format!("{name}: {why}")),
    };
    let params = match params {
        Ok(params) => params,
        Err(why) => return invoked(EXIT_BAD_ARGUMENTS, String::new(), format!("{why}\n")),
    };
    match call(container, export, &params, deadline).await {
        Ok(result) => output(export, result.as_ref()),
        Err(Failure::NoRoom) => {
            invoked(EXIT_NO_ROOM, String::new(), format!("{name}: too many instances on this node\n"))
        }
        Err(Failure::Ended { outcome, frames }) => {
            let trace: String = frames.iter().map(|frame| format!("  in {frame}\n")).collect();
            invoked(outcome.exit_code, String::new(), format!("{name}: {}\n{trace}", outcome.message))
        }
    }
}

fn invoked(exit_code: i32, stdout: String, stderr: String) -> Response {
    Response::Invoked { exit_code, stdout, stderr }
}

fn not_found(export: &str, known: &str) -> Response {
    let why = format!(
        "wasm containers have no shell; exec calls an export, and `{export}` is none of this component's functions ({known})\n"
    );
    invoked(EXIT_NOT_FOUND, String::new(), why)
}

/// One `result` decides the exit code; everything else is printed.
fn output(export: &Export, result: Option<&Val>) -> Response {
    match result.filter(|_| export.result.is_some()) {
        None => invoked(0, String::new(), String::new()),
        Some(Val::Result(Ok(value))) => invoked(0, value.as_deref().map(text).unwrap_or_default(), String::new()),
        Some(Val::Result(Err(value))) => invoked(1, String::new(), value.as_deref().map(text).unwrap_or_default()),
        Some(value) => invoked(0, text(value), String::new()),
    }
}

/// A line of text: strings and characters as they are, everything else in WAVE.
fn text(value: &Val) -> String {
    match value {
        Val::String(text) => format!("{text}\n"),
        Val::Char(char) => format!("{char}\n"),
        value => wasm_wave::to_string(value).map_or_else(|error| format!("{error}\n"), |text| format!("{text}\n")),
    }
}

fn parse_all(wanted: &[(String, Type)], args: &[String]) -> Result<Vec<Val>, String> {
    if wanted.len() != args.len() {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("takes {} arguments ({}), got {}", wanted.len(), names.join(", "), args.len()));
    }
    wanted.iter().zip(args).map(|((name, ty), word)| parse(ty, word).map_err(|why| format!("{name}: {why}"))).collect()
}

/// Strings and characters as they are, everything else in WAVE.
fn parse(ty: &Type, word: &str) -> Result<Val, String> {
    match ty {
        Type::String => Ok(Val::String(word.to_owned())),
        Type::Char => word.parse().map(Val::Char).map_err(|error| format!("{word:?}: {error}")),
        ty => wasm_wave::from_str(ty, word).map_err(|error| format!("{word:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_values() {
        let check = |ty: Type, word: &str, expect: Result<Val, &str>| match (parse(&ty, word), expect) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{word}: {got:?} instead of {want:?}"),
        };
        check(Type::U32, "7", Ok(Val::U32(7)));
        check(Type::S8, "200", Err("\"200\": "));
        check(Type::Bool, "true", Ok(Val::Bool(true)));
        check(Type::String, "a b", Ok(Val::String("a b".to_owned())));
        check(Type::Char, "⛵", Ok(Val::Char('⛵')));
    }

    #[test]
    fn values_become_lines() {
        let check = |value: Val, expect: &str| assert_eq!(text(&value), expect);
        check(Val::U32(3), "3\n");
        check(Val::String("a \"b\"".to_owned()), "a \"b\"\n");
        check(Val::List(vec![Val::U8(1), Val::U8(2)]), "[1, 2]\n");
        check(Val::Record(vec![("a".to_owned(), Val::String("b".to_owned()))]), "{a: \"b\"}\n");
    }

    #[test]
    fn a_missing_export_teaches() {
        let Response::Invoked { exit_code, stderr, .. } = not_found("sh", "it has: add") else { panic!() };
        assert_eq!(exit_code, 127);
        assert!(stderr.starts_with("wasm containers have no shell;") && stderr.contains("it has: add"), "{stderr}");
    }
}
