//! Every server has what is tagged, so that it is there when the one it was pushed to is not.
//!
//! Owns: when content is brought to this server without being asked for: soon after a push, one image after another, and
//! again when that failed. May not know: how content travels (`siblings`), or what is removed and when.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use image::{Digest, Registry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::image_names::{ImageNames, Tagged};

/// After something could not be brought, or the other servers were asked for too much.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What of the tags is here: repository and tag, and the manifest they had.
type Here = HashMap<(String, String), Digest>;

pub fn spawn(names: Arc<ImageNames>, registry: Registry, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run(&names, &registry) => {}
        }
    })
}

async fn run(names: &ImageNames, registry: &Registry) {
    let (mut here, mut told) = (Here::new(), HashSet::new());
    loop {
        let seen = names.revision();
        let tags = names.tags_known();
        let missing = missing(&tags, &mut here);
        let mut all_came = true;
        for tagged in missing {
            let Tagged { repository, tag, manifest } = tagged;
            match registry.keep(repository, tag, manifest).await {
                Ok(()) => drop(here.insert(tagged.name(), manifest.digest.clone())),
                Err(error) => {
                    all_came = false;
                    // Once: it is tried again and again, and its server may be away for long.
                    if told.insert(manifest.digest.clone()) {
                        let error = format!("{:#}", anyhow::Error::new(error));
                        tracing::warn!(repository, tag, error, "an image is not on this server yet");
                    }
                }
            }
        }
        let changed = async {
            if let Err(error) = names.tags_changed(seen).await {
                tracing::debug!(%error, "changes of tags were missed");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        if all_came {
            changed.await;
        } else {
            // A new tag does not wait for those that failed, and these are tried again with it.
            let _ = tokio::time::timeout(AGAIN_AFTER, changed).await;
        }
    }
}

/// What has to be brought; what is no tag any more is forgotten. Pure.
fn missing<'a>(tags: &'a [Tagged], here: &mut Here) -> Vec<&'a Tagged> {
    let known: HashSet<(String, String)> = tags.iter().map(Tagged::name).collect();
    here.retain(|name, _| known.contains(name));
    tags.iter().filter(|tagged| here.get(&tagged.name()) != Some(&tagged.manifest.digest)).collect()
}

#[cfg(test)]
mod tests {
    use image::NamedManifest;

    use super::*;

    #[test]
    fn what_is_missing() {
        let digest = |content: &str| Digest::of(content.as_bytes());
        let tagged = |text: &str| -> Tagged {
            let (name, content) = text.split_once('=').unwrap();
            let (repository, tag) = name.split_once(':').unwrap();
            let manifest = NamedManifest { digest: digest(content), media_type: String::new() };
            Tagged { repository: repository.to_owned(), tag: tag.to_owned(), manifest }
        };
        let mut here = Here::new();
        // The tags of the cluster; what is missing of them; then all of it has come.
        let mut check = |tags: &[&str], expect: &[&str]| {
            let tags: Vec<Tagged> = tags.iter().map(|text| tagged(text)).collect();
            let expect: Vec<Tagged> = expect.iter().map(|text| tagged(text)).collect();
            assert_eq!(missing(&tags, &mut here), expect.iter().collect::<Vec<_>>());
            for Tagged { repository, tag, manifest } in tags {
                here.insert((repository, tag), manifest.digest);
            }
            here.len()
        };
        assert_eq!(check(&["a:v1=x", "a:v2=x"], &["a:v1=x", "a:v2=x"]), 2);
        assert_eq!(check(&["a:v1=x", "a:v2=y", "b:v1=x"], &["a:v2=y", "b:v1=x"]), 3);
        assert_eq!(check(&["a:v2=y"], &[]), 1);
        assert_eq!(check(&["a:v1=x", "a:v2=y"], &["a:v1=x"]), 2);
    }
}
