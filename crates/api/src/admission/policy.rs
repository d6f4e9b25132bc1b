//! ValidatingAdmissionPolicy: compiled once, evaluated over a request.
//!
//! Owns: what expressions may name, in which order they run, and what comes of them. Follows `policy/validating` of
//! k8s.io/apiserver. Variables are evaluated before the validations, each once; one that fails makes fail whoever
//! looks at it. May not know: where parameters, namespaces and bindings are found.

use std::rc::Rc;

use serde_json::Value;

use super::rules::Matching;
use crate::cel::{Foreign, Program, Val, Wanted};

/// Steps of all expressions over one request.
pub const REQUEST_STEPS_MAX: u64 = 10_000_000;
/// Steps of one expression.
const EXPRESSION_STEPS_MAX: u64 = 1_000_000;
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// What an expression stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `matchConditions`, of webhooks as well.
    Condition,
    Variable,
    Validation,
    /// `messageExpression`, `valueExpression` of audit annotations.
    Text,
}

/// The names that an expression may use.
pub fn names(place: Place, has_params: bool) -> Vec<&'static str> {
    let mut names = vec!["object", "oldObject", "request"];
    if place != Place::Text {
        names.push("authorizer");
    }
    if place != Place::Condition {
        names.extend(["namespaceObject", "variables"]);
    }
    if has_params {
        names.push("params");
    }
    names
}

/// What expressions look at. Absent objects are null.
#[derive(Clone)]
pub struct Inputs<'a> {
    pub object: &'a Value,
    pub old: &'a Value,
    /// As the `request` of an AdmissionReview, without the objects.
    pub request: &'a Value,
    pub namespace: &'a Value,
    pub params: &'a Value,
    pub authorizer: Rc<dyn Foreign>,
}

impl<'a> Inputs<'a> {
    fn names(&self) -> Vec<(&'static str, Val<'a>)> {
        vec![
            ("object", Val::lift(self.object, None)),
            ("oldObject", Val::lift(self.old, None)),
            ("request", Val::lift(self.request, None)),
            ("namespaceObject", Val::lift(self.namespace, None)),
            ("params", Val::lift(self.params, None)),
            ("authorizer", Val::Foreign(Rc::clone(&self.authorizer))),
        ]
    }
}

/// Runs one expression within its own and the request's budget.
pub(super) fn run<'v>(program: &Program, names: &[(&str, Val<'v>)], budget: &mut u64) -> Result<Val<'v>, String> {
    let allowed = (*budget).min(EXPRESSION_STEPS_MAX);
    let mut left = allowed;
    let outcome = program.run(names, &mut left);
    *budget -= allowed - left;
    outcome.map_err(|why| format!("expression '{}' resulted in error: {why}", program.text().trim()))
}

pub(super) fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn items<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `matchConditions`: all must hold.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Program>);

