//! OpenAPI v3 documents, one per group version, made from k8s-openapi's schemas and the kinds table.
//!
//! Owns: what kubectl reads before `apply` (does PATCH know `fieldValidation`? which lists merge by which key?) and
//! what `kubectl explain` prints. May not know: HTTP; the caller sets `Content-Type: application/json` and answers
//! `/openapi/v3` with [`index`] and `/openapi/v3/<path>` with [`group_version`].

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::kinds::{KINDS, Kind};

mod paths;
mod schemas;
pub mod v2;

pub(crate) use schemas::{COMPONENTS_PREFIX, META};

/// A group version and its document, made when first asked for.
struct GroupVersion {
    group: &'static str,
    version: &'static str,
    document: OnceLock<Bytes>,
}

/// `api/v1`, `apis/apps/v1`, … to what is served there.
static GROUP_VERSIONS: LazyLock<BTreeMap<String, GroupVersion>> = LazyLock::new(|| {
    KINDS
        .iter()
        .map(|kind| {
            let entry = GroupVersion { group: kind.group, version: kind.version, document: OnceLock::new() };
            (root_path(kind), entry)
        })
        .collect()
});

static INDEX: LazyLock<Value> = LazyLock::new(|| {
    let paths: Map<String, Value> = GROUP_VERSIONS
        .iter()
        .map(|(path, group_version)| {
            // Rendered for its hash only: kept from the first request on, not from the first look at the index.
            let hash = content_hash(&group_version.render());
            (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }))
        })
        .collect();
    json!({ "paths": paths })
});

/// The body of `/openapi/v3`. Clients keep a document as long as its hash stays.
pub fn index() -> Value {
    INDEX.clone()
}

/// The document of `api/v1` or `apis/<group>/<version>`; `None` when that is not served.
pub fn group_version(path: &str) -> Option<Bytes> {
    let found = GROUP_VERSIONS.get(path)?;
    Some(found.document.get_or_init(|| found.render()).clone())
}

impl GroupVersion {
    fn kinds(&self) -> impl Iterator<Item = &'static Kind> {
        let (group, version) = (self.group, self.version);
        KINDS.iter().filter(move |kind| kind.group == group && kind.version == version)
    }

    fn render(&self) -> Bytes {
        let kinds: Vec<&Kind> = self.kinds().collect();
        assemble(&kinds, Map::new())
    }
}

/// The document of some kinds of one group version; `more` are schemas that no Rust type has.
pub(crate) fn assemble(kinds: &[&Kind], more: Map<String, Value>) -> Bytes {
    let mut schemas = schemas::schemas(kinds);
    schemas.extend(more);
    let document = json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths::paths(kinds),
        "components": { "schemas": schemas },
    });
    Bytes::from(document.to_string())
}

/// `api/v1` for the core group, `apis/<group>/<version>` for the others.
pub(crate) fn root_path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

/// The same on every run of one build: `DefaultHasher::new` has fixed keys.
pub fn content_hash(document: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(document);
    format!("{:016X}", hasher.finish())
}

#[cfg(test)]
mod tests;
