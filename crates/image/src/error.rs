//! What went wrong with one image, in the words of the seam (`cri::ImageError`).

use cri::ImageError;

use crate::manifest::ManifestError;
use crate::store::StoreError;

pub(crate) fn store_error(reference: &str, error: StoreError) -> ImageError {
    match error {
        StoreError::Io { attempt, path, source } => {
            ImageError::Io { attempt: format!("{attempt} {}", path.display()), source }
        }
        other => ImageError::Invalid { reference: reference.to_owned(), why: other.to_string() },
    }
}

pub(crate) fn manifest_error(reference: &str, error: ManifestError) -> ImageError {
    let reference = reference.to_owned();
    match error {
        ManifestError::NoPlatform { wanted, offered } => ImageError::NoPlatform { reference, wanted, offered },
        other => ImageError::Invalid { reference, why: other.to_string() },
    }
}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errors_keep_what_a_person_needs() {
        let store = |error| store_error("app:v1", error);
        let manifest = |error| manifest_error("app:v1", error);
        let damaged =
            StoreError::Io { attempt: "read", path: "/images/x".into(), source: io::Error::other("the disk says no") };
        let no_platform = ManifestError::NoPlatform { wanted: "linux/amd64".into(), offered: "linux/s390x".into() };
        let cases = [
            (store(damaged), "cannot read /images/x: the disk says no"),
            (store(StoreError::NoName { repository: "app".into(), tag: "v1".into() }), "app:v1 is not in the store"),
            (manifest(ManifestError::TooLarge { len: 5 << 20 }), "more than 4194304"),
            (manifest(no_platform), "linux/s390x"),
        ];
        for (error, expect) in cases {
            let text = chain(&error);
            assert!(text.contains(expect), "{text}");
        }
    }
}
