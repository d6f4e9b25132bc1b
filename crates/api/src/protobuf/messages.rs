//! The field table: which number of which message is which JSON field.
//!
//! `messages.txt` is made by `cargo xtask codegen`. A line without indent names a message; the
//! indented lines below it are its fields: number, wire kind, JSON name, and the target message.

use std::collections::HashMap;
use std::sync::LazyLock;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FieldKind {
    String,
    Bytes,
    Bool,
    Integer,
    Double,
    Message(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Once,
    List,
    /// A map from strings; the kind is that of its values.
    Map,
    /// A message whose fields are the outer one's in JSON.
    Inline,
}

#[derive(Debug)]
pub(super) struct Field {
    pub tag: u32,
    pub repeat: Repeat,
    pub kind: FieldKind,
    pub json: String,
}

#[derive(Debug)]
pub(super) struct Message {
    pub name: String,
    /// Sorted by number.
    fields: Vec<Field>,
}

impl Message {
    pub(super) fn field(&self, tag: u32) -> Option<&Field> {
        let at = self.fields.binary_search_by_key(&tag, |f| f.tag).ok()?;
        Some(&self.fields[at])
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }
}

static MESSAGES: LazyLock<HashMap<String, Message>> = LazyLock::new(|| parse(TABLE));

const TABLE: &str = include_str!("messages.txt");

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static Message> {
    MESSAGES.values()
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

pub(super) fn by_name(name: &str) -> Option<&'static Message> {
    MESSAGES.get(name)
}

/// The message of a top-level object. Options such as `DeleteOptions` come with the apiVersion of
/// the group they are sent to, and live in meta/v1.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = match group.split('.').next() {
        None | Some("") => "api.core",
        Some("apiextensions") => "apiextensions_apiserver.pkg.apis.apiextensions",
        Some("metrics") => "metrics.pkg.apis.metrics",
        Some("apiregistration") => "kube_aggregator.pkg.apis.apiregistration",
        Some(first) => &format!("api.{first}"),
    };
    by_name(&format!("io.k8s.{package}.{version}.{kind}")).or_else(|| by_name(&format!("{META}.{kind}")))
}

/// Reads the table; a line that cannot be read would be a defect of the generator, caught by the
/// test below.
fn parse(text: &str) -> HashMap<String, Message> {
    let mut messages = HashMap::new();
    let mut current: Option<Message> = None;
    for line in text.lines() {
        match line.strip_prefix(' ') {
            None => {
                let done = current.replace(Message { name: line.to_owned(), fields: Vec::new() });
                messages.extend(done.map(|m| (m.name.clone(), m)));
            }
            Some(rest) => {
                if let (Some(message), Some(field)) = (current.as_mut(), parse_field(rest)) {
                    message.fields.push(field);
                }
            }
        }
    }
    messages.extend(current.map(|m| (m.name.clone(), m)));
    for message in messages.values_mut() {
        message.fields.sort_by_key(|f| f.tag);
    }
    messages
}

fn parse_field(line: &str) -> Option<Field> {
    let mut words = line.split(' ');
    let tag = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let json = words.next()?.to_owned();
    let (repeat, letter) = match kind.split_at_checked(1)? {
        ("*", letter) => (Repeat::List, letter),
        ("%", letter) => (Repeat::Map, letter),
        ("^", letter) => (Repeat::Inline, letter),
        _ => (Repeat::Once, kind),
    };
    let kind = match letter {
        "s" => FieldKind::String,
        "y" => FieldKind::Bytes,
        "b" => FieldKind::Bool,
        "i" => FieldKind::Integer,
        "d" => FieldKind::Double,
        "m" => FieldKind::Message(words.next()?.to_owned()),
        _ => return None,
    };
    Some(Field { tag, repeat, kind, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_closed_and_whole() {
        let lines = TABLE.lines().filter(|l| l.starts_with(' ')).count();
        let fields: usize = MESSAGES.values().map(|m| m.fields.len()).sum();
        assert_eq!(lines, fields, "every line was read");
        for message in MESSAGES.values() {
            for field in &message.fields {
                if let FieldKind::Message(target) = &field.kind {
                    assert!(by_name(target).is_some(), "{} -> {target}", message.name);
                }
            }
        }
    }

    #[test]
    fn every_served_kind_has_its_message() {
        // Knarr's own kinds have none: Go clients know them as untyped objects, which travel as JSON.
        for kind in crate::kinds::KINDS.iter().filter(|kind| kind.group != crate::own::GROUP) {
            let api_version = if kind.group.is_empty() {
                kind.version.to_owned()
            } else {
                format!("{}/{}", kind.group, kind.version)
            };
            assert!(of_kind(&api_version, kind.kind).is_some(), "{api_version} {}", kind.kind);
        }
        assert!(of_kind("apps/v1", "DeleteOptions").is_some());
        assert!(of_kind("authorization.k8s.io/v1", "SelfSubjectAccessReview").is_some());
        assert!(of_kind("v1", "Nonsense").is_none());
    }
}
