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
