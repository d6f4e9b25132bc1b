//! One call and one answer as text. Pure.
//!
//! A call is `{"export": "add", "args": [1, 2]}`, its arguments by position or by name, or
//! `{"wave": "add(1, 2)"}`. An answer is `{"result": …}`, `{"error": …}` with what the function itself
//! gave as its error, or `{"status": {code, reason, message, details}}` when there is no value.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};
use wasmtime::component::wasm_wave::untyped::UntypedFuncCall;
use wasmtime::component::{Type, Val, wasm_wave};

use crate::host::exports::Export;
use crate::value;

/// Said last by a container that stops: what was sent after the answered calls never began.
pub const MOVED: &[u8] = b"{\"moved\":true}\n";

/// How values are written in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    Json,
    Wave,
}

#[derive(Debug, PartialEq)]
pub struct Call {
    pub export: String,
    pub args: Args,
    pub form: Form,
}

#[derive(Debug, PartialEq)]
pub enum Args {
    /// An array by position, or an object by name.
    Json(Value),
    /// The whole call in WAVE, with any name.
    Wave(String),
}

/// There is no value, and why.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Value,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    /// As a line.
    pub fn render(&self) -> Vec<u8> {
        let mut status = json!({ "code": self.code, "reason": self.reason, "message": self.message });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        line("status", &status)
    }
}

fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "BadRequest", message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    export: Option<Cow<'a, str>>,
    args: Option<Value>,
    wave: Option<String>,
    answer: Option<Form>,
}

/// Reads a call.
pub fn parse(text: &[u8]) -> Result<Call, Refusal> {
    let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| {
        bad_request(format!(
            "a call is {{\"export\": NAME, \"args\": [ARGUMENTS]}} or {{\"wave\": \"NAME(ARGUMENTS)\"}}: {error}"
        ))
    })?;
    match fields {
        Fields { export: Some(export), args, wave: None, answer } => Ok(Call {
            export: export.into_owned(),
            args: Args::Json(args.unwrap_or_else(|| Value::Array(Vec::new()))),
            form: answer.unwrap_or(Form::Json),
        }),
        Fields { export: None, args: None, wave: Some(text), answer } => wave(&text, answer.unwrap_or(Form::Wave)),
        _ => Err(bad_request("a call names its `export` with its `args`, or is `wave`, one of the two")),
    }
}

/// Reads a call in WAVE: `add(1, 2)`, `acme:shop/orders.place({item: "rope"})`.
pub fn wave(text: &str, form: Form) -> Result<Call, Refusal> {
    let Some(open) = text.find('(') else {
        return Err(bad_request(format!("{text:?} is no call; a call in WAVE is NAME(ARGUMENTS), such as add(1, 2)")));
    };
    let export = text[..open].trim().to_owned();
    // The grammar knows only simple names; ours may have versions.
    let args = format!("call{}", text[open..].trim_end());
    Ok(Call { export, args: Args::Wave(args), form })
}

/// The arguments as values of the export's parameters.
pub fn params(export: &Export, args: &Args) -> Result<Vec<Val>, Refusal> {
    match args {
        Args::Json(Value::Array(items)) => by_position(export, items),
        Args::Json(Value::Object(fields)) => by_name(export, fields),
        Args::Json(_) => Err(bad_argument(export, "args", "an array, or an object by parameter name, is needed")),
        Args::Wave(call) => {
            let types: Vec<&Type> = export.params.iter().map(|(_, ty)| ty).collect();
            let parsed = UntypedFuncCall::parse(call).and_then(|call| call.to_wasm_params::<Val>(types));
            parsed.map_err(|error| bad_argument(export, "args", &format!("{error}; it is {}", export.signature())))
        }
    }
}

