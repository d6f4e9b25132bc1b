//! The table of built-in kinds: what discovery, storage paths, field selectors and schemas are made from.
//!
//! Owns: which kinds exist, their names, verbs, subresources and selectable fields.
//! May not know: what any field of a kind means (that is `defaults`, `validate`, `table`).
//!
//! A kind that is served in two versions is stored in one of them: `events.k8s.io/v1` events live as
//! core/v1 Events, `autoscaling/v1` autoscalers as `autoscaling/v2`. See [`Kind::stored`] and [`convert`].

use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, ListableResource, NamespaceResourceScope, Resource};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub mod convert;
pub mod custom;
mod rows;

/// Every verb of an ordinary stored kind, in discovery's order.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One kind in one version.
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// `Deployment`
    pub kind: &'static str,
    /// `DeploymentList`; empty for kinds that cannot be listed (reviews, Binding).
    pub list_kind: &'static str,
    /// Plural, as in the path: `deployments`.
    pub resource: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Beyond `metadata.name` and `metadata.namespace`, which every kind has.
    pub selectable: &'static [SelectableField],
    /// Whether `metadata.generation` starts at 1 and counts changes of the desired state.
    pub keeps_generation: bool,
    /// Where objects of this kind are kept, when not under its own group and version.
    stored_as: Option<(&'static str, &'static str)>,
    origin: Origin,
}

/// Where the type of a kind comes from.
enum Origin {
    /// A Rust type.
    BuiltIn {
        schema: fn(&mut SchemaGenerator) -> Schema,
        type_name: fn() -> Cow<'static, str>,
        /// Into the type and out again.
        #[cfg(test)]
        through: fn(&Value) -> serde_json::Result<Value>,
    },
    /// A CustomResourceDefinition; its schema is no part of the row (see [`custom`]).
    Custom { type_name: &'static str },
}

/// `pods/log` and its kin.
#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// A field that `fieldSelector` may name.
#[derive(Debug)]
pub struct SelectableField {
    /// As the client writes it: `spec.nodeName`.
    pub name: &'static str,
    /// Where the value is; the first that is present wins.
    pub pointers: &'static [&'static str],
    /// What an absent value is taken for.
    pub absent: &'static str,
}

/// Every kind that is served, grouped by group and version.
pub static KINDS: &[Kind] = rows::ROWS;

/// By path: `lookup("apps", "v1", "deployments")`.
pub fn lookup(group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.resource == resource && k.group == group && k.version == version)
}

/// By type: `by_kind("apps", "v1", "Deployment")`.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.kind == kind && k.group == group && k.version == version)
}

/// By the object's own `apiVersion` and `kind`.
pub fn of_object(object: &Value) -> Option<&'static Kind> {
    let api_version = object.get("apiVersion")?.as_str()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_kind(group, version, object.get("kind")?.as_str()?)
}

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether `text` is [`Self::api_version`].
    pub fn is_api_version(&self, text: &str) -> bool {
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        self.group == group && self.version == version
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// The kind in whose form objects are kept; `self` for nearly all.
    pub fn stored(&'static self) -> &'static Kind {
        match self.stored_as {
            None => self,
            Some((group, version)) => {
                by_kind(group, version, self.kind).expect("tests check that every stored_as names a row")
            }
        }
    }

    /// Whether objects of it are kept at all. Reviews and bindings are only answered, states of components found out
    /// when somebody asks.
    pub fn is_stored(&self) -> bool {
        self.allows("get") && self.allows("create")
    }

    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// `/registry/<group, or "core">/<resource>/`; a key is this + `[namespace/]name`.
    pub fn storage_prefix(&'static self) -> String {
        let stored = self.stored();
        let group = if stored.group.is_empty() { "core" } else { stored.group };
        format!("/registry/{group}/{}/", stored.resource)
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether a field selector may name this field.
    pub fn is_selectable(&self, field: &str) -> bool {
        field == "metadata.name"
            || (field == "metadata.namespace" && self.namespaced)
            || self.selectable.iter().any(|f| f.name == field)
    }

    /// The value of a selectable field as a selector compares it; `None` when the field is not selectable.
    pub fn field_value<'a>(&self, field: &str, object: &'a Value) -> Option<Cow<'a, str>> {
        match field {
            "metadata.name" => Some(Cow::Borrowed(crate::meta::name(object))),
            "metadata.namespace" if self.namespaced => Some(Cow::Borrowed(crate::meta::namespace(object))),
            _ => self.selectable.iter().find(|f| f.name == field).map(|f| f.value(object)),
        }
    }

    /// Adds the kind's schema, and all it refers to, to the generator's definitions.
    ///
    /// The schema of a custom kind is in its definition, so that nothing is added for one.
    pub(crate) fn register_schema(&self, generator: &mut SchemaGenerator) {
        if let Origin::BuiltIn { schema, .. } = self.origin {
            schema(generator);
        }
    }

    /// `io.k8s.api.apps.v1.Deployment`
    pub fn type_name(&self) -> Cow<'static, str> {
        match self.origin {
            Origin::BuiltIn { type_name, .. } => type_name(),
            Origin::Custom { type_name } => Cow::Borrowed(type_name),
        }
    }

    /// What is left of an object that goes through the Rust type.
    #[cfg(test)]
    pub(crate) fn through_its_type(&self, object: &Value) -> serde_json::Result<Value> {
        match self.origin {
            Origin::BuiltIn { through, .. } => through(object),
            Origin::Custom { .. } => Ok(object.clone()),
        }
    }

    /// Whether objects of it can be answered as protobuf. Custom kinds cannot, whatever their names are.
    pub fn has_message(&self) -> bool {
        !self.is_custom() && crate::protobuf::has_message(&self.api_version(), self.kind)
    }

    /// Whether a CustomResourceDefinition made it.
    pub fn is_custom(&self) -> bool {
        matches!(self.origin, Origin::Custom { .. })
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({}, {})", self.api_version(), self.kind)
    }
}

