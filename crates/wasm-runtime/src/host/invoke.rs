//! Calling one export with words from a command line: what `exec` means for Wasm.
//!
//! Owns: scalars and strings as parameters, any value as printed result. Typed calls with the whole
//! WAVE grammar are another interface.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{InstancePre, Type, Val};

use crate::host::container::Container;
use crate::host::executor::Executor;
use crate::host::guest::{self, ComponentState};
use crate::host::meter::Metered;
use crate::host::outcome;
use crate::protocol::Response;

/// As a shell answers for a command it does not find.
const EXIT_NOT_FOUND: i32 = 127;
const EXIT_BAD_ARGUMENTS: i32 = 2;

/// Calls `export` on a fresh instance.
pub async fn invoke(
    container: Arc<Container>,
    executor: &Executor,
    export: String,
    args: Vec<String>,
    deadline: Instant,
) -> Response {
    let usage = Arc::clone(&container.usage);
    let running = executor.running();
    let call = Metered::new(usage, async move {
        let _running = running;
        match container.program.component() {
            Some(component) => call(&container, component, &export, &args, deadline).await,
            None => not_found(&export, &container.spec.description.exports),
        }
    });
    let call = AbortOnDropHandle::new(executor.spawn(call));
    match tokio::time::timeout_at(deadline.into(), call).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => Response::Failed { why: error.to_string() },
        Err(_) => Response::TimedOut,
    }
}

async fn call(
    container: &Container,
    component: &InstancePre<ComponentState>,
    export: &str,
    args: &[String],
    deadline: Instant,
) -> Response {
    let mut guest = match guest::component(component.engine(), container, Some(deadline)) {
        Ok(guest) => guest,
        Err(error) => return Response::Failed { why: error.to_string() },
    };
    let result = async {
        let instance = component.instantiate_async(&mut guest.store).await?;
        let index = match export.split_once('#') {
            Some((interface, name)) => component
                .component()
                .get_export_index(None, interface)
                .and_then(|interface| component.component().get_export_index(Some(&interface), name)),
            None => component.component().get_export_index(None, export),
        };
        let Some(function) = index.and_then(|index| instance.get_func(&mut guest.store, index)) else {
            return Ok(not_found(export, &exported_functions(component)));
        };
        let ty = function.ty(&guest.store);
        let wanted: Vec<(String, Type)> = ty.params().map(|(name, ty)| (name.to_owned(), ty)).collect();
        let params = match parse_all(&wanted, args) {
            Ok(params) => params,
            Err(why) => return Ok(invoked(EXIT_BAD_ARGUMENTS, String::new(), format!("{export}: {why}\n"))),
        };
        let mut results = vec![Val::Bool(false); ty.results().len()];
        function.call_async(&mut guest.store, &params, &mut results).await?;
        Ok(answer(&results))
    };
    let result: wasmtime::Result<Response> = result.await;
    result.unwrap_or_else(|error| {
        let outcome = outcome::of_error(&error, guest.was_refused_memory());
        invoked(outcome.exit_code, String::new(), format!("{export}: {}\n", outcome.message))
    })
}

fn invoked(exit_code: i32, stdout: String, stderr: String) -> Response {
    Response::Invoked { exit_code, stdout, stderr }
}

fn not_found(export: &str, exports: &[String]) -> Response {
    let known = if exports.is_empty() { "none".to_owned() } else { exports.join(", ") };
    let why = format!(
        "wasm containers have no shell; exec calls an export, and `{export}` is none of this component's functions (it has: {known})\n"
    );
    invoked(EXIT_NOT_FOUND, String::new(), why)
}

fn exported_functions(component: &InstancePre<ComponentState>) -> Vec<String> {
    let engine = component.engine();
    let mut names = Vec::new();
    for (name, item) in component.component().component_type().exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => names.push(name.to_owned()),
            ComponentItem::ComponentInstance(instance) => {
                let functions =
                    instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
                names.extend(functions.map(|(function, _)| format!("{name}#{function}")));
            }
            _ => {}
        }
    }
    names
}