impl Conditions {
    /// # Errors
    /// Which does not compile, and why.
    pub fn compile(of: &Value, has_params: bool) -> Result<Self, String> {
        let names = names(Place::Condition, has_params);
        let programs = items(of, "matchConditions")
            .iter()
            .map(|condition| Program::compile(text(condition, "expression"), &names, Wanted::Bool));
        programs.collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not decides, whatever fails elsewhere.
    ///
    /// # Errors
    /// What failed, when nothing else decided.
    pub fn hold(&self, inputs: &Inputs<'_>, budget: &mut u64) -> Result<bool, String> {
        let names = inputs.names();
        let mut errors = Vec::new();
        for program in &self.0 {
            match run(program, &names, budget) {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(other) => errors.push(format!("expression '{}' is {}", program.text(), other.type_name())),
                Err(why) => errors.push(why),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [only] => Err(only.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}

#[derive(Debug)]
struct Validation {
    program: Program,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

/// `variables`, in the order in which they are defined.
#[derive(Debug, Default)]
pub struct Variables(Vec<(String, Program)>);

impl Variables {
    /// # Errors
    /// Which does not compile, and why.
    pub fn compile(spec: &Value, has_params: bool) -> Result<Self, String> {
        let names = names(Place::Variable, has_params);
        let variables = items(spec, "variables").iter().map(|variable| {
            let program = Program::compile(text(variable, "expression"), &names, Wanted::Anything)?;
            Ok((text(variable, "name").to_owned(), program))
        });
        variables.collect::<Result<_, _>>().map(Self)
    }

    /// The names of an evaluation with `variables` among them.
    pub fn names<'v>(&self, inputs: &Inputs<'v>, budget: &mut u64) -> Vec<(&'static str, Val<'v>)> {
        let mut names = inputs.names();
        let mut values: Vec<(Val<'v>, Val<'v>)> = Vec::new();
        names.push(("variables", Val::Map(Rc::new(Vec::new()))));
        for (name, program) in &self.0 {
            let value = run(program, &names, budget).unwrap_or_else(|why| Val::Failure(why.into()));
            values.push((Val::text(name), value));
            names.pop();
            names.push(("variables", Val::Map(Rc::new(values.clone()))));
        }
        names
    }
}

/// One thing against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    /// Reason and code of the refusal.
    pub reason: &'static str,
    pub code: u16,
}

/// The reason of a refusal and its code.
fn reason(named: &str) -> (&'static str, u16) {
    match named {
        "Unauthorized" => ("Unauthorized", 401),
        "Forbidden" => ("Forbidden", 403),
        "RequestEntityTooLarge" => ("RequestEntityTooLarge", 413),
        _ => ("Invalid", 422),
    }
}

impl Failure {
    pub fn invalid(message: String) -> Self {
        Self { message, reason: "Invalid", code: 422 }
    }
}

/// What came of a policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub failures: Vec<Failure>,
    /// For the audit log: key and value.
    pub annotations: Vec<(String, String)>,
}

/// The kind of a policy's parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl ParamKind {
    pub fn read(spec: &Value) -> Option<Self> {
        let kind = spec.get("paramKind").filter(|kind| kind.is_object())?;
        let (group, version) = text(kind, "apiVersion").rsplit_once('/').unwrap_or(("", text(kind, "apiVersion")));
        Some(Self { group: group.to_owned(), version: version.to_owned(), kind: text(kind, "kind").to_owned() })
    }
}

/// A compiled ValidatingAdmissionPolicy.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    pub matching: Matching,
    pub params: Option<ParamKind>,
    /// What fails to evaluate lets the request pass.
    pub ignores_failures: bool,
    code: Result<Code, String>,
}

#[derive(Debug)]
struct Code {
    conditions: Conditions,
    variables: Variables,
    validations: Vec<Validation>,
    annotations: Vec<(String, Program)>,
}

impl Code {
    fn compile(spec: &Value, has_params: bool) -> Result<Self, String> {
        let (expression, words) = (names(Place::Validation, has_params), names(Place::Text, has_params));
        let validation = |of: &Value| {
            let message_expression = text(of, "messageExpression");
            let message_program = if message_expression.is_empty() {
                None
            } else {
                Some(Program::compile(message_expression, &words, Wanted::Text)?)
            };
            Ok::<_, String>(Validation {
                program: Program::compile(text(of, "expression"), &expression, Wanted::Bool)?,
                message: text(of, "message").trim().to_owned(),
                message_program,
                reason: text(of, "reason").to_owned(),
            })
        };
        let annotation = |of: &Value| {
            let program = Program::compile(text(of, "valueExpression"), &words, Wanted::TextOrNull)?;
            Ok::<_, String>((text(of, "key").to_owned(), program))
        };
        Ok(Self {
            conditions: Conditions::compile(spec, has_params)?,
            variables: Variables::compile(spec, has_params)?,
            validations: items(spec, "validations").iter().map(validation).collect::<Result<_, _>>()?,
            annotations: items(spec, "auditAnnotations").iter().map(annotation).collect::<Result<_, _>>()?,
        })
    }
}

impl Policy {
    pub fn compile(object: &Value) -> Self {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let params = ParamKind::read(spec);
        Self {
            name: crate::meta::name(object).to_owned(),
            matching: Matching::of_policy(spec.get("matchConstraints").unwrap_or(&Value::Null)),
            ignores_failures: text(spec, "failurePolicy") == "Ignore",
            code: Code::compile(spec, params.is_some()),
            params,
        }
    }

