//! All definitions that are in effect, as one immutable value: what requests, discovery and OpenAPI look at.
//!
//! Owns: looking a kind up, in what order groups and versions are listed, and the documents of each group version,
//! made when first asked for and kept as long as nothing of that group changes. May not know: how definitions come.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::definition::{Custom, Definition, Version};
use super::names::compare_versions;
use super::openapi;
use crate::openapi::v2;

#[derive(Debug, Default)]
pub struct Catalog {
    /// By name.
    definitions: BTreeMap<String, Arc<Definition>>,
    /// What is served, by resource: hardly ever more than one kind has the same.
    served: HashMap<&'static str, Vec<Custom>>,
    documents: BTreeMap<String, Arc<Document>>,
    v2: OnceLock<v2::Document>,
}

/// What OpenAPI says about one group version.
#[derive(Debug)]
struct Document {
    of: Vec<Custom>,
    bytes: OnceLock<(Bytes, String)>,
}

impl Document {
    fn rendered(&self) -> &(Bytes, String) {
        self.bytes.get_or_init(|| {
            let document = openapi::document(&self.of);
            let hash = crate::openapi::content_hash(&document);
            (document, hash)
        })
    }
}

impl Catalog {
    /// `before` lends what did not change.
    pub fn new(definitions: BTreeMap<String, Arc<Definition>>, before: &Self) -> Self {
        let mut catalog = Self { definitions, ..Self::default() };
        for definition in catalog.definitions.values().filter(|definition| definition.established) {
            for (at, version) in definition.versions.iter().enumerate().filter(|(_, version)| version.served) {
                let custom = Custom { definition: definition.clone(), at };
                catalog.served.entry(version.kind.resource).or_default().push(custom);
            }
        }
        let mut by_version: BTreeMap<String, Vec<Custom>> = BTreeMap::new();
        for custom in catalog.served.values().flatten() {
            by_version.entry(crate::openapi::root_path(custom.kind())).or_default().push(custom.clone());
        }
        for (path, mut of) in by_version {
            of.sort_by_key(|custom| custom.kind().resource);
            let same = |document: &&Arc<Document>| {
                document.of.len() == of.len()
                    && document
                        .of
                        .iter()
                        .zip(&of)
                        .all(|(a, b)| a.at == b.at && Arc::ptr_eq(&a.definition, &b.definition))
            };
            let kept = before.documents.get(&path).filter(same).cloned();
            let document = kept.unwrap_or_else(|| Arc::new(Document { of, bytes: OnceLock::new() }));
            catalog.documents.insert(path, document);
        }
        catalog
    }

    /// By path, as [`crate::kinds::lookup`].
    pub fn lookup(&self, group: &str, version: &str, resource: &str) -> Option<&Custom> {
        let of_resource = self.served.get(resource)?;
        of_resource.iter().find(|custom| custom.kind().group == group && custom.kind().version == version)
    }

    pub fn definition(&self, name: &str) -> Option<&Arc<Definition>> {
        self.definitions.get(name)
    }

    pub fn definitions(&self) -> &BTreeMap<String, Arc<Definition>> {
        &self.definitions
    }

    /// Everything served, in discovery's order: by group, preferred versions first, then by resource.
    pub fn served(&self) -> Vec<&Custom> {
        let mut all: Vec<&Custom> = self.served.values().flatten().collect();
        all.sort_by(|a, b| {
            let (a, b) = (a.kind(), b.kind());
            (a.group.cmp(b.group))
                .then_with(|| compare_versions(a.version, b.version))
                .then_with(|| a.resource.cmp(b.resource))
        });
        all
    }

    /// `apis/<group>/<version>` and the hash of its OpenAPI document.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.documents.iter().map(|(path, document)| (path.as_str(), document.rendered().1.as_str()))
    }

    /// The OpenAPI v3 document of `apis/<group>/<version>`.
    pub fn document(&self, path: &str) -> Option<Bytes> {
        self.documents.get(path).map(|document| document.rendered().0.clone())
    }

    /// Makes all documents, so that no request has to wait for one.
    pub fn render(&self) {
        for document in self.documents.values() {
            document.rendered();
        }
    }

    /// The OpenAPI v2 document of everything, built-in kinds included; made when it is asked for the first time.
    pub fn v2(&self) -> &v2::Document {
        self.v2.get_or_init(|| v2::document(openapi::v2_definitions(&self.served())))
    }
}

impl Catalog {
    /// As [`Self::v2`], with the schemas of what others serve; those of this server's kinds stay as they are.
    pub fn v2_with(&self, others: Map<String, Value>) -> v2::Document {
        let mut all = others;
        all.extend(openapi::v2_definitions(&self.served()));
        v2::document(all)
    }
}

impl Custom {
    /// The other versions of it that are served, itself included.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.definition.versions.iter().filter(|version| version.served)
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::tests::object;
    use super::*;

    #[test]
    fn finds_what_is_established() {
        let mut second = object();
        second["metadata"]["name"] = "other.stable.example.com".into();
        second["status"]["acceptedNames"]["plural"] = "others".into();
        second["status"]["conditions"] = serde_json::json!([]);
        let definitions: BTreeMap<String, Arc<Definition>> = [object(), second]
            .iter()
            .map(|object| (crate::meta::name(object).to_owned(), Arc::new(Definition::compile(object).unwrap())))
            .collect();
        let catalog = Catalog::new(definitions.clone(), &Catalog::default());
        assert!(catalog.lookup("stable.example.com", "v1", "crontabs").is_some());
        assert!(catalog.lookup("stable.example.com", "v1", "others").is_none(), "it is not established");
        assert!(catalog.lookup("stable.example.com", "v2", "crontabs").is_none());
        let served: Vec<&str> = catalog.served().iter().map(|custom| custom.kind().version).collect();
        assert_eq!(served, ["v1", "v1beta1"]);
        let document = catalog.document("apis/stable.example.com/v1").unwrap();
        let again = Catalog::new(definitions, &catalog);
        assert_eq!(again.document("apis/stable.example.com/v1").unwrap().as_ptr(), document.as_ptr());
    }
}
