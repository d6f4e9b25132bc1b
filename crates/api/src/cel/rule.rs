//! `x-kubernetes-validations`: compiling a rule, and running all rules of a schema over an object.
//!
//! Owns: `self`, `oldSelf`, messages, reasons, which rules run on an update. Follows apiextensions
//! `pkg/apiserver/schema/cel`.

use std::collections::BTreeMap;
use std::rc::Rc;

use regex::Regex;
use serde_json::Value;

use super::ast::Expr;
use super::check::{Checker, Ty};
use super::eval::{Evaluator, RULE_STEPS_MAX, TOO_COSTLY};
use super::parser::parse;
use super::value::Val;
use crate::custom::{Schema, counterpart};
use crate::status::{FieldError, FieldErrorKind};

/// Steps of all rules over one object; after that nothing is accepted any more.
const OBJECT_STEPS_MAX: u64 = 10_000_000;
/// Messages made by an expression are cut off here.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// What a rule is about, when it is compiled.
pub struct Scope<'s> {
    schema: &'s Schema,
    /// The list in which values cannot be told apart, so that none has a former value.
    uncorrelated: Option<String>,
}

impl<'s> Scope<'s> {
    pub fn of(schema: &'s Schema) -> Self {
        Self { schema, uncorrelated: None }
    }

    /// The same within a list whose items have no identity.
    #[must_use]
    pub fn within(self, uncorrelated: Option<String>) -> Self {
        Self { uncorrelated, ..self }
    }
}

/// One rule, ready to run.
#[derive(Debug)]
pub struct Rule {
    text: String,
    expr: Expr,
    message: String,
    message_expr: Option<Expr>,
    kind: FieldErrorKind,
    field_path: String,
    /// It looks at the former value, so that it says something about changes.
    is_transition: bool,
    optional_old: bool,
    patterns: BTreeMap<String, Regex>,
}

fn text<'a>(rule: &'a Value, field: &str) -> &'a str {
    rule.get(field).and_then(Value::as_str).unwrap_or("")
}

fn names_old(expr: &Expr) -> bool {
    let mut found = false;
    expr.each(&mut |expr| found |= matches!(expr, Expr::Name(name) if &**name == "oldSelf"));
    found
}

pub(super) fn collect_patterns(expr: &Expr, patterns: &mut BTreeMap<String, Regex>) {
    expr.each(&mut |expr| {
        if let Expr::Call { name, args, .. } = expr
            && matches!(&**name, "matches" | "find" | "findAll")
        {
            for arg in args {
                if let Expr::Text(text) = arg
                    && let Ok(regex) = crate::custom::pattern(text)
                {
                    patterns.insert(text.to_string(), regex);
                }
            }
        }
    });
}

impl Rule {
    /// Compiles a rule of a schema.
    ///
    /// # Errors
    /// Which field of the rule is wrong, and why.
    pub fn compile(rule: &Value, schema: &Schema) -> Result<Self, (&'static str, String)> {
        let failed = |why: String| format!("compilation failed: {why}");
        let source = text(rule, "rule");
        let expr = parse(source).map_err(|why| ("rule", failed(why)))?;
        let optional_old = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
        let old = if optional_old { Ty::Dyn } else { Ty::Of(schema) };
        let names = || vec![("self", Ty::Of(schema)), ("oldSelf", old)];
        let located = |why: String| failed(format!("ERROR: <input>:1:1: {why}"));
        let found = Checker { names: names(), makes_structs: false, foreign: &[] }
            .check(&expr)
            .map_err(|why| ("rule", located(why)))?;
        if !found.is_bool() {
            return Err(("rule", "compilation failed: must evaluate to a bool".to_owned()));
        }
        let message_text = text(rule, "messageExpression");
        let message_expr = if message_text.trim().is_empty() {
            None
        } else {
            let at = "messageExpression";
            let expr =
                parse(message_text).map_err(|why| (at, format!("messageExpression compilation failed: {why}")))?;
            let found = Checker { names: names(), makes_structs: false, foreign: &[] }
                .check(&expr)
                .map_err(|why| (at, format!("messageExpression compilation failed: ERROR: <input>:1:1: {why}")))?;
            if !found.is_text() {
                return Err((at, "messageExpression must evaluate to a string".to_owned()));
            }
            Some(expr)
        };
        let is_transition = names_old(&expr) || message_expr.as_ref().is_some_and(names_old);
        let mut patterns = BTreeMap::new();
        collect_patterns(&expr, &mut patterns);
        let kind = match text(rule, "reason") {
            "FieldValueForbidden" => FieldErrorKind::Forbidden,
            "FieldValueRequired" => FieldErrorKind::Required,
            "FieldValueDuplicate" => FieldErrorKind::Duplicate,
            _ => FieldErrorKind::Invalid,
        };
        Ok(Self {
            text: source.to_owned(),
            expr,
            message: text(rule, "message").to_owned(),
            message_expr,
            kind,
            field_path: text(rule, "fieldPath").to_owned(),
            is_transition,
            optional_old,
            patterns,
        })
    }

    /// What a failure is called.
    fn label(&self) -> String {
        let message = self.message.trim();
        if message.is_empty() { self.text.trim().to_owned() } else { message.to_owned() }
    }
}