impl SelectableField {
    /// The value as text: strings as they are, numbers and booleans printed, absent as declared.
    pub fn value<'a>(&self, object: &'a Value) -> Cow<'a, str> {
        for pointer in self.pointers {
            match object.pointer(pointer) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.is_empty() => {}
                Some(Value::String(text)) => return Cow::Borrowed(text),
                Some(other) => return Cow::Owned(other.to_string()),
            }
        }
        Cow::Borrowed(self.absent)
    }
}

/// Whether a scope of k8s-openapi lies in a namespace.
trait Scoped {
    const NAMESPACED: bool;
}

impl Scoped for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Scoped for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// Builders for the rows; everything that the Rust type knows is taken from it.
impl Kind {
    const fn of<T>(singular: &'static str) -> Self
    where
        T: ListableResource + JsonSchema + Serialize + DeserializeOwned,
        T::Scope: Scoped,
    {
        Self { list_kind: T::LIST_KIND, ..Self::answered::<T>(singular, ALL_VERBS) }
    }

    /// A kind that is never kept: the answer is all there is.
    const fn answered<T>(singular: &'static str, verbs: &'static [&'static str]) -> Self
    where
        T: Resource + JsonSchema + Serialize + DeserializeOwned,
        T::Scope: Scoped,
    {
        Self {
            group: T::GROUP,
            version: T::VERSION,
            kind: T::KIND,
            list_kind: "",
            resource: T::URL_PATH_SEGMENT,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: <T::Scope as Scoped>::NAMESPACED,
            verbs,
            subresources: &[],
            selectable: &[],
            keeps_generation: false,
            stored_as: None,
            origin: Origin::BuiltIn {
                schema: |generator| generator.subschema_for::<T>(),
                type_name: T::schema_name,
                #[cfg(test)]
                through: |object| serde_json::to_value(T::deserialize(object)?),
            },
        }
    }

    const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    const fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }

    /// Shown by `kubectl get all`.
    const fn in_all(self) -> Self {
        Self { categories: &["all"], ..self }
    }

    const fn verbs(self, verbs: &'static [&'static str]) -> Self {
        Self { verbs, ..self }
    }

    const fn subresources(self, subresources: &'static [Subresource]) -> Self {
        Self { subresources, ..self }
    }

    const fn selectable(self, selectable: &'static [SelectableField]) -> Self {
        Self { selectable, ..self }
    }

    const fn generation(self) -> Self {
        Self { keeps_generation: true, ..self }
    }

    const fn stored_as(self, group: &'static str, version: &'static str) -> Self {
        Self { stored_as: Some((group, version)), ..self }
    }
}

#[cfg(test)]
mod tests;
