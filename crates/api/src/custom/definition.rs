//! A definition made ready to serve: kinds, schemas, columns of every version. An immutable value.
//!
//! Owns: what becomes of an object on its way in ([`Custom::admit`]) and out ([`Custom::present`]).
//! May not know: storage, requests, other definitions.

use std::sync::Arc;

use serde_json::Value;

use super::check::check;
use super::columns::Column;
use super::conversion::{Conversion, FUNCTION_ANNOTATION};
use super::prune::{default, prune};
use super::schema::Schema;
use crate::cel;
use crate::kinds::Kind;
use crate::kinds::custom::{Row, intern};
use crate::meta;
use crate::schema::FieldValidation;
use crate::status::{FieldError, Status};

/// One CustomResourceDefinition.
#[derive(Debug)]
pub struct Definition {
    /// `crontabs.stable.example.com`
    pub name: String,
    pub uid: String,
    /// All of them, served or not; in the order that clients shall prefer.
    pub versions: Vec<Version>,
    /// Index of the version in which objects are kept.
    pub storage: usize,
    /// Names are accepted, and it may be served.
    pub established: bool,
    /// It is being deleted: nothing is created any more.
    pub terminating: bool,
    /// Who changes objects from version to version; `None` where they change nothing but their `apiVersion`.
    pub conversion: Option<Conversion>,
    /// What all of the above was made from, so that it is not made again.
    source: Value,
}

/// One version of a definition.
#[derive(Debug)]
pub struct Version {
    pub kind: &'static Kind,
    pub served: bool,
    pub schema: Schema,
    /// `openAPIV3Schema` as the definition has it.
    pub published: Value,
    pub columns: Vec<Column>,
    pub scale: Option<Scale>,
    /// Said to everybody who uses the version.
    pub deprecation: Option<String>,
}

/// Where the parts of a Scale are, as JSON pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `.spec.replicas` as a JSON pointer.
pub(super) fn pointer(path: &str) -> String {
    path.trim_start_matches('$').replace('.', "/")
}

impl Definition {
    /// Compiles a stored definition; `None` when it cannot be served at all (names not accepted, too many kinds).
    pub fn compile(object: &Value) -> Option<Self> {
        let source = source(object);
        // The names that were accepted; until then there are none to serve under.
        let names = object.pointer("/status/acceptedNames")?;
        let resource = text(names, "/plural");
        if resource.is_empty() {
            return None;
        }
        let mut versions: Vec<(usize, Version)> = Vec::new();
        for (index, version) in list(object, "/spec/versions").enumerate() {
            versions.push((index, Version::compile(object, names, version)?));
        }
        let storage_name = list(object, "/spec/versions").find(|v| v["storage"] == true).map(|v| text(v, "/name"))?;
        versions.sort_by(|(_, a), (_, b)| super::names::compare_versions(a.kind.version, b.kind.version));
        let versions: Vec<Version> = versions.into_iter().map(|(_, version)| version).collect();
        let storage = versions.iter().position(|version| version.kind.version == storage_name)?;
        Some(Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            versions,
            storage,
            established: super::names::is_true(object, "Established"),
            terminating: !meta::deletion_timestamp(object).is_empty(),
            conversion: Conversion::read(object),
            source,
        })
    }

    /// Whether compiling this object would give the same again.
    pub fn is_of(&self, object: &Value) -> bool {
        self.source == source(object)
    }

    pub fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    pub fn storage_api_version(&self) -> String {
        self.storage().kind.api_version()
    }

    /// The version of an `apiVersion`, served or not.
    pub fn by_stored(&self, api_version: &str) -> Option<usize> {
        self.versions.iter().position(|version| version.kind.is_api_version(api_version))
    }

    pub fn by_api_version(&self, api_version: &str) -> Option<usize> {
        self.versions.iter().position(|version| version.served && version.kind.is_api_version(api_version))
    }
}