fn by_position(export: &Export, items: &[Value]) -> Result<Vec<Val>, Refusal> {
    let optional = export.params.iter().rev().take_while(|(_, ty)| matches!(ty, Type::Option(_))).count();
    let wanted = export.params.len();
    if items.len() > wanted || items.len() < wanted - optional {
        let why = format!("takes {wanted} arguments, got {}: it is {}", items.len(), export.signature());
        return Err(bad_argument(export, "args", &why));
    }
    let given = export.params.iter().zip(items);
    let mut values = given.map(|((name, ty), json)| read(export, name, ty, json)).collect::<Result<Vec<_>, _>>()?;
    values.resize(wanted, Val::Option(None));
    Ok(values)
}

fn by_name(export: &Export, fields: &serde_json::Map<String, Value>) -> Result<Vec<Val>, Refusal> {
    if let Some(unknown) = fields.keys().find(|key| export.params.iter().all(|(name, _)| name != *key)) {
        return Err(bad_argument(
            export,
            unknown,
            &format!("there is no such parameter: it is {}", export.signature()),
        ));
    }
    let one = |(name, ty): &(String, Type)| match (fields.get(name), ty) {
        (Some(json), ty) => read(export, name, ty, json),
        (None, Type::Option(_)) => Ok(Val::Option(None)),
        (None, ty) => Err(bad_argument(export, name, &format!("expected {}, got nothing", value::wit(ty)))),
    };
    export.params.iter().map(one).collect()
}

fn read(export: &Export, name: &str, ty: &Type, json: &Value) -> Result<Val, Refusal> {
    value::from_json(ty, json, name)
        .map_err(|wrong| bad_argument(export, &wrong.path, &format!("expected {}, got {}", wrong.expected, wrong.seen)))
}

pub fn bad_argument(export: &Export, path: &str, why: &str) -> Refusal {
    let details = json!({ "causes": [{ "reason": "FieldValueInvalid", "field": path, "message": why }] });
    let message = format!("{}: {path}: {why}", export.name);
    Refusal { details, ..Refusal::new(400, "BadArgument", message) }
}

/// What a call that came to its end is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub line: Vec<u8>,
    /// The function itself calls it an error.
    pub is_error: bool,
}

/// The answer of a call that came to its end.
pub fn answer(export: &Export, result: Option<&Val>, form: Form) -> Answer {
    let (Some(ty), Some(value)) = (&export.result, result) else {
        let nothing = if form == Form::Wave { Value::from("()") } else { Value::Null };
        return Answer { line: line("result", &nothing), is_error: false };
    };
    let is_error = matches!(value, Val::Result(Err(_)));
    let key = if is_error { "error" } else { "result" };
    let line = match form {
        // The whole value: `ok(…)` and `err(…)` are part of it.
        Form::Wave => match wasm_wave::to_string(value) {
            Ok(text) => line(key, &text.into()),
            Err(error) => Refusal::new(500, "InternalError", format!("the result has no WAVE form: {error}")).render(),
        },
        Form::Json => match (ty, value) {
            (Type::Result(of), Val::Result(Ok(inner))) => line(key, &side(of.ok(), inner.as_deref())),
            (Type::Result(of), Val::Result(Err(inner))) => line(key, &side(of.err(), inner.as_deref())),
            _ => line(key, &value::to_json(ty, value)),
        },
    };
    Answer { line, is_error }
}

fn side(ty: Option<Type>, value: Option<&Val>) -> Value {
    ty.zip(value).map_or(Value::Null, |(ty, value)| value::to_json(&ty, value))
}

fn line(key: &str, value: &Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(b"{\"");
    text.extend_from_slice(key.as_bytes());
    text.extend_from_slice(b"\":");
    serde_json::to_writer(&mut text, value).expect("a JSON value writes into memory");
    text.extend_from_slice(b"}\n");
    text
}

#[cfg(test)]
mod tests {
    use wasmtime::component::Component;

    use super::*;
    use crate::engine::compile_engine;
    use crate::host::exports::Exports;

