//! The status that was written last, kept whole only while that is needed.
//!
//! Owns: telling whether a status is the one that was written. May not know: how it is written.

use std::hash::{DefaultHasher, Hasher};

use k8s_openapi::api::core::v1::{Pod, PodStatus};

#[derive(Debug)]
pub enum LastStatus {
    /// None was written yet.
    Nothing,
    Whole(Box<PodStatus>),
    /// The pod's object has it, or has had it.
    Digest(u64),
}

impl LastStatus {
    pub fn is(&self, status: &PodStatus) -> bool {
        match self {
            Self::Nothing => false,
            Self::Whole(last) => **last == *status,
            Self::Digest(last) => *last == digest(status),
        }
    }

    /// By which to tell what changes.
    pub fn or_of<'a>(&'a self, pod: &'a Pod) -> Option<&'a PodStatus> {
        match self {
            Self::Whole(last) => Some(last),
            Self::Nothing | Self::Digest(_) => pod.status.as_ref(),
        }
    }

    /// Keeps only the digest, if the object says the same; false when it does not, or nothing was written.
    pub fn let_go(&mut self, object: Option<&Pod>) -> bool {
        let Self::Whole(last) = &*self else { return matches!(self, Self::Digest(_)) };
        let digest_of_last = digest(last);
        let is_there = object.and_then(|pod| pod.status.as_ref()).map(digest) == Some(digest_of_last);
        if is_there {
            *self = Self::Digest(digest_of_last);
        }
        is_there
    }
}

/// Of its text: times have whole seconds there, as they come back.
fn digest(status: &PodStatus) -> u64 {
    let text = serde_json::to_vec(status).expect("a pod status has only string keys");
    let mut hasher = DefaultHasher::new();
    hasher.write(&text);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn it_is_let_go_of_once_the_object_has_it() {
        let running = json!({"phase": "Running", "startTime": "2026-01-02T03:04:05Z"});
        let check = |object: Value, expect: bool| {
            let pod = Pod { status: Some(status(object.clone())), ..Pod::default() };
            // as it is before it is written: with parts of seconds
            let exact = json!({"phase": "Running", "startTime": "2026-01-02T03:04:05.678Z"});
            let mut last = LastStatus::Whole(Box::new(status(exact)));
            assert_eq!(last.let_go(Some(&pod)), expect, "{object}");
            assert_eq!(matches!(last, LastStatus::Digest(_)), expect);
            assert!(last.is(&status(json!({"phase": "Running", "startTime": "2026-01-02T03:04:05.678Z"}))));
            assert!(!last.is(&status(json!({"phase": "Failed", "startTime": "2026-01-02T03:04:05.678Z"}))));
            assert_eq!(last.or_of(&pod) == pod.status.as_ref(), expect);
        };
        check(running, true);
        check(json!({"phase": "Running"}), false);
        check(json!({"phase": "Pending", "startTime": "2026-01-02T03:04:05Z"}), false);
        assert!(!LastStatus::Nothing.let_go(Some(&Pod::default())));
        assert!(!LastStatus::Nothing.is(&PodStatus::default()));
    }
}
