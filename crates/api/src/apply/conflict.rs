//! Fields that an applier wants otherwise than who owns them now.
//!
//! Owns: the refusal's text. Follows apimachinery `managedfields/internal/conflict.go`.

use serde_json::{Value, json};

use super::element::{Element, path_text};
use super::managers::Entry;
use super::set::Set;

/// One field of one other manager.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    pub with: Entry,
    pub path: Vec<Element>,
}

/// All that there are: by manager, then by path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    pub fn add(&mut self, with: &Entry, fields: &Set) {
        self.0.extend(fields.paths().into_iter().map(|path| Conflict { with: with.clone(), path }));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without the fields of a set.
    #[must_use]
    pub fn except(mut self, allowed: &Set) -> Self {
        self.0.retain(|conflict| !allowed.has(&conflict.path));
        self
    }

    /// `Apply failed with 1 conflict: conflict with "kubectl" using v1: .spec.replicas`
    pub fn message(&self) -> String {
        if let [only] = self.0.as_slice() {
            let (with, path) = (only.with.describe(), path_text(&only.path));
            return format!("Apply failed with 1 conflict: conflict with {with}: {path}");
        }
        let mut lines: Vec<String> = Vec::new();
        let mut manager = None;
        for conflict in &self.0 {
            if manager != Some(conflict.with.identity()) {
                manager = Some(conflict.with.identity());
                lines.push(format!("conflicts with {}:", conflict.with.describe()));
            }
            lines.push(format!("- {}", path_text(&conflict.path)));
        }
        format!("Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }

    /// `details.causes` of the refusal.
    pub fn causes(&self) -> Value {
        let cause = |conflict: &Conflict| {
            json!({ "reason": "FieldManagerConflict", "field": path_text(&conflict.path),
                "message": format!("conflict with {}", conflict.with.describe()) })
        };
        self.0.iter().map(cause).collect()
    }
}
