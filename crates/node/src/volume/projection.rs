//! configMap, secret, downwardAPI and projected volumes: which file holds what. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume};

use super::{Contents, REASON};
use crate::downward::{self, Place};
use crate::env::Objects;
use crate::objects::{ObjectKind, ObjectRef};
use crate::pod::backoff::Failure;
use crate::tokens::TokenKind;

/// Mode of a file when neither item nor volume says one.
const MODE_DEFAULT: i32 = 0o644;

/// Relative path to contents.
pub type Payload = BTreeMap<String, File>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// One ConfigMap or Secret to project.
struct ObjectSource<'a> {
    kind: ObjectKind,
    name: &'a str,
    items: Option<&'a Vec<KeyToPath>>,
    optional: bool,
}

/// The ConfigMaps and Secrets a volume names.
pub fn references(namespace: &str, volume: &Volume) -> Vec<ObjectRef> {
    let object = |source: &ObjectSource<'_>| ObjectRef {
        kind: source.kind,
        namespace: namespace.to_owned(),
        name: source.name.to_owned(),
    };
    object_sources(volume).iter().map(object).collect()
}

fn object_sources(volume: &Volume) -> Vec<ObjectSource<'_>> {
    let mut all = Vec::new();
    if let Some(v) = &volume.config_map {
        all.push(ObjectSource {
            kind: ObjectKind::ConfigMap,
            name: &v.name,
            items: v.items.as_ref(),
            optional: v.optional == Some(true),
        });
    }
    if let Some(v) = &volume.secret {
        all.push(ObjectSource {
            kind: ObjectKind::Secret,
            name: v.secret_name.as_deref().unwrap_or_default(),
            items: v.items.as_ref(),
            optional: v.optional == Some(true),
        });
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(v) = &source.config_map {
            let (items, optional) = (v.items.as_ref(), v.optional == Some(true));
            all.push(ObjectSource { kind: ObjectKind::ConfigMap, name: &v.name, items, optional });
        }
        if let Some(v) = &source.secret {
            let (items, optional) = (v.items.as_ref(), v.optional == Some(true));
            all.push(ObjectSource { kind: ObjectKind::Secret, name: &v.name, items, optional });
        }
    }
    all
}

/// The tokens a volume asks for.
pub fn token_sources(volume: &Volume) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref())
}

pub fn token_kind(source: &ServiceAccountTokenProjection) -> TokenKind {
    TokenKind::new(source.audience.as_ref(), source.expiration_seconds)
}

/// The files of a volume.
pub fn payload(place: Place<'_>, contents: Contents<'_>, volume: &Volume) -> Result<Payload, Failure> {
    let default_mode = default_mode(volume);
    let mut files = Payload::new();
    for source in object_sources(volume) {
        project(place, contents.objects, &source, default_mode, &mut files)?;
    }
    let own = volume.downward_api.iter().flat_map(|downward| downward.items.iter().flatten());
    let sources = || volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let projected = sources().filter_map(|s| s.downward_api.as_ref()).flat_map(|d| d.items.iter().flatten());
    for item in own.chain(projected) {
        let bytes = downward_text(place, item)?.into_bytes();
        insert(&mut files, &item.path, File { bytes, mode: mode(item.mode, default_mode) })?;
    }
    for token in token_sources(volume) {
        let text = contents.tokens.get(&token_kind(token));
        let text = text.ok_or_else(|| Failure::new(REASON, format!("there is no token for {}", token.path)))?;
        insert(&mut files, &token.path, File { bytes: text.as_bytes().to_vec(), mode: mode(None, default_mode) })?;
    }
    if sources().any(|source| source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some()) {
        return Err(Failure::new(REASON, "this node does not project clusterTrustBundle or podCertificate sources"));
    }
    Ok(files)
}

fn default_mode(volume: &Volume) -> i32 {
    let modes = [
        volume.config_map.as_ref().and_then(|v| v.default_mode),
        volume.secret.as_ref().and_then(|v| v.default_mode),
        volume.downward_api.as_ref().and_then(|v| v.default_mode),
        volume.projected.as_ref().and_then(|v| v.default_mode),
    ];
    modes.into_iter().flatten().next().unwrap_or(MODE_DEFAULT)
}

fn mode(own: Option<i32>, default: i32) -> u32 {
    u32::try_from(own.unwrap_or(default)).unwrap_or(0o644) & 0o777
}

fn project(
    place: Place<'_>,
    objects: &Objects,
    source: &ObjectSource<'_>,
    default_mode: i32,
    files: &mut Payload,
) -> Result<(), Failure> {
    let (word, name) = (source.kind.word().to_lowercase(), source.name);
    let reference = ObjectRef { kind: source.kind, namespace: place.pod.namespace().to_owned(), name: name.to_owned() };
    let Some(object) = objects.get(&reference).and_then(Option::as_ref) else {
        return if source.optional { Ok(()) } else { Err(Failure::new(REASON, format!("{word} {name:?} not found"))) };
    };
    let Some(items) = source.items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in &object.data {
            insert(files, key, File { bytes: bytes.clone(), mode: mode(None, default_mode) })?;
        }
        return Ok(());
    };
    for item in items {
        match object.data.get(&item.key) {
            Some(bytes) => {
                let file = File { bytes: bytes.clone(), mode: mode(item.mode, default_mode) };
                insert(files, &item.path, file)?;
            }
            None if source.optional => {}
            None => {
                let text = format!("references non-existent {word} key: {}", item.key);
                return Err(Failure::new(REASON, text));
            }
        }
    }
    Ok(())
}

/// Refuses paths that lead out of the volume or into its bookkeeping.
fn insert(files: &mut Payload, path: &str, file: File) -> Result<(), Failure> {
    let bad_part = |part: &str| part.is_empty() || part == "." || part.starts_with("..");
    if path.len() > 4096 || path.split('/').any(bad_part) {
        return Err(Failure::new(REASON, format!("invalid path {path:?}: it must stay within the volume")));
    }
    files.insert(path.to_owned(), file);
    Ok(())
}

fn downward_text(place: Place<'_>, item: &DownwardAPIVolumeFile) -> Result<String, Failure> {
    let text = match (&item.field_ref, &item.resource_field_ref) {
        (Some(selector), _) => downward::field(place, selector),
        (None, Some(selector)) => downward::resource(place, "", selector),
        (None, None) => Ok(String::new()),
    };
    text.map_err(|error| Failure::new(REASON, error.to_string()))
}
