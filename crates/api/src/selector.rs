//! Label and field selectors: parsing, from objects, matching.
//!
//! Owns: the grammar of `labels.Parse` and `fields.ParseSelector` of apimachinery.
//! May not know: where the labels and fields come from.

use serde_json::Value;
use thiserror::Error;

use crate::meta::{is_label_value, is_qualified_name, pairs};

/// Longest selector text that is read, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SelectorError {
    #[error("selector of {len} bytes is longer than {SELECTOR_BYTES_MAX}")]
    TooLong { len: usize },
    #[error("unable to parse requirement: {why}")]
    Parse { why: String },
    #[error("{operator:?} is not a valid label selector operator")]
    Operator { operator: String },
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Exists { key: String },
    DoesNotExist { key: String },
    GreaterThan { key: String, value: i64 },
    LessThan { key: String, value: i64 },
}

impl Requirement {
    /// The label that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::In { key, .. }
            | Self::NotIn { key, .. }
            | Self::Exists { key }
            | Self::DoesNotExist { key }
            | Self::GreaterThan { key, .. }
            | Self::LessThan { key, .. } => key,
        }
    }

    fn holds<'a>(&self, get: &impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In { key, values } => get(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Self::NotIn { key, values } => get(key).is_none_or(|v| values.iter().all(|x| x != v)),
            Self::Exists { key } => get(key).is_some(),
            Self::DoesNotExist { key } => get(key).is_none(),
            Self::GreaterThan { key, value } => number(key).is_some_and(|n| n > *value),
            Self::LessThan { key, value } => number(key).is_some_and(|n| n < *value),
        }
    }
}

/// All requirements must hold; none at all matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// A nil selector of an object matches nothing.
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// True when every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong { len: text.len() });
        }
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            if part.trim().is_empty() {
                if text.trim().is_empty() {
                    break;
                }
                return Err(SelectorError::Parse { why: format!("empty requirement in {text:?}") });
            }
            requirements.push(parse_requirement(part.trim())?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A `metav1.LabelSelector` object; null matches nothing, `{}` everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements: Vec<Requirement> = pairs(selector.get("matchLabels"))
            .map(|(k, v)| Requirement::In { key: k.to_owned(), values: vec![v.to_owned()] })
            .collect();
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(from_expression(expression)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A plain map (`spec.selector` of a Service); an empty or missing map matches nothing.
    pub fn from_map(map: Option<&Value>) -> Self {
        let requirements: Vec<Requirement> =
            pairs(map).map(|(k, v)| Requirement::In { key: k.to_owned(), values: vec![v.to_owned()] }).collect();
        if requirements.is_empty() { Self::nothing() } else { Self { requirements, nothing: false } }
    }

    /// Does an object with these labels match? `get` answers the value of one label.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.holds(&get))
    }

    /// [`Self::matches`] on `metadata.labels` of an object.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }
}

fn from_expression(expression: &Value) -> Result<Requirement, SelectorError> {
    let key = expression.get("key").and_then(Value::as_str).unwrap_or("").to_owned();
    let values: Vec<String> = expression
        .get("values")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    match expression.get("operator").and_then(Value::as_str).unwrap_or("") {
        "In" => Ok(Requirement::In { key, values }),
        "NotIn" => Ok(Requirement::NotIn { key, values }),
        "Exists" => Ok(Requirement::Exists { key }),
        "DoesNotExist" => Ok(Requirement::DoesNotExist { key }),
        "Gt" => Ok(Requirement::GreaterThan { key, value: integer(values.first().map_or("", String::as_str))? }),
        "Lt" => Ok(Requirement::LessThan { key, value: integer(values.first().map_or("", String::as_str))? }),
        other => Err(SelectorError::Operator { operator: other.to_owned() }),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn integer(text: &str) -> Result<i64, SelectorError> {
    text.trim().parse().map_err(|_| SelectorError::Parse { why: format!("{text:?} is not an integer") })
}

fn key(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    if is_qualified_name(text) {
        Ok(text.to_owned())
    } else {
        Err(SelectorError::Parse { why: format!("{text:?} is not a label key") })
    }
}

fn value(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    if is_label_value(text) {
        Ok(text.to_owned())
    } else {
        Err(SelectorError::Parse { why: format!("{text:?} is not a label value") })
    }
}

fn set_requirement(text: &str) -> Option<Result<Requirement, SelectorError>> {
    let (head, rest) = text.split_once('(')?;
    let mut words = head.split_whitespace();
    let (name, operator) = (words.next()?, words.next()?);
    let Some(inner) = rest.strip_suffix(')') else {
        return Some(Err(SelectorError::Parse { why: format!("found {text:?}, expected ')' at the end") }));
    };
    let parsed = key(name).and_then(|key| {
        let values = inner.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        match operator {
            "in" => Ok(Requirement::In { key, values }),
            "notin" => Ok(Requirement::NotIn { key, values }),
            other => Err(SelectorError::Parse { why: format!("found {other:?}, expected in or notin") }),
        }
    });
    Some(parsed)
}

fn parse_requirement(text: &str) -> Result<Requirement, SelectorError> {
    if let Some(parsed) = set_requirement(text) {
        return parsed;
    }
    if let Some((k, v)) = text.split_once("!=") {
        return Ok(Requirement::NotIn { key: key(k)?, values: vec![value(v)?] });
    }
    if let Some((k, v)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In { key: key(k)?, values: vec![value(v)?] });
    }
    if let Some((k, v)) = text.split_once('>') {
        return Ok(Requirement::GreaterThan { key: key(k)?, value: integer(v)? });
    }
    if let Some((k, v)) = text.split_once('<') {
        return Ok(Requirement::LessThan { key: key(k)?, value: integer(v)? });
    }
    match text.strip_prefix('!') {
        Some(name) => Ok(Requirement::DoesNotExist { key: key(name)? }),
        None => Ok(Requirement::Exists { key: key(text)? }),
    }
}

/// How a field must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOperator {
    Equals,
    NotEquals,
}

