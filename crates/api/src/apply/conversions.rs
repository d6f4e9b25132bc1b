//! Objects in versions that only a converter can make: what is known of them, and what still has to be asked.
//!
//! The walks of this module are pure and a converter has to be waited for. So they run again: what a run does not find
//! here is noted, its outcome is void, somebody asks the converter, and the next run comes further.
//!
//! Owns: the questions of one write and their answers. May not know: who converts.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// An object, and the version it is wanted in.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub object: Value,
    pub api_version: String,
}

#[derive(Debug, Default)]
struct Kept {
    /// `None`: the converter failed.
    known: Vec<(Question, Option<Value>)>,
    asked: Vec<Question>,
}

/// Of one write.
#[derive(Debug, Default)]
pub struct Conversions(Mutex<Kept>);

impl Conversions {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has to be answered before the outcome of a run is good for anything.
    pub fn questions(&self) -> Vec<Question> {
        std::mem::take(&mut self.kept().asked)
    }

    /// `None` says that the converter failed.
    pub fn answer(&self, question: Question, answer: Option<Value>) {
        self.kept().known.push((question, answer));
    }

    /// For another write.
    pub fn forget(&self) {
        *self.kept() = Kept::default();
    }

    pub(super) fn are_missing(&self) -> bool {
        !self.kept().asked.is_empty()
    }

    /// The object in the other version, as it is where that is not known yet, or nothing where the converter failed.
    pub(super) fn find<'v>(&self, object: &'v Value, api_version: &str) -> Option<Cow<'v, Value>> {
        let mut kept = self.kept();
        let is_it = |question: &Question| question.api_version == api_version && question.object == *object;
        if let Some((_, answer)) = kept.known.iter().find(|(question, _)| is_it(question)) {
            return answer.clone().map(Cow::Owned);
        }
        if !kept.asked.iter().any(is_it) {
            kept.asked.push(Question { object: object.clone(), api_version: api_version.to_owned() });
        }
        Some(Cow::Borrowed(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn questions_are_asked_once() {
        let conversions = Conversions::default();
        let (object, other) = (json!({ "a": 1 }), json!({ "b": 1 }));
        for _ in 0..2 {
            assert_eq!(conversions.find(&object, "g/v2").as_deref(), Some(&object));
        }
        assert!(conversions.are_missing());
        let questions = conversions.questions();
        assert_eq!(questions, [Question { object: object.clone(), api_version: "g/v2".to_owned() }]);
        assert!(!conversions.are_missing());
        conversions.answer(questions[0].clone(), Some(other.clone()));
        assert_eq!(conversions.find(&object, "g/v2").as_deref(), Some(&other));
        conversions.find(&object, "g/v3");
        conversions.answer(conversions.questions().remove(0), None);
        assert_eq!(conversions.find(&object, "g/v3"), None);
        conversions.forget();
        assert!(conversions.find(&object, "g/v3").is_some());
    }
}