/// What is wrong with a rule in a definition; `path` is where the rule is.
pub fn check_rule(rule: &Value, scope: &Scope<'_>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(rule, "rule").trim().is_empty() {
        return vec![FieldError::required(format!("{path}.rule"), "rule is not specified")];
    }
    let message = text(rule, "message");
    if !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        errors.push(FieldError::invalid(format!("{path}.message"), message, why));
    }
    if message.trim().contains('\n') {
        errors.push(FieldError::invalid(format!("{path}.message"), message, "message must not contain line breaks"));
    }
    if text(rule, "rule").trim().contains('\n') && message.is_empty() {
        let why = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(format!("{path}.message"), why));
    }
    let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let reason = text(rule, "reason");
    if !reason.is_empty() && !reasons.contains(&reason) {
        errors.push(FieldError::not_supported(format!("{path}.reason"), reason, &reasons));
    }
    let field_path = text(rule, "fieldPath");
    if !field_path.is_empty() && !is_field_path(field_path, scope.schema) {
        let why = "fieldPath must be a valid path to a field of the schema";
        errors.push(FieldError::invalid(format!("{path}.fieldPath"), field_path, why));
    }
    match (Rule::compile(rule, scope.schema), &scope.uncorrelated) {
        (Err((field, why)), _) => errors.push(FieldError::invalid(format!("{path}.{field}"), text(rule, field), why)),
        (Ok(compiled), Some(list)) if compiled.is_transition => {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
            errors.push(FieldError::invalid(format!("{path}.rule"), text(rule, "rule"), why));
        }
        (Ok(_), _) => {}
    }
    errors
}

/// `.spec.name` or `['odd-name']`, of fields that there are.
fn is_field_path(path: &str, schema: &Schema) -> bool {
    let normal = path.replace("['", ".").replace("']", "");
    let Some(rest) = normal.strip_prefix('.') else { return false };
    rest.split('.').try_fold(schema, |at, step| at.field(step)).is_some()
}

/// Runs every rule of a schema over an object; `old` is what an update replaces.
pub fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run { budget: OBJECT_STEPS_MAX, errors: Vec::new(), over: false };
    run.node(schema, (object, old), "");
    run.errors
}

struct Run {
    budget: u64,
    errors: Vec<FieldError>,
    over: bool,
}

fn joined(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") }
}

impl Run {
    fn node(&mut self, schema: &Schema, (value, old): (&Value, Option<&Value>), path: &str) {
        if value.is_null() && schema.nullable {
            return;
        }
        for why in &schema.broken {
            self.errors.push(FieldError::invalid(path, "", why.as_str()));
        }
        for rule in &schema.rules {
            if self.over {
                return;
            }
            self.rule(rule, schema, (value, old), path);
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(field) = schema.field(name) {
                        let before = old.and_then(|old| old.get(name));
                        self.node(field, (value, before), &joined(path, name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(of) = schema.items.as_deref() else { return };
                let before = old.and_then(Value::as_array);
                for (index, item) in items.iter().enumerate() {
                    let was = before.and_then(|list| counterpart(schema.list, list, item));
                    self.node(of, (item, was), &format!("{path}[{index}]"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Schema, (value, old): (&Value, Option<&Value>), path: &str) {
        let old_val = match (rule.is_transition, old) {
            // Ratcheting: what was let in once, and is left as it was.
            (false, Some(old)) if old == value => return,
            (false, _) => None,
            (true, old) if rule.optional_old => {
                Some(Val::Optional(old.map(|old| Rc::new(Val::lift(old, Some(schema))))))
            }
            (true, Some(old)) => Some(Val::lift(old, Some(schema))),
            (true, None) => return,
        };
        let shown = match value {
            Value::Object(_) => "object".into(),
            Value::Array(_) => "array".into(),
            scalar => scalar.clone(),
        };
        let mut names = vec![("self", Val::lift(value, Some(schema)))];
        names.extend(old_val.map(|old| ("oldSelf", old)));
        let allowed = self.budget.min(RULE_STEPS_MAX);
        let mut evaluator = Evaluator { names, patterns: &rule.patterns, budget: allowed };
        let outcome = evaluator.eval(&rule.expr);
        self.budget -= allowed - evaluator.budget;
        let label = rule.label();
        match outcome {
            Ok(Val::Bool(true)) => {}
            Ok(Val::Bool(false)) => {
                let message = rule.message_expr.as_ref().and_then(|expr| message(&mut evaluator, expr));
                let detail = message.unwrap_or_else(|| match rule.message.trim() {
                    "" => format!("failed rule: {}", rule.text.trim()),
                    text => text.to_owned(),
                });
                let place = rule.field_path.replace("['", ".").replace("']", "");
                let place =
                    if place.is_empty() { path.to_owned() } else { joined(path, place.trim_start_matches('.')) };
                self.errors.push(FieldError { kind: rule.kind, path: place, value: shown, detail });
            }
            Ok(other) => {
                let why = format!("rule evaluated to {}, not to a bool, evaluating rule: {label}", other.type_name());
                self.errors.push(FieldError::invalid(path, shown, why));
            }
            Err(why) if why == TOO_COSTLY => {
                self.over = self.budget == 0;
                let why = if self.over {
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .to_owned()
                } else {
                    format!("call cost exceeds limit evaluating rule: {label}")
                };
                self.errors.push(FieldError::invalid(path, shown, why));
            }
            Err(why) => self.errors.push(FieldError::invalid(path, shown, format!("{why} evaluating rule: {label}"))),
        }
    }
}

/// A message made by an expression; `None` when it makes none that is of use.
fn message<'e>(evaluator: &mut Evaluator<'e, '_>, expr: &'e Expr) -> Option<String> {
    let Ok(Val::Text(text)) = evaluator.eval(expr) else { return None };
    let text = text.trim();
    let fits = !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX;
    fits.then(|| text.to_owned())
}
