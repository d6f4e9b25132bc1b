//! From what a reference names to the one manifest to run.
//!
//! Owns: the way through an index, one level deep. May not know: where manifests are read from, the
//! store or another registry.

use bytes::Bytes;
use cri::{ImageError, PlatformPreference};

use crate::digest::Digest;
use crate::error::manifest_error;
use crate::manifest::{Document, Manifest, OCI_INDEX, choose};

/// The manifest to run, and the bytes it was read from.
#[derive(Debug)]
pub(crate) struct Selected {
    pub digest: Digest,
    pub bytes: Bytes,
    pub manifest: Manifest,
    /// The index it was chosen from has a manifest of the other kind too.
    pub has_other_kind: bool,
    /// The index it was chosen from, as it was read, and its media type.
    pub index: Option<(Bytes, String)>,
}

/// Reads what `asked` names and, when that is an index, the entry that fits best. `read` is given the
/// digest of an entry, or None for the document that was asked for; it answers verified bytes.
pub(crate) async fn select<R>(
    asked: &str,
    preference: PlatformPreference,
    read: impl Fn(Option<Digest>) -> R,
) -> Result<Selected, ImageError>
where
    R: Future<Output = Result<(Bytes, Digest), ImageError>>,
{
    let parse = |bytes: &[u8]| Document::parse(bytes).map_err(|e| manifest_error(asked, e));
    let (bytes, digest) = read(None).await?;
    let (index, index_bytes) = match parse(&bytes)? {
        Document::Manifest(manifest) => {
            return Ok(Selected { digest, bytes, manifest, has_other_kind: false, index: None });
        }
        Document::Index(index) => (index, bytes),
    };
    let choice = choose(&index, preference).map_err(|e| manifest_error(asked, e))?;
    let has_other_kind = choice.has_other_kind;
    let (bytes, digest) = read(Some(choice.descriptor.digest)).await?;
    match parse(&bytes)? {
        Document::Manifest(manifest) => {
            let media_type = index.media_type.unwrap_or_else(|| OCI_INDEX.to_owned());
            Ok(Selected { digest, bytes, manifest, has_other_kind, index: Some((index_bytes, media_type)) })
        }
        Document::Index(_) => {
            let why = "an index inside an index is not supported".to_owned();
            Err(ImageError::Invalid { reference: asked.to_owned(), why })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::manifest::{OCI_MANIFEST, this_architecture};

    /// Documents by name; an index names its entries as `(os, architecture, name)`.
    #[derive(Default)]
    struct Documents(BTreeMap<&'static str, Bytes>);

    impl Documents {
        fn put(&mut self, name: &'static str, document: &Value) -> Digest {
            let bytes = Bytes::from(document.to_string());
            let digest = Digest::of(&bytes);
            self.0.insert(name, bytes);
            digest
        }

        fn manifest(&mut self, name: &'static str) -> Digest {
            let config = json!({ "mediaType": "x", "digest": Digest::of(name.as_bytes()), "size": 1 });
            self.put(name, &json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [] }))
        }

        fn index(&mut self, name: &'static str, entries: &[(&str, &str, &Digest)]) -> Digest {
            let entry = |(os, architecture, digest): &(&str, &str, &Digest)| {
                let platform = json!({ "os": os, "architecture": architecture });
                json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "platform": platform })
            };
            let entries: Vec<Value> = entries.iter().map(entry).collect();
            self.put(name, &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }))
        }

        /// The name of what is selected from `name`, or the error.
        async fn select(&self, name: &str, preference: PlatformPreference) -> Result<(&str, bool), String> {
            let read = |entry: Option<Digest>| {
                let found = match &entry {
                    None => self.0.get(name),
                    Some(digest) => self.0.values().find(|bytes| Digest::of(bytes) == *digest),
                };
                let missing = ImageError::NotFound { reference: name.to_owned(), why: "not here".to_owned() };
                std::future::ready(found.map(|b| (b.clone(), Digest::of(b))).ok_or(missing))
            };
            let selected = select(name, preference, read).await.map_err(|e| e.to_string())?;
            assert_eq!(selected.digest, Digest::of(&selected.bytes));
            let expect = (selected.bytes != self.0[name]).then(|| (self.0[name].clone(), OCI_INDEX.to_owned()));
            assert_eq!(selected.index, expect, "{name}");
            let (name, _) = self.0.iter().find(|(_, bytes)| **bytes == selected.bytes).expect("it was read from here");
            Ok((name, selected.has_other_kind))
        }
    }

    #[tokio::test]
    async fn one_manifest_is_selected() {
        use PlatformPreference::{ContainerOnly, WasmFirst};
        let mut documents = Documents::default();
        let (wasm, linux) = (documents.manifest("wasm"), documents.manifest("linux"));
        let here = this_architecture();
        let both = documents.index("both", &[("linux", here, &linux), ("wasi", "wasm", &wasm)]);
        documents.index("only linux", &[("linux", here, &linux)]);
        documents.index("nested", &[("linux", here, &both)]);
        documents.index("dangling", &[("linux", here, &Digest::of(b"gone"))]);
        documents.index("foreign", &[("plan9", "mips", &linux)]);
        documents.put("odd", &json!({ "mediaType": "text/plain" }));
        let check = async |name: &str, preference, expect: Result<(&str, bool), &str>| {
            let seen = documents.select(name, preference).await;
            match (&seen, expect) {
                (Ok(seen), Ok(expect)) => assert_eq!(*seen, expect, "{name}"),
                (Err(seen), Err(expect)) => assert!(seen.contains(expect), "{name}: {seen}"),
                _ => panic!("{name} {preference:?}: {seen:?}, not {expect:?}"),
            }
        };
        check("wasm", WasmFirst, Ok(("wasm", false))).await;
        check("wasm", ContainerOnly, Ok(("wasm", false))).await;
        check("both", WasmFirst, Ok(("wasm", true))).await;
        check("both", ContainerOnly, Ok(("linux", true))).await;
        check("only linux", WasmFirst, Ok(("linux", false))).await;
        check("nested", WasmFirst, Err("index inside an index")).await;
        check("dangling", WasmFirst, Err("not here")).await;
        check("foreign", WasmFirst, Err("plan9/mips")).await;
        check("odd", WasmFirst, Err("text/plain")).await;
        check("none", WasmFirst, Err("not here")).await;
    }
}
