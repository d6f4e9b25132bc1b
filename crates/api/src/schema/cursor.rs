//! Walking down a type beside a value, for patches: what is here, and how does it merge?
//!
//! Owns: the outside view of the node tree. May not know: values.

use serde_json::Value;

use super::TREE;
use super::node::{Node, NodeId, Scalar};
use crate::kinds::Kind;
use crate::list_rules::FieldRule;

/// A place in a type.
///
/// `Cursor::of_kind(deployment).field("spec")?.field("template")?.field("spec")?.field("containers")` is a list whose
/// [`rule`](Cursor::rule) says "merge by `name`", and whose [`item`](Cursor::item) is a Container.
#[derive(Clone, Copy)]
pub struct Cursor {
    node: NodeId,
    rule: Option<&'static FieldRule>,
    never_absent: bool,
}

/// The type of a scalar, as far as it matters to patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    Text,
    Boolean,
    Number,
    /// Several JSON types will do: quantities, times, `IntOrString`.
    Any,
}

/// What kind of value is expected at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Known fields. `atomic`: server-side apply owns it only as a whole.
    Struct {
        atomic: bool,
    },
    Map,
    List,
    Scalar,
    /// Any JSON.
    Raw,
}

impl Cursor {
    pub fn of_kind(kind: &Kind) -> Self {
        Self::unruled(TREE.of_kind(kind))
    }

    /// The `metadata` of any object.
    pub fn object_meta() -> Self {
        Self::unruled(TREE.find(super::OBJECT_META).expect("every kind has metadata"))
    }

    fn unruled(node: NodeId) -> Self {
        Self { node, rule: None, never_absent: false }
    }

    pub fn shape(self) -> Shape {
        match TREE.node(self.node) {
            Node::Struct(of) => Shape::Struct { atomic: of.is_atomic },
            Node::Map(_) => Shape::Map,
            Node::List(_) => Shape::List,
            Node::Scalar(_) => Shape::Scalar,
            Node::Raw => Shape::Raw,
        }
    }

    /// How the field that led here merges.
    pub fn rule(self) -> Option<&'static FieldRule> {
        self.rule
    }

    /// A field of a struct, or the value under a key of a map.
    pub fn field(self, name: &str) -> Option<Self> {
        match TREE.node(self.node) {
            Node::Struct(of) => {
                let field = of.field(name)?;
                Some(Self { node: field.node, rule: field.rule, never_absent: field.never_absent })
            }
            Node::Map(value) => Some(Self::unruled(*value)),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn item(self) -> Option<Self> {
        match TREE.node(self.node) {
            Node::List(item) => Some(Self::unruled(*item)),
            _ => None,
        }
    }

    /// Whether Go has a value here even where JSON has none; see [`crate::list_rules::is_never_absent`].
    pub fn is_never_absent(self) -> bool {
        self.never_absent
    }

    /// `None` where no scalar is.
    pub fn scalar(self) -> Option<ScalarType> {
        let Node::Scalar(scalar) = TREE.node(self.node) else { return None };
        Some(match scalar {
            Scalar::String | Scalar::Bytes => ScalarType::Text,
            Scalar::Bool => ScalarType::Boolean,
            Scalar::Int32 | Scalar::Int64 | Scalar::Double => ScalarType::Number,
            Scalar::Time | Scalar::MicroTime | Scalar::Quantity | Scalar::IntOrString => ScalarType::Any,
        })
    }

    /// What a scalar is in Go when nobody set it.
    pub fn zero(self) -> Option<Value> {
        match self.scalar()? {
            ScalarType::Text => Some("".into()),
            ScalarType::Boolean => Some(false.into()),
            ScalarType::Number => Some(0.into()),
            ScalarType::Any => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;
    use crate::list_rules::Patch;

    #[test]
    fn walks_to_the_ports() {
        let root = Cursor::of_kind(by_kind("apps", "v1", "Deployment").expect("a row"));
        let containers = ["spec", "template", "spec", "containers"]
            .iter()
            .try_fold(root, |at, field| at.field(field))
            .expect("a field");
        assert_eq!(containers.shape(), Shape::List);
        let by = |at: Cursor| at.rule().map(|rule| rule.patch);
        assert_eq!(by(containers), Some(Patch::MergeByKey { key: "name", retain_keys: false }));
        let ports = containers.item().and_then(|c| c.field("ports")).expect("ports");
        assert_eq!(by(ports), Some(Patch::MergeByKey { key: "containerPort", retain_keys: false }));
        let labels = root.field("metadata").and_then(|m| m.field("labels")).expect("labels");
        assert_eq!((labels.shape(), labels.rule()), (Shape::Map, None));
        assert_eq!(labels.field("any").map(Cursor::shape), Some(Shape::Scalar));
        let selector = root.field("spec").and_then(|s| s.field("selector")).expect("selector");
        assert_eq!(selector.shape(), Shape::Struct { atomic: true });
        assert!(root.field("bogus").is_none() && root.item().is_none());
    }
}