    /// What is against the request; nothing when the policy's conditions do not hold.
    pub fn evaluate(&self, inputs: &Inputs<'_>, budget: &mut u64) -> Outcome {
        let mut outcome = Outcome::default();
        // Whether what fails to evaluate counts.
        let failed = |why: String| (!self.ignores_failures).then(|| Failure::invalid(why));
        let code = match &self.code {
            Ok(code) => code,
            Err(why) => {
                outcome.failures.extend(failed(why.clone()));
                return outcome;
            }
        };
        match code.conditions.hold(inputs, budget) {
            Ok(true) => {}
            Ok(false) => return outcome,
            Err(why) => {
                outcome.failures.extend(failed(why));
                return outcome;
            }
        }
        let names = code.variables.names(inputs, budget);
        for validation in &code.validations {
            match run(&validation.program, &names, budget) {
                Ok(Val::Bool(true)) => {}
                Ok(_) => outcome.failures.push(validation.failure(&names, budget)),
                Err(why) => outcome.failures.extend(failed(why)),
            }
        }
        for (key, program) in &code.annotations {
            match run(program, &names, budget) {
                Ok(Val::Text(value)) if !value.trim().is_empty() => {
                    let mut end = value.trim().len().min(ANNOTATION_BYTES_MAX);
                    while !value.trim().is_char_boundary(end) {
                        end -= 1;
                    }
                    outcome.annotations.push((key.clone(), value.trim()[..end].to_owned()));
                }
                Ok(Val::Text(_) | Val::Null) => {}
                Ok(other) => outcome.failures.extend(failed(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string \
                     or null.",
                    program.text(),
                    other.type_name()
                ))),
                Err(why) => outcome.failures.extend(failed(why)),
            }
        }
        outcome
    }
}

impl Validation {
    fn failure(&self, names: &[(&str, Val<'_>)], budget: &mut u64) -> Failure {
        let made = self.message_program.as_ref().and_then(|program| match run(program, names, budget) {
            Ok(Val::Text(text)) => Some(text.trim().to_owned()),
            _ => None,
        });
        let made = made.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX);
        let fixed = || Some(self.message.clone()).filter(|message| !message.is_empty());
        let message =
            made.or_else(fixed).unwrap_or_else(|| format!("failed expression: {}", self.program.text().trim()));
        let (reason, code) = reason(&self.reason);
        Failure { message, reason, code }
    }
}

/// What is done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deny,
    Warn,
    Audit,
}

/// Which objects are a binding's parameters.
#[derive(Debug)]
pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<crate::selector::LabelSelector>,
    /// No parameters at all are a failure.
    pub required: bool,
}

impl ParamRef {
    pub fn read(spec: &Value) -> Option<Self> {
        let of = spec.get("paramRef").filter(|of| of.is_object())?;
        let selector = of.get("selector").filter(|selector| selector.is_object()).map(|selector| {
            crate::selector::LabelSelector::from_object(selector)
                .unwrap_or_else(|_| crate::selector::LabelSelector::nothing())
        });
        Some(Self {
            name: text(of, "name").to_owned(),
            namespace: text(of, "namespace").to_owned(),
            selector,
            required: text(of, "parameterNotFoundAction") == "Deny",
        })
    }
}

/// A compiled binding.
#[derive(Debug)]
pub struct Binding {
    pub name: String,
    pub policy: String,
    pub params: Option<ParamRef>,
    pub matching: Option<Matching>,
    pub actions: Vec<Action>,
}

