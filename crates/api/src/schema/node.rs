//! The compact form of all types: one arena of nodes, structs shared by name.
//!
//! Owns: reading k8s-openapi's JSON schemas. May not know: values.

use std::collections::HashMap;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Body;
use crate::kinds::{KINDS, Kind};
use crate::list_rules::{self, FieldRule};

pub(crate) const REFERENCE_PREFIX: &str = "#/$defs/";

/// Index into the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

#[derive(Debug)]
pub(super) enum Node {
    Struct(Struct),
    /// Any key, values of one type.
    Map(NodeId),
    List(NodeId),
    Scalar(Scalar),
    /// Any JSON, kept as it is: `fieldsV1`, `RawExtension`.
    Raw,
}

#[derive(Debug)]
pub(super) struct Struct {
    /// `v1`, the Go package.
    pub package: Box<str>,
    /// `DeploymentSpec`
    pub name: Box<str>,
    /// Whether server-side apply owns it only as a whole.
    pub is_atomic: bool,
    /// Sorted by name.
    fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: Box<str>,
    pub node: NodeId,
    pub rule: Option<&'static FieldRule>,
    pub never_absent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// base64
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
        Some(&self.fields[at])
    }

    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }
}

/// All types, and where the kinds and bodies start.
pub(super) struct Tree {
    nodes: Vec<Node>,
    by_type_name: HashMap<String, NodeId>,
}

impl Tree {
    pub fn compile() -> Self {
        let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
        for kind in KINDS {
            kind.register_schema(&mut generator);
        }
        for body in Body::ALL {
            match body {
                Body::Binding => generator.subschema_for::<Binding>(),
                Body::DeleteOptions => generator.subschema_for::<DeleteOptions>(),
                Body::Eviction => generator.subschema_for::<Eviction>(),
                Body::Scale => generator.subschema_for::<Scale>(),
                Body::TokenRequest => generator.subschema_for::<TokenRequest>(),
            };
        }
        let definitions = generator.take_definitions(false);
        let mut builder = Builder { definitions: &definitions, nodes: Vec::new(), by_type_name: HashMap::new() };
        for name in definitions.keys() {
            builder.named(name);
        }
        Self { nodes: builder.nodes, by_type_name: builder.by_type_name }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn of_kind(&self, kind: &Kind) -> NodeId {
        self.named(&kind.type_name())
    }

    pub fn of_body(&self, body: Body) -> NodeId {
        self.named(match body {
            Body::Binding => "io.k8s.api.core.v1.Binding",
            Body::DeleteOptions => "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
            Body::Eviction => "io.k8s.api.policy.v1.Eviction",
            Body::Scale => "io.k8s.api.autoscaling.v1.Scale",
            Body::TokenRequest => "io.k8s.api.authentication.v1.TokenRequest",
        })
    }

    fn named(&self, type_name: &str) -> NodeId {
        self.find(type_name).expect("compile registers every kind and body")
    }

    pub fn find(&self, type_name: &str) -> Option<NodeId> {
        self.by_type_name.get(type_name).copied()
    }

    /// As Go prints the type: `int32`, `[]v1.Container`, `map[string]string`.
    pub fn go_type(&self, id: NodeId) -> String {
        match self.node(id) {
            Node::Struct(s) => format!("{}.{}", s.package, s.name),
            Node::Map(value) => format!("map[string]{}", self.go_type(*value)),
            Node::List(item) => format!("[]{}", self.go_type(*item)),
            Node::Raw => "runtime.RawExtension".to_owned(),
            Node::Scalar(scalar) => match scalar {
                Scalar::String => "string",
                Scalar::Bool => "bool",
                Scalar::Int32 => "int32",
                Scalar::Int64 => "int64",
                Scalar::Double => "float64",
                Scalar::Bytes => "[]uint8",
                Scalar::Time => "v1.Time",
                Scalar::MicroTime => "v1.MicroTime",
                Scalar::Quantity => "resource.Quantity",
                Scalar::IntOrString => "intstr.IntOrString",
            }
            .to_owned(),
        }
    }
}

struct Builder<'a> {
    definitions: &'a Map<String, Value>,
    nodes: Vec<Node>,
    by_type_name: HashMap<String, NodeId>,
}

impl Builder<'_> {
    fn add(&mut self, node: Node) -> NodeId {
        let id = u32::try_from(self.nodes.len()).expect("a few thousand nodes");
        self.nodes.push(node);
        NodeId(id)
    }

    /// A definition. Its place is taken before its fields are read, so that types may refer to themselves.
    fn named(&mut self, name: &str) -> NodeId {
        if let Some(&id) = self.by_type_name.get(name) {
            return id;
        }
        let id = self.add(Node::Raw);
        self.by_type_name.insert(name.to_owned(), id);
        let node = match name.rsplit('.').next().unwrap_or(name) {
            "IntOrString" => Node::Scalar(Scalar::IntOrString),
            "Quantity" => Node::Scalar(Scalar::Quantity),
            "Time" => Node::Scalar(Scalar::Time),
            "MicroTime" => Node::Scalar(Scalar::MicroTime),
            _ => self.shape(&self.definitions[name], name),
        };
        self.nodes[id.0 as usize] = node;
        id
    }

    fn reference(&mut self, schema: &Value) -> NodeId {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let name = reference.strip_prefix(REFERENCE_PREFIX).expect("the generator was told this prefix");
                self.named(name)
            }
            None => {
                let node = self.shape(schema, "");
                self.add(node)
            }
        }
    }

    fn shape(&mut self, schema: &Value, type_name: &str) -> Node {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
        match (schema.get("type").and_then(Value::as_str), format) {
            (Some("string"), "byte") => Node::Scalar(Scalar::Bytes),
            (Some("string"), _) => Node::Scalar(Scalar::String),
            (Some("boolean"), _) => Node::Scalar(Scalar::Bool),
            (Some("integer"), "int32") => Node::Scalar(Scalar::Int32),
            (Some("integer"), _) => Node::Scalar(Scalar::Int64),
            (Some("number"), _) => Node::Scalar(Scalar::Double),
            (Some("array"), _) => match schema.get("items") {
                Some(items) => Node::List(self.reference(items)),
                None => Node::Raw,
            },
            (Some("object"), _) => self.object(schema, type_name),
            _ => Node::Raw,
        }
    }

    fn object(&mut self, schema: &Value, type_name: &str) -> Node {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let mut fields: Vec<Field> = properties
                .iter()
                .map(|(name, field)| Field {
                    name: name.as_str().into(),
                    node: self.reference(field),
                    rule: list_rules::field_rule(type_name, name),
                    never_absent: list_rules::is_never_absent(type_name, name),
                })
                .collect();
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            let mut parts = type_name.rsplit('.');
            let name = parts.next().unwrap_or("").into();
            let package = parts.next().unwrap_or("v1").into();
            let is_atomic = list_rules::is_atomic_struct(type_name);
            return Node::Struct(Struct { package, name, is_atomic, fields });
        }
        match schema.get("additionalProperties") {
            Some(values) if values.is_object() => Node::Map(self.reference(values)),
            // An empty Go struct (SelfSubjectReviewSpec) has no properties either; keeping what is in it is harmless.
            _ => Node::Raw,
        }
    }
}
