//! Functions in the place of webhooks: a WebAssembly component in the cluster is called, without a server, TLS or
//! certificates.
//!
//! The annotation [`ANNOTATION`] of a configuration names the webhooks whose `clientConfig.service` is a Function; the
//! `path` is the export. That takes an AdmissionReview as JSON text and gives `result<string, string>`: the review with
//! its response, or nothing to allow; an error denies the request with its text.

use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use serde_json::{Value, json};

use crate::core::{Core, Request};
use crate::subresource::invoke::call_once;

/// Names of webhooks, separated by commas; `*` is all of the configuration.
const ANNOTATION: &str = "admission.knarr.dev/functions";
/// The export of a webhook that names none.
pub const EXPORT: &str = "review";

/// Whether a webhook of a configuration is a function.
pub fn is_named(configuration: &Value, hook: &str) -> bool {
    let named = meta::annotation(configuration, ANNOTATION).unwrap_or("");
    named.split(',').map(str::trim).any(|name| name == "*" || name == hook)
}

/// A function that is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct FunctionHook {
    namespace: String,
    name: String,
    export: String,
}

fn function_kind() -> &'static Kind {
    api::kinds::lookup("knarr.dev", "v1alpha1", "functions").expect("Functions are in the kinds table")
}

impl FunctionHook {
    /// # Errors
    /// Why no function can be found by this configuration.
    pub fn read(config: &Value, export_default: &str) -> Result<Self, String> {
        let text = |field: &str| config.pointer(&format!("/service/{field}")).and_then(Value::as_str).unwrap_or("");
        if text("name").is_empty() {
            return Err("an annotation says that a Function is asked, but clientConfig has no service".to_owned());
        }
        let export = text("path").trim_start_matches('/');
        Ok(Self {
            namespace: text("namespace").to_owned(),
            name: text("name").to_owned(),
            export: if export.is_empty() { export_default } else { export }.to_owned(),
        })
    }

    /// Asks the function; gives an AdmissionReview with a response.
    ///
    /// # Errors
    /// Why there is no answer; the failure policy decides then.
    pub async fn ask(&self, core: &Arc<Core>, review: (&str, &str), question: &Value) -> Result<Value, String> {
        read(review, self.call(core, question).await?).map_err(|why| self.failed(&why))
    }

    /// Has the function convert; gives a ConversionReview with a response.
    ///
    /// # Errors
    /// Why there is no answer, or what the function says of its failure.
    pub async fn convert(&self, core: &Arc<Core>, review: (&str, &str), question: &Value) -> Result<Value, String> {
        read_conversion(review, self.call(core, question).await?).map_err(|why| self.failed(&why))
    }

    fn failed(&self, why: &str) -> String {
        format!("function {}/{}: {why}", self.namespace, self.name)
    }

    async fn call(&self, core: &Arc<Core>, question: &Value) -> Result<Said, String> {
        let request = Request {
            subresource: "invoke".to_owned(),
            ..Request::by_server(core, function_kind(), &self.namespace, &self.name)
        };
        let answer = call_once(&request, &self.export, &question.to_string()).await;
        let answer = answer.map_err(|status| self.failed(&status.message))?;
        said(&answer).map_err(|why| self.failed(&why))
    }
}

/// What an export that gives `result<string, string>` gave.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Ok(String),
    Err(String),
}

fn said(line: &[u8]) -> Result<Said, String> {
    let line: Value = serde_json::from_slice(line).map_err(|error| format!("its answer is no JSON: {error}"))?;
    if let Some(error) = line.get("error") {
        return Ok(Said::Err(error.as_str().map_or_else(|| error.to_string(), str::to_owned)));
    }
    match line.get("result") {
        Some(Value::String(text)) => Ok(Said::Ok(text.clone())),
        _ => match line.pointer("/status/message").and_then(Value::as_str) {
            Some(message) => Err(message.to_owned()),
            None => Err("its export does not give a result<string, string>".to_owned()),
        },
    }
}

/// A review in JSON. What cannot be meant otherwise need not be said.
fn completed((api_version, uid, kind): (&str, &str, &str), text: &str) -> Result<Value, String> {
    let mut given: Value =
        serde_json::from_str(text).map_err(|error| format!("it gave something that is no JSON: {error}"))?;
    for (field, meant) in [("apiVersion", api_version), ("kind", kind)] {
        if given.is_object() && given.get(field).is_none() {
            given[field] = meant.into();
        }
    }
    if let Some(response) = given.get_mut("response").and_then(Value::as_object_mut) {
        response.entry("uid").or_insert_with(|| uid.into());
    }
    Ok(given)
}