impl Binding {
    pub fn read(object: &Value) -> Self {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let actions = items(spec, "validationActions").iter().filter_map(|action| match action.as_str()? {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        });
        Self {
            name: crate::meta::name(object).to_owned(),
            policy: text(spec, "policyName").to_owned(),
            params: ParamRef::read(spec),
            matching: spec.get("matchResources").filter(|of| of.is_object()).map(Matching::of_binding),
            actions: actions.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::Answer;
    use serde_json::json;

    /// Allows what is called "yes".
    #[derive(Debug)]
    struct Authorizer(String);

    impl Foreign for Authorizer {
        fn type_name(&self) -> &'static str {
            "test.Authorizer"
        }

        fn call(&self, name: &str, args: &[&str]) -> Option<Answer> {
            match (name, args) {
                ("allowed", []) => Some(Answer::Bool(self.0 == "yes")),
                ("check", [verb]) => Some(Answer::Foreign(Rc::new(Self((*verb).to_owned())))),
                (_, [_]) => Some(Answer::Foreign(Rc::new(Self(String::new())))),
                _ => None,
            }
        }
    }

    fn run_policy(spec: Value, params: &Value) -> Vec<String> {
        let object = json!({ "metadata": { "name": "p", "labels": { "a": "b" } }, "spec": { "replicas": 6 } });
        let (request, namespace) = (json!({ "operation": "CREATE" }), json!({ "metadata": { "name": "n" } }));
        let policy = Policy::compile(&json!({ "metadata": { "name": "policy" }, "spec": spec }));
        let inputs = Inputs {
            object: &object,
            old: &Value::Null,
            request: &request,
            namespace: &namespace,
            params,
            authorizer: Rc::new(Authorizer(String::new())),
        };
        let mut budget = REQUEST_STEPS_MAX;
        policy.evaluate(&inputs, &mut budget).failures.into_iter().map(|failure| failure.message).collect()
    }

    #[test]
    fn validations() {
        let check = |spec: Value, expect: &[&str]| assert_eq!(run_policy(spec.clone(), &Value::Null), expect, "{spec}");
        let one = |expression: &str| json!({ "validations": [{ "expression": expression }] });
        check(one("object.spec.replicas <= 6"), &[]);
        check(one("object.spec.replicas <= 5"), &["failed expression: object.spec.replicas <= 5"]);
        check(one("oldObject == null && request.operation == 'CREATE'"), &[]);
        check(one("namespaceObject.metadata.name == 'n'"), &[]);
        check(one("has(object.metadata.labels) && 'a' in object.metadata.labels"), &[]);
        check(one("authorizer.group('').resource('pods').namespace('n').check('yes').allowed()"), &[]);
        check(
            one("authorizer.group('').resource('pods').check('no').allowed()"),
            &["failed expression: authorizer.group('').resource('pods').check('no').allowed()"],
        );
        check(
            one("object.spec.missing == 1"),
            &["expression 'object.spec.missing == 1' resulted in error: no such key: missing"],
        );
        let mut ignoring = one("object.spec.missing == 1");
        ignoring["failurePolicy"] = "Ignore".into();
        check(ignoring, &[]);
        check(
            json!({ "variables": [{ "name": "n", "expression": "object.spec.replicas" },
                { "name": "twice", "expression": "variables.n * 2" }, { "name": "bad", "expression": "object.x" }],
                "validations": [{ "expression": "variables.twice == 12" },
                    { "expression": "variables.n == 5", "messageExpression": "'n is ' + string(variables.n)" },
                    { "expression": "false", "message": "  fixed " }] }),
            &["n is 6", "fixed"],
        );
        check(
            json!({ "variables": [{ "name": "bad", "expression": "object.x" }],
                "validations": [{ "expression": "variables.bad == 1" }] }),
            &["expression 'variables.bad == 1' resulted in error: expression 'object.x' resulted in error: no such \
               key: x"],
        );
        check(
            json!({ "matchConditions": [{ "name": "c", "expression": "request.operation == 'UPDATE'" }],
                "validations": [{ "expression": "false" }] }),
            &[],
        );
        check(
            one("nothing == 1"),
            &["compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')"],
        );
    }

    #[test]
    fn parameters() {
        let spec = json!({ "paramKind": { "apiVersion": "rules.example.com/v1", "kind": "Limit" },
            "validations": [{ "expression": "params == null || object.spec.replicas <= params.max", "reason": "Forbidden" }] });
        assert_eq!(run_policy(spec.clone(), &json!({ "max": 5 })).len(), 1);
        assert!(
            run_policy(spec.clone(), &json!({ "max": 6 })).is_empty()
                && run_policy(spec.clone(), &Value::Null).is_empty()
        );
        let kind = ParamKind::read(&spec).unwrap();
        assert_eq!((kind.group.as_str(), kind.version.as_str()), ("rules.example.com", "v1"));
    }

    #[test]
    fn work_is_bounded() {
        let list = "[0,1,2,3,4,5,6,7,8,9]";
        let deep =
            format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, {list}.all(e, {list}.all(f, a >= 0))))))");
        let failures = run_policy(json!({ "validations": [{ "expression": deep }] }), &Value::Null);
        assert!(failures[0].contains("actual cost limit exceeded"), "{failures:?}");
    }
}