fn source(object: &Value) -> Value {
    serde_json::json!({
        "spec": object.get("spec"),
        "names": object.pointer("/status/acceptedNames"),
        "established": super::names::is_true(object, "Established"),
        "converter": meta::annotation(object, FUNCTION_ANNOTATION),
        "deleting": !meta::deletion_timestamp(object).is_empty(),
        "uid": meta::uid(object),
    })
}

fn row(object: &Value, names: &Value, version: &Value) -> Row {
    Row {
        group: text(object, "/spec/group").to_owned(),
        version: text(version, "/name").to_owned(),
        kind: text(names, "/kind").to_owned(),
        list_kind: text(names, "/listKind").to_owned(),
        resource: text(names, "/plural").to_owned(),
        singular: text(names, "/singular").to_owned(),
        short_names: texts(names, "/shortNames"),
        categories: texts(names, "/categories"),
        namespaced: text(object, "/spec/scope") == "Namespaced",
        has_status: version.pointer("/subresources/status").is_some_and(Value::is_object),
        has_scale: version.pointer("/subresources/scale").is_some_and(Value::is_object),
        selectable: list(version, "/selectableFields").map(|field| pointer(text(field, "/jsonPath"))).collect(),
    }
}

/// The kind under which the objects of a stored definition can be reached, for those who work on all kinds: in the
/// version in which they are kept, or else another that is served. `None` while none is.
pub fn reachable_kind(object: &Value) -> Option<&'static Kind> {
    let names = object.pointer("/status/acceptedNames")?;
    if !super::names::is_true(object, "Established") {
        return None;
    }
    let served = || list(object, "/spec/versions").filter(|version| version["served"] == true);
    let version = served().find(|version| version["storage"] == true).or_else(|| served().next())?;
    intern(&row(object, names, version))
}

impl Version {
    fn compile(object: &Value, names: &Value, version: &Value) -> Option<Self> {
        let published = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| serde_json::json!({}));
        let scale = version.pointer("/subresources/scale").filter(|scale| scale.is_object()).map(|scale| Scale {
            spec_replicas: pointer(text(scale, "/specReplicasPath")),
            status_replicas: pointer(text(scale, "/statusReplicasPath")),
            selector: Some(pointer(text(scale, "/labelSelectorPath"))).filter(|path| !path.is_empty()),
        });
        let kind = intern(&row(object, names, version))?;
        let deprecation = (version["deprecated"] == true).then(|| {
            let own = text(version, "/deprecationWarning");
            let standard = || format!("{} {} is deprecated", kind.api_version(), kind.kind);
            if own.is_empty() { standard() } else { own.to_owned() }
        });
        Some(Self {
            kind,
            served: version["served"] == true,
            schema: if published == serde_json::json!({}) { Schema::anything() } else { Schema::root(&published) },
            published,
            columns: Column::read(version),
            scale,
            deprecation,
        })
    }
}

/// A kind in one version: what a request is about.
#[derive(Debug, Clone)]
pub struct Custom {
    pub definition: Arc<Definition>,
    /// Index of the version.
    pub at: usize,
}

impl Custom {
    pub fn version(&self) -> &Version {
        &self.definition.versions[self.at]
    }