/// A ConversionReview of what a function gave; a list of objects is one too.
fn read_conversion((api_version, uid): (&str, &str), said: Said) -> Result<Value, String> {
    let text = match said {
        Said::Ok(text) => text,
        Said::Err(why) => return Err(why),
    };
    let mut given = completed((api_version, uid, "ConversionReview"), &text)?;
    if given.is_array() {
        given = json!({ "apiVersion": api_version, "kind": "ConversionReview",
            "response": { "uid": uid, "convertedObjects": given } });
    }
    if let Some(response) = given.get_mut("response").and_then(Value::as_object_mut) {
        response.entry("result").or_insert_with(|| json!({ "status": "Success" }));
    }
    Ok(given)
}

/// What a function gave as an AdmissionReview.
fn read((api_version, uid): (&str, &str), said: Said) -> Result<Value, String> {
    let review =
        |response: Value| json!({ "apiVersion": api_version, "kind": "AdmissionReview", "response": response });
    match said {
        Said::Err(message) => Ok(review(
            json!({ "uid": uid, "allowed": false, "status": { "message": message, "code": 403, "reason": "Forbidden" } }),
        )),
        Said::Ok(text) if text.trim().is_empty() => Ok(review(json!({ "uid": uid, "allowed": true }))),
        Said::Ok(text) => completed((api_version, uid, "AdmissionReview"), &text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let check = |line: Value, expect: Result<(bool, &str), &str>| {
            let found = said(line.to_string().as_bytes()).and_then(|said| read(("v", "u"), said));
            let found = found.as_ref().map(|review| {
                let response = &review["response"];
                (response["allowed"] == true, response["status"]["message"].as_str().unwrap_or(""))
            });
            assert_eq!(found.map_err(String::as_str), expect, "{line}");
        };
        check(json!({ "result": "" }), Ok((true, "")));
        check(json!({ "result": "{\"response\":{\"allowed\":true}}" }), Ok((true, "")));
        check(
            json!({ "result": "nonsense" }),
            Err("it gave something that is no JSON: expected ident at line 1 column 2"),
        );
        check(json!({ "error": "no" }), Ok((false, "no")));
        check(json!({ "status": { "code": 500, "reason": "Trapped", "message": "trap" } }), Err("trap"));
        check(json!({ "result": 3 }), Err("its export does not give a result<string, string>"));
    }

    #[test]
    fn names() {
        let configuration = |named: &str| json!({ "metadata": { "annotations": { ANNOTATION: named } } });
        let check = |named: &str, expect: bool| assert_eq!(is_named(&configuration(named), "a.b.c"), expect, "{named}");
        check("*", true);
        check("x.y.z, a.b.c", true);
        check("a.b", false);
        assert!(!is_named(&json!({}), "a.b.c"));
        let config = json!({ "service": { "namespace": "n", "name": "f", "path": "/policy#check" } });
        let expect = FunctionHook { namespace: "n".into(), name: "f".into(), export: "policy#check".into() };
        assert_eq!(FunctionHook::read(&config, EXPORT), Ok(expect));
        assert!(FunctionHook::read(&json!({ "url": "https://x" }), EXPORT).is_err());
    }

    #[test]
    fn conversions() {
        let check = |said: Said, expect: Result<Value, &str>| {
            let found = read_conversion(("v", "u"), said);
            assert_eq!(found.as_ref().map_err(String::as_str), expect.as_ref().map_err(|why| *why));
        };
        let expect = json!({ "apiVersion": "v", "kind": "ConversionReview", "response": { "uid": "u",
            "result": { "status": "Success" }, "convertedObjects": [{ "a": 1 }] } });
        check(Said::Ok("[{\"a\":1}]".to_owned()), Ok(expect.clone()));
        check(Said::Ok("{\"response\":{\"convertedObjects\":[{\"a\":1}]}}".to_owned()), Ok(expect));
        check(Said::Err("no such form".to_owned()), Err("no such form"));
        check(Said::Ok("?".to_owned()), Err("it gave something that is no JSON: expected value at line 1 column 1"));
    }
}