/// `status.phase=Running,spec.nodeName!=n1`: every term must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<(String, FieldOperator, String)>,
}

impl FieldSelector {
    /// Terms are separated by commas; `\` escapes a comma, `=` or `\`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong { len: text.len() });
        }
        let mut terms = Vec::new();
        for term in split_unescaped(text).into_iter().filter(|t| !t.is_empty()) {
            let (path, operator, value) = if let Some((p, v)) = term.split_once("!=") {
                (p, FieldOperator::NotEquals, v)
            } else if let Some((p, v)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (p, FieldOperator::Equals, v)
            } else {
                return Err(SelectorError::Parse {
                    why: format!("invalid selector: {text:?}; can't understand {term:?}"),
                });
            };
            terms.push((path.trim().to_owned(), operator, unescape(value)));
        }
        Ok(Self { terms })
    }

    /// `get` answers the field's text ("" when absent).
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|(path, operator, value)| match operator {
            FieldOperator::Equals => get(path) == value,
            FieldOperator::NotEquals => get(path) != value,
        })
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in text.char_indices() {
        match character {
            '\\' if !escaped => escaped = true,
            ',' if !escaped => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => escaped = false,
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for character in text.chars() {
        if character == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(character);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_match() {
        let labels = json!({ "metadata": { "labels": { "app": "web", "tier": "front", "n": "5" } } });
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (api, web)", true),
            ("app notin (web)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing,tier in (front)", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("example.com/x", false),
        ];
        for (text, expect) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches_object(&labels), expect, "{text:?}");
        }
    }

    #[test]
    fn bad_selectors_are_refused() {
        for text in ["a b", "app in (x", ",", "a=b,,c", "app within (x)", "=x", "n>many", "-x=1"] {
            assert!(LabelSelector::parse(text).is_err(), "{text:?}");
        }
        assert!(FieldSelector::parse("status.phase").is_err());
        let long = "a".repeat(SELECTOR_BYTES_MAX + 1);
        assert_eq!(LabelSelector::parse(&long), Err(SelectorError::TooLong { len: long.len() }));
    }

    #[test]
    fn object_selectors() {
        let pod = json!({ "metadata": { "labels": { "app": "web" } } });
        let check = |selector: Value, expect: bool| {
            assert_eq!(LabelSelector::from_object(&selector).unwrap().matches_object(&pod), expect, "{selector}");
        };
        check(json!(null), false);
        check(json!({}), true);
        check(json!({ "matchLabels": { "app": "web" } }), true);
        check(json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["a", "web"] }] }), true);
        check(json!({ "matchExpressions": [{ "key": "app", "operator": "DoesNotExist" }] }), false);
        let bad = json!({ "matchExpressions": [{ "key": "app", "operator": "Like" }] });
        assert!(LabelSelector::from_object(&bad).is_err());
        assert!(!LabelSelector::from_map(Some(&json!({}))).matches_object(&pod));
        assert!(LabelSelector::from_map(Some(&json!({ "app": "web" }))).matches_object(&pod));
    }

    #[test]
    fn field_selectors() {
        let get = |path: &str| match path {
            "status.phase" => "Running",
            "odd" => "a,b",
            _ => "",
        };
        let cases = [
            ("status.phase=Running", true),
            ("status.phase!=Running", false),
            ("status.phase==Running,spec.nodeName=", true),
            ("odd=a\\,b", true),
            ("", true),
        ];
        for (text, expect) in cases {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(get), expect, "{text:?}");
        }
    }
}