/// One `result` decides the exit code; everything else is printed.
fn answer(results: &[Val]) -> Response {
    match results {
        [] => invoked(0, String::new(), String::new()),
        [Val::Result(Ok(value))] => invoked(0, value.as_deref().map(line).unwrap_or_default(), String::new()),
        [Val::Result(Err(value))] => invoked(1, String::new(), value.as_deref().map(line).unwrap_or_default()),
        values => invoked(0, values.iter().map(line).collect(), String::new()),
    }
}

fn line(value: &Val) -> String {
    format!("{}\n", print(value))
}

fn print(value: &Val) -> String {
    match value {
        Val::Bool(value) => value.to_string(),
        Val::S8(value) => value.to_string(),
        Val::U8(value) => value.to_string(),
        Val::S16(value) => value.to_string(),
        Val::U16(value) => value.to_string(),
        Val::S32(value) => value.to_string(),
        Val::U32(value) => value.to_string(),
        Val::S64(value) => value.to_string(),
        Val::U64(value) => value.to_string(),
        Val::Float32(value) => value.to_string(),
        Val::Float64(value) => value.to_string(),
        Val::Char(value) => value.to_string(),
        Val::String(value) => value.clone(),
        other => format!("{other:?}"),
    }
}

fn parse_all(wanted: &[(String, Type)], args: &[String]) -> Result<Vec<Val>, String> {
    if wanted.len() != args.len() {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("takes {} arguments ({}), got {}", wanted.len(), names.join(", "), args.len()));
    }
    wanted.iter().zip(args).map(|((name, ty), word)| parse(ty, word).map_err(|why| format!("{name}: {why}"))).collect()
}

fn parse(ty: &Type, word: &str) -> Result<Val, String> {
    fn number<T: std::str::FromStr>(word: &str, make: fn(T) -> Val) -> Result<Val, String>
    where
        T::Err: std::fmt::Display,
    {
        word.parse().map(make).map_err(|error| format!("{word:?}: {error}"))
    }
    match ty {
        Type::Bool => number(word, Val::Bool),
        Type::S8 => number(word, Val::S8),
        Type::U8 => number(word, Val::U8),
        Type::S16 => number(word, Val::S16),
        Type::U16 => number(word, Val::U16),
        Type::S32 => number(word, Val::S32),
        Type::U32 => number(word, Val::U32),
        Type::S64 => number(word, Val::S64),
        Type::U64 => number(word, Val::U64),
        Type::Float32 => number(word, Val::Float32),
        Type::Float64 => number(word, Val::Float64),
        Type::Char => number(word, Val::Char),
        Type::String => Ok(Val::String(word.to_owned())),
        _ => Err("only numbers, booleans, characters and strings can be given on a command line".to_owned()),
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
        check(Type::S8, "200", Err("number too large"));
        check(Type::Bool, "true", Ok(Val::Bool(true)));
        check(Type::String, "a b", Ok(Val::String("a b".to_owned())));
    }

    #[test]
    fn results_become_exit_codes() {
        let check = |values: &[Val], code: i32, out: &str, err: &str| match answer(values) {
            Response::Invoked { exit_code, stdout, stderr } => {
                assert_eq!((exit_code, stdout.as_str(), stderr.as_str()), (code, out, err));
            }
            other => panic!("{other:?}"),
        };
        check(&[], 0, "", "");
        check(&[Val::U32(3)], 0, "3\n", "");
        check(&[Val::Result(Err(Some(Box::new(Val::String("no".into())))))], 1, "", "no\n");
        check(&[Val::Result(Ok(None))], 0, "", "");
    }

    #[test]
    fn a_missing_export_teaches() {
        let Response::Invoked { exit_code, stderr, .. } = not_found("sh", &["add".to_owned()]) else { panic!() };
        assert_eq!(exit_code, 127);
        assert!(stderr.starts_with("wasm containers have no shell;") && stderr.contains("it has: add"), "{stderr}");
    }
}
