//! The arguments of a call from an HTTP request: its JSON body, or its query by parameter name. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use wasmtime::component::Type;

use crate::host::calls::line::{Args, Refusal, bad_argument};
use crate::host::exports::Export;

/// A body is the arguments: an array by position or an object by name.
pub fn of_body(text: &[u8]) -> Result<Args, Refusal> {
    let why = |why: String| {
        let message = format!("the body has the arguments, as a JSON array or an object by parameter name: {why}");
        Refusal::new(400, "BadRequest", message)
    };
    match serde_json::from_slice(text) {
        Ok(args @ (Value::Array(_) | Value::Object(_))) => Ok(Args::Json(args)),
        Ok(_) => Err(why("it is neither".to_owned())),
        Err(error) => Err(why(error.to_string())),
    }
}

/// Parameters of the query are those of the export. What their text means depends on their types.
pub fn of_query(export: &Export, query: &str) -> Result<Args, Refusal> {
    let mut given = BTreeMap::<String, Vec<String>>::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        given.entry(name.into_owned()).or_default().push(text.into_owned());
    }
    let mut fields = Map::new();
    for (name, texts) in given {
        let ty = export.params.iter().find(|(known, _)| *known == name).map(|(_, ty)| ty);
        let value = match (ty.map(inner), &texts[..]) {
            (Some(ty), [text]) => value(&ty, text),
            (Some(Type::List(of)), texts) => texts.iter().map(|text| value(&of.ty(), text)).collect(),
            (Some(Type::Flags(_)), texts) => texts.iter().map(String::as_str).collect(),
            (Some(_), _) => return Err(bad_argument(export, &name, "it is there more than once")),
            // The one who reads the arguments says what there is.
            (None, _) => Value::Null,
        };
        fields.insert(name, value);
    }
    Ok(Args::Json(Value::Object(fields)))
}

fn inner(ty: &Type) -> Type {
    match ty {
        Type::Option(of) if !matches!(of.ty(), Type::Option(_)) => of.ty(),
        other => other.clone(),
    }
}

/// Texts as they are, everything else as JSON; and a list of one.
fn value(ty: &Type, text: &str) -> Value {
    let json = || serde_json::from_str::<Value>(text).ok();
    let or_text = |json: Option<Value>| json.unwrap_or_else(|| text.into());
    match ty {
        Type::String | Type::Char | Type::Enum(_) => text.into(),
        Type::List(of) if matches!(of.ty(), Type::U8) => or_text(json().filter(Value::is_array)),
        Type::List(of) => json().filter(Value::is_array).unwrap_or_else(|| vec![value(&of.ty(), text)].into()),
        Type::Flags(_) => json().filter(Value::is_array).unwrap_or_else(|| vec![text].into()),
        _ => or_text(json()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wasmtime::component::Component;

    use super::*;
    use crate::engine::compile_engine;
    use crate::host::calls::line::params;
    use crate::host::exports::Exports;

    fn exports() -> Exports {
        let text = r#"(component
          (core module $m (memory (export "mem") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "f") (param i32) unreachable))
          (core instance $i (instantiate $m))
          (type $colour' (enum "red" "sea-green"))
          (export $colour "colour" (type $colour'))
          (type $marks' (flags "old" "sold"))
          (export $marks "marks" (type $marks'))
          (func (export "f") (param "name" string) (param "n" u32) (param "on" bool) (param "big" (option u64))
            (param "mark" (option $marks)) (param "colour" (option $colour)) (param "words" (option (list string)))
            (param "numbers" (option (list u8))) (param "pair" (option (tuple u8 string)))
            (canon lift (core func $i "f") (memory (core memory $i "mem")) (realloc (core func $i "realloc")))))"#;
        Exports::of(&Component::new(&compile_engine().unwrap(), text).unwrap())
    }

    #[test]
    fn queries_are_arguments() {
        let exports = exports();
        let export = exports.find("f").unwrap();
        let check = |query: &str, expect: Result<Value, &str>| {
            let got = of_query(export, query).and_then(|args| params(export, &args).map(|_| args));
            match (got, expect) {
                (Ok(Args::Json(got)), Ok(expect)) => assert_eq!(got, expect, "{query}"),
                (Err(refusal), Err(why)) => assert!(refusal.message.contains(why), "{query}: {}", refusal.message),
                (got, expect) => panic!("{query}: {got:?} instead of {expect:?}"),
            }
        };
        let must = "name=rope&n=2&on=true";
        let with = |more: Value| {
            let mut all = json!({ "name": "rope", "n": 2, "on": true });
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Ok(all)
        };
        check(must, with(json!({})));
        check("name=3&n=2&on=false", Ok(json!({ "name": "3", "n": 2, "on": false })));
        check("name=a+b%26c%C3%A9&n=2&on=true", Ok(json!({ "name": "a b&cé", "n": 2, "on": true })));
        check(&format!("{must}&big=18446744073709551615"), with(json!({ "big": u64::MAX })));
        check(&format!("{must}&colour=sea-green&mark=old"), with(json!({ "colour": "sea-green", "mark": ["old"] })));
        check(&format!("{must}&mark=old&mark=sold"), with(json!({ "mark": ["old", "sold"] })));
        check(&format!("{must}&words=a&words=[b]"), with(json!({ "words": ["a", "[b]"] })));
        check(&format!("{must}&words=a"), with(json!({ "words": ["a"] })));
        check(&format!("{must}&words=[\"a\",\"b\"]"), with(json!({ "words": ["a", "b"] })));
        check(&format!("{must}&numbers=AQI%3D"), with(json!({ "numbers": "AQI=" })));
        check(&format!("{must}&numbers=[1,2]"), with(json!({ "numbers": [1, 2] })));
        check(&format!("{must}&pair=[1,\"x\"]"), with(json!({ "pair": [1, "x"] })));
        check(&format!("{must}&colour=blue"), Err("colour: expected"));
        check("name=rope&n=two&on=true", Err("n: expected u32, got \"two\""));
        check("name=rope&n=2", Err("on: expected bool, got nothing"));
        check("", Err("name: expected string, got nothing"));
        check(&format!("{must}&more=1"), Err("more: there is no such parameter"));
        check(&format!("{must}&n=3"), Err("n: it is there more than once"));
    }

    #[test]
    fn bodies_are_arguments() {
        let check = |text: &str, expect: Result<Value, &str>| match (of_body(text.as_bytes()), expect) {
            (Ok(Args::Json(got)), Ok(expect)) => assert_eq!(got, expect),
            (Err(refusal), Err(why)) => assert!(refusal.message.contains(why), "{}", refusal.message),
            (got, expect) => panic!("{text}: {got:?} instead of {expect:?}"),
        };
        check(" [1, 2]", Ok(json!([1, 2])));
        check("{\"a\": 1}", Ok(json!({ "a": 1 })));
        check("3", Err("it is neither"));
        check("add(1)", Err("as a JSON array or an object by parameter name: expected value"));
    }
}
