//! MutatingAdmissionPolicy: compiled once, evaluated to patches. Follows `policy/mutating` of k8s.io/apiserver.
//!
//! Owns: the expressions and their results. May not know: types, so that laying a configuration over an object is the
//! caller's; bindings and parameters, see [`super::policy`].

use serde_json::{Map, Value};

use super::policy::{Conditions, Inputs, ParamKind, Place, Variables, items, names, run, text};
use super::rules::Matching;
use crate::cel::{Program, Val, Wanted};

/// What a mutation asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// To be merged by the rules of server-side apply.
    Apply(Value),
}

#[derive(Debug)]
enum Mutation {
    Json(Program),
    Apply(Program),
}

/// A compiled MutatingAdmissionPolicy.
#[derive(Debug)]
pub struct MutatingPolicy {
    pub name: String,
    pub matching: Matching,
    pub params: Option<ParamKind>,
    pub ignores_failures: bool,
    /// Wants to see what others change after it.
    pub reinvoked: bool,
    code: Result<Code, String>,
}

#[derive(Debug)]
struct Code {
    conditions: Conditions,
    variables: Variables,
    mutations: Vec<Mutation>,
}

impl Code {
    fn compile(spec: &Value, has_params: bool) -> Result<Self, String> {
        let names = names(Place::Validation, has_params);
        let mutation = |of: &Value| {
            let expression = |field: &str| text(of.get(field).unwrap_or(&Value::Null), "expression").to_owned();
            match text(of, "patchType") {
                "JSONPatch" => Program::compile(&expression("jsonPatch"), &names, Wanted::Patches).map(Mutation::Json),
                _ => Program::compile(&expression("applyConfiguration"), &names, Wanted::Object).map(Mutation::Apply),
            }
        };
        Ok(Self {
            conditions: Conditions::compile(spec, has_params)?,
            variables: Variables::compile(spec, has_params)?,
            mutations: items(spec, "mutations").iter().map(mutation).collect::<Result<_, _>>()?,
        })
    }
}

impl MutatingPolicy {
    pub fn compile(object: &Value) -> Self {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let params = ParamKind::read(spec);
        Self {
            name: crate::meta::name(object).to_owned(),
            matching: Matching::of_policy(spec.get("matchConstraints").unwrap_or(&Value::Null)),
            ignores_failures: text(spec, "failurePolicy") == "Ignore",
            reinvoked: text(spec, "reinvocationPolicy") == "IfNeeded",
            code: Code::compile(spec, params.is_some()),
            params,
        }
    }

    /// How many mutations there are; 0 when the policy does not compile.
    pub fn len(&self) -> usize {
        self.code.as_ref().map_or(0, |code| code.mutations.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the policy is about this request.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn applies(&self, inputs: &Inputs<'_>, budget: &mut u64) -> Result<bool, String> {
        self.code.as_ref().map_err(Clone::clone)?.conditions.hold(inputs, budget)
    }

    /// The patch of one mutation, for the object as it is after those before it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn patch(&self, index: usize, inputs: &Inputs<'_>, budget: &mut u64) -> Result<Patch, String> {
        let code = self.code.as_ref().map_err(Clone::clone)?;
        let mutation = code.mutations.get(index).ok_or("there is no such mutation")?;
        let names = code.variables.names(inputs, budget);
        let json = |program: &Program, value: &Val<'_>| {
            let form = value.to_json();
            form.ok_or_else(|| format!("expression '{}' has a value that is no JSON", program.text().trim()))
        };
        match mutation {
            Mutation::Json(program) => {
                let made = run(program, &names, budget)?;
                let mut list = json(program, &made)?;
                list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut).for_each(complete);
                Ok(Patch::Json(list))
            }
            Mutation::Apply(program) => {
                let made = run(program, &names, budget)?;
                json(program, &made).map(Patch::Apply)
            }
        }
    }
}

/// What adds something and does not say what adds null, as in Kubernetes.
fn complete(operation: &mut Map<String, Value>) {
    let needs_value = matches!(operation.get("op").and_then(Value::as_str), Some("add" | "replace" | "test"));
    if needs_value {
        operation.entry("value").or_insert(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::policy::REQUEST_STEPS_MAX;
    use crate::cel::{Answer, Foreign};
    use serde_json::json;

    #[derive(Debug)]
    struct Nobody;

    impl Foreign for Nobody {
        fn type_name(&self) -> &'static str {
            "nobody"
        }

        fn call(&self, _: &str, _: &[&str]) -> Option<Answer> {
            None
        }
    }

    fn patch(kind: &str, expression: &str) -> Result<Patch, String> {
        let field = if kind == "JSONPatch" { "jsonPatch" } else { "applyConfiguration" };
        let spec = json!({ "variables": [{ "name": "n", "expression": "object.spec.replicas" }],
            "mutations": [{ "patchType": kind, field: { "expression": expression } }] });
        let policy = MutatingPolicy::compile(&json!({ "metadata": { "name": "p" }, "spec": spec }));
        let object = json!({ "metadata": { "labels": { "a/b": "c" } }, "spec": { "replicas": 2 } });
        let inputs = Inputs {
            object: &object,
            old: &Value::Null,
            request: &Value::Null,
            namespace: &Value::Null,
            params: &Value::Null,
            authorizer: std::rc::Rc::new(Nobody),
        };
        policy.patch(0, &inputs, &mut { REQUEST_STEPS_MAX })
    }

    #[test]
    fn patches() {
        let check = |kind: &str, expression: &str, expect: Result<Patch, &str>| {
            let found = patch(kind, expression);
            assert_eq!(found.as_ref().map_err(String::as_str), expect.as_ref().map_err(|why| *why), "{expression}");
        };
        check(
            "ApplyConfiguration",
            "Object{spec: Object.spec{replicas: variables.n * 2, ?paused: optional.none()}}",
            Ok(Patch::Apply(json!({ "spec": { "replicas": 4 } }))),
        );
        check(
            "JSONPatch",
            "[JSONPatch{op: 'replace', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'd'}, \
             JSONPatch{op: 'add', path: '/x'}]",
            Ok(Patch::Json(json!([{ "op": "replace", "path": "/metadata/labels/a~1b", "value": "d" },
                { "op": "add", "path": "/x", "value": null }]))),
        );
        check(
            "ApplyConfiguration",
            "Pod{spec: 1}",
            Err("compilation failed: ERROR: <input>:1:1: undeclared reference to 'Pod' (in container '')"),
        );
        check(
            "JSONPatch",
            "[JSONPatch{nope: 1}]",
            Err("compilation failed: ERROR: <input>:1:1: undefined field 'nope'"),
        );
        check(
            "ApplyConfiguration",
            "Object{spec: object.missing}",
            Err("expression 'Object{spec: object.missing}' resulted in error: no such key: missing"),
        );
    }
}
