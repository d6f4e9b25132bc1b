//! What a kube-apiserver's decoder does with a request body: types checked, unknown fields reported and pruned.
//!
//! Owns: the node tree of every built-in type, made once from k8s-openapi's schemas, the walk over it, and the
//! wording of decoding errors (Go's `encoding/json` and apimachinery's strict decoder).
//! May not know: what a field means (see `defaults`, `validate`).

use std::sync::LazyLock;

use serde_json::Value;

use crate::kinds::Kind;
use crate::status::Status;

mod cursor;
mod node;
mod parse;
mod walk;

pub use cursor::{Cursor, ScalarType, Shape};
pub(crate) use node::REFERENCE_PREFIX;
pub use parse::{parse, parse_from};

use node::{NodeId, Tree};

/// What to do about fields that the kind does not have; always pruned in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// The value of the `fieldValidation` query parameter; empty means the default.
    pub fn from_query(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// Request bodies that are no stored kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Binding,
    DeleteOptions,
    Eviction,
    Scale,
    TokenRequest,
}

impl Body {
    const ALL: [Self; 5] = [Self::Binding, Self::DeleteOptions, Self::Eviction, Self::Scale, Self::TokenRequest];

    fn kind(self) -> &'static str {
        match self {
            Self::Binding => "Binding",
            Self::DeleteOptions => "DeleteOptions",
            Self::Eviction => "Eviction",
            Self::Scale => "Scale",
            Self::TokenRequest => "TokenRequest",
        }
    }
}

/// What a lenient decoder has to say about a body.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeError {
    /// `json: cannot unmarshal string into Go struct field …`
    pub why: String,
}

static TREE: LazyLock<Tree> = LazyLock::new(Tree::compile);

/// Checks and prunes an object of `kind` in place; the warnings for the client come back.
pub fn check(kind: &Kind, object: &mut Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
    check_from(kind, object, validation, Vec::new())
}

/// [`check`], with what [`parse`] already found to be doubled.
pub fn check_from(
    kind: &Kind,
    object: &mut Value,
    validation: FieldValidation,
    duplicates: Vec<String>,
) -> Result<Vec<String>, Status> {
    let label = Label { kind: kind.kind, version: kind.version };
    label.check(TREE.of_kind(kind), object, validation, duplicates)
}

/// [`check`] for a body that is no stored kind.
pub fn check_body(body: Body, object: &mut Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
    let label = Label { kind: body.kind(), version: "v1" };
    label.check(TREE.of_body(body), object, validation, Vec::new())
}

/// The bare decoder: prunes, and returns the strict decoder's complaints (`unknown field "spec.foo"`).
///
/// For patches, whose errors Kubernetes words otherwise.
pub fn decode(kind: &Kind, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    walk::walk(&TREE, TREE.of_kind(kind), object)
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The `metadata` of an object that is of no built-in kind: checked and pruned. Complaints name fields from there on.
pub fn decode_metadata(metadata: &mut Value) -> Result<Vec<String>, DecodeError> {
    walk::walk(&TREE, TREE.find(OBJECT_META).expect("every kind has metadata"), metadata)
}

/// Whether a type has a field; `None` when no kind uses the type.
#[cfg(test)]
pub(crate) fn has_field(type_name: &str, field: &str) -> Option<bool> {
    match TREE.node(TREE.find(type_name)?) {
        node::Node::Struct(of) => Some(of.field(field).is_some()),
        _ => None,
    }
}

/// The fields of a type, if it is used and has any.
#[cfg(test)]
pub(crate) fn field_names(type_name: &str) -> Option<Vec<String>> {
    match TREE.node(TREE.find(type_name)?) {
        node::Node::Struct(of) => Some(of.names().map(str::to_owned).collect()),
        _ => None,
    }
}

struct Label<'a> {
    kind: &'a str,
    version: &'a str,
}

impl Label<'_> {
    fn refuse(&self, why: &str) -> Status {
        let Self { kind, version } = self;
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    }

    fn check(
        &self,
        root: NodeId,
        object: &mut Value,
        validation: FieldValidation,
        duplicates: Vec<String>,
    ) -> Result<Vec<String>, Status> {
        let mut complaints = walk::walk(&TREE, root, object).map_err(|error| self.refuse(&error.why))?;
        complaints.extend(duplicates);
        match validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(complaints),
            FieldValidation::Strict if complaints.is_empty() => Ok(Vec::new()),
            FieldValidation::Strict => Err(self.refuse(&format!("strict decoding error: {}", complaints.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests;