    fn exports() -> Exports {
        let text = r#"(component
          (core module $m (memory (export "mem") 1)
            (func (export "add") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "try") (param i32) (result i32) unreachable))
          (core instance $i (instantiate $m))
          (func (export "add") (param "a" u32) (param "b" u32) (param "c" (option u8)) (result u32)
            (canon lift (core func $i "add")))
          (func (export "try") (param "a" u32) (result (result u32 (error u8)))
            (canon lift (core func $i "try") (memory (core memory $i "mem")))))"#;
        Exports::of(&Component::new(&compile_engine().unwrap(), text).unwrap())
    }

    #[test]
    fn calls_are_read() {
        let exports = exports();
        let check = |text: &str, expect: Result<&[u32], &str>| {
            let read = parse(text.as_bytes()).and_then(|call| params(exports.find(&call.export).unwrap(), &call.args));
            match (read, expect) {
                (Ok(values), Ok(numbers)) => {
                    let wanted = numbers.iter().map(|n| Val::U32(*n)).chain([Val::Option(None)]);
                    assert_eq!(values, wanted.collect::<Vec<_>>(), "{text}");
                }
                (Err(refusal), Err(why)) => assert!(refusal.message.contains(why), "{text}: {}", refusal.message),
                (got, want) => panic!("{text}: {got:?} instead of {want:?}"),
            }
        };
        check(r#"{"export": "add", "args": [1, 2]}"#, Ok(&[1, 2]));
        check(r#"{"export": "add", "args": [1, 2, null]}"#, Ok(&[1, 2]));
        check(r#"{"export": "add", "args": {"b": 2, "a": 1}}"#, Ok(&[1, 2]));
        check(r#"{"wave": "add(1, 2)"}"#, Ok(&[1, 2]));
        check(r#"{"wave": " add (1, 2, none) "}"#, Ok(&[1, 2]));
        check(r#"{"export": "add"}"#, Err("add: args: takes 3 arguments, got 0: it is func(a: u32, b: u32"));
        check(r#"{"export": "add", "args": [1, "x"]}"#, Err("add: b: expected u32, got \"x\""));
        check(r#"{"export": "add", "args": {"a": 1}}"#, Err("add: b: expected u32, got nothing"));
        check(r#"{"export": "add", "args": {"z": 1}}"#, Err("add: z: there is no such parameter"));
        check(r#"{"export": "add", "args": 3}"#, Err("an array, or an object by parameter name"));
        check(r#"{"wave": "add(1, x)"}"#, Err("add: args:"));
        check(r#"{"wave": "add"}"#, Err("a call in WAVE is NAME(ARGUMENTS)"));
        check(r#"{"wave": "add(1, 2)", "export": "add"}"#, Err("one of the two"));
        check(r#"{"export": "add", "arg": []}"#, Err("unknown field `arg`"));
        check("add(1, 2)", Err("a call is {\"export\": NAME"));
    }

    #[test]
    fn answers_are_written() {
        let exports = exports();
        let check = |name: &str, value: Option<Val>, form: Form, expect: &str| {
            let answer = answer(exports.find(name).unwrap(), value.as_ref(), form);
            assert_eq!(answer.is_error, expect.starts_with("{\"error\""));
            assert_eq!(String::from_utf8(answer.line).unwrap(), format!("{expect}\n"));
        };
        let ok = || Some(Val::Result(Ok(Some(Box::new(Val::U32(7))))));
        let err = || Some(Val::Result(Err(Some(Box::new(Val::U8(3))))));
        check("add", Some(Val::U32(3)), Form::Json, r#"{"result":3}"#);
        check("add", Some(Val::U32(3)), Form::Wave, r#"{"result":"3"}"#);
        check("try", ok(), Form::Json, r#"{"result":7}"#);
        check("try", ok(), Form::Wave, r#"{"result":"ok(7)"}"#);
        check("try", err(), Form::Json, r#"{"error":3}"#);
        check("try", err(), Form::Wave, r#"{"error":"err(3)"}"#);
        check("add", None, Form::Wave, r#"{"result":"()"}"#);
        let refused = Refusal::new(429, "TooManyRequests", "slow down").render();
        let expect = "{\"status\":{\"code\":429,\"message\":\"slow down\",\"reason\":\"TooManyRequests\"}}\n";
        assert_eq!(String::from_utf8(refused).unwrap(), expect);
    }
}