    pub fn kind(&self) -> &'static Kind {
        self.version().kind
    }

    /// An object that a client sent: pruned, with defaults; warnings for the client come back.
    pub fn admit(
        &self,
        object: &mut Value,
        validation: FieldValidation,
        duplicates: Vec<String>,
    ) -> Result<Vec<String>, Status> {
        let Version { kind, schema, deprecation, .. } = self.version();
        let refuse = |why: &str| {
            let (name, version) = (kind.kind, kind.version);
            Status::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
        };
        let mut complaints = prune(schema, object).map_err(|why| refuse(&why))?;
        complaints.extend(duplicates);
        default(schema, object);
        let mut warnings: Vec<String> = deprecation.iter().cloned().collect();
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => warnings.extend(complaints),
            FieldValidation::Strict if complaints.is_empty() => {}
            FieldValidation::Strict => {
                return Err(refuse(&format!("strict decoding error: {}", complaints.join(", "))));
            }
        }
        Ok(warnings)
    }

    /// A stored object in this version: renamed, pruned, with defaults.
    pub fn present(&self, object: &mut Value) {
        let Version { kind, schema, .. } = self.version();
        object["apiVersion"] = kind.api_version().into();
        // What was stored passed once; a definition that changed meanwhile decides what of it is seen.
        let _ = prune(schema, object);
        default(schema, object);
    }

    /// The form in which an object is kept.
    pub fn store(&self, object: &mut Value) {
        object["apiVersion"] = self.definition.storage_api_version().into();
    }

    /// What is wrong with an object; `old` is what an update replaces.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let schema = &self.version().schema;
        let mut errors = check(schema, object, old);
        // Rules may rely on the types.
        if errors.is_empty() {
            errors = cel::validate(schema, object, old);
        }
        errors
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub fn object() -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "crontabs.stable.example.com", "uid": "u" },
            "spec": {
                "group": "stable.example.com", "scope": "Namespaced",
                "names": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList",
                    "shortNames": ["ct"] },
                "versions": [
                    { "name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                        "schema": { "openAPIV3Schema": { "type": "object",
                            "x-kubernetes-preserve-unknown-fields": true } } },
                    { "name": "v1", "served": true, "storage": true,
                        "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector" } },
                        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                            "spec": { "type": "object", "required": ["cronSpec"], "properties": {
                                "cronSpec": { "type": "string" },
                                "replicas": { "type": "integer", "minimum": 0, "default": 1 } } },
                            "status": { "type": "object", "properties": { "replicas": { "type": "integer" },
                                "selector": { "type": "string" } } } } } } },
                ],
                "conversion": { "strategy": "None" },
            },
            "status": { "storedVersions": ["v1"],
                "acceptedNames": { "plural": "crontabs", "singular": "crontab", "kind": "CronTab",
                    "listKind": "CronTabList", "shortNames": ["ct"] },
                "conditions": [{ "type": "Established", "status": "True" }] },
        })
    }

    #[test]
    fn versions_are_in_order_and_objects_change_their_version() {
        let definition = Arc::new(Definition::compile(&object()).unwrap());
        assert_eq!(definition.versions.iter().map(|v| v.kind.version).collect::<Vec<_>>(), ["v1", "v1beta1"]);
        assert!(definition.established && definition.is_of(&object()));
        let custom = |at| Custom { definition: definition.clone(), at };
        let mut given = json!({ "apiVersion": "stable.example.com/v1", "spec": { "cronSpec": "*", "x": 1 } });
        let warnings = custom(0).admit(&mut given, FieldValidation::Warn, Vec::new()).unwrap();
        assert_eq!(warnings, ["unknown field \"spec.x\""]);
        assert_eq!(given["spec"], json!({ "cronSpec": "*", "replicas": 1 }));
        let refused = custom(0).admit(&mut json!({ "y": 1 }), FieldValidation::Strict, Vec::new()).unwrap_err();
        assert_eq!(
            refused.message,
            "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"y\""
        );
        let mut old = json!({ "spec": { "a": 1 } });
        let warnings = custom(1).admit(&mut old, FieldValidation::Ignore, Vec::new()).unwrap();
        assert_eq!(warnings, ["stable.example.com/v1beta1 CronTab is deprecated"]);
        custom(1).store(&mut old);
        assert_eq!(old["apiVersion"], "stable.example.com/v1");
        custom(0).present(&mut old);
        assert_eq!(old["spec"], json!({ "replicas": 1 }));
        assert_eq!(custom(0).validate(&old, None)[0].to_string(), "spec.cronSpec: Required value");
        assert_eq!(definition.versions[0].scale.as_ref().unwrap().selector.as_deref(), Some("/status/selector"));
    }

    #[test]
    fn without_accepted_names_nothing_is_served() {
        let mut object = object();
        object["status"]["acceptedNames"] = json!({ "plural": "", "kind": "" });
        assert!(Definition::compile(&object).is_none());
    }
}
