//! Which objects of a collection a request is about: label and field selectors over stored facets.

use api::kinds::Kind;
use api::selector::{FieldOperator, FieldSelector, LabelSelector};
use api::status::Status;

use crate::core::Entry;
use crate::object::encode::decode;
use crate::wire::query::Parameters;

#[derive(Debug, Clone)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// Kinds served in another form than they are stored in name their fields otherwise, and those of custom kinds
    /// are not known where facets are read.
    converted: Option<&'static Kind>,
}

impl Selection {
    pub fn new(kind: &'static Kind, parameters: &Parameters) -> Result<Self, Status> {
        let labels = LabelSelector::parse(&parameters.label_selector)
            .map_err(|e| Status::bad_request(format!("unable to parse labelSelector: {e}")))?;
        let fields = FieldSelector::parse(&parameters.field_selector)
            .map_err(|e| Status::bad_request(format!("unable to parse fieldSelector: {e}")))?;
        if let Some((path, ..)) = fields.terms.iter().find(|(path, ..)| !kind.is_selectable(path)) {
            return Err(Status::bad_request(format!("field label not supported: {path}")));
        }
        let converted = (kind.is_custom() || !std::ptr::eq(kind, kind.stored())).then_some(kind);
        Ok(Self { labels, fields, converted })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.terms.is_empty()
    }

    pub fn selects(&self, entry: &Entry) -> bool {
        if !self.labels.matches(|key| entry.facets.label(key)) {
            return false;
        }
        if self.fields.terms.is_empty() {
            return true;
        }
        let Some(kind) = self.converted else {
            return self.fields.matches(|path| entry.facets.field(path));
        };
        let object = decode(&entry.value);
        self.fields.terms.iter().all(|(path, operator, wanted)| {
            let seen = kind.field_value(path, &object).unwrap_or_default();
            (seen == wanted.as_str()) == (*operator == FieldOperator::Equals)
        })
    }

    /// The one name that can match, when the selector pins it.
    pub fn single_name(&self) -> Option<&str> {
        self.fields.terms.iter().find_map(|(path, operator, value)| {
            (path == "metadata.name" && *operator == FieldOperator::Equals).then_some(value.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::facets::ObjectFacets;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use store::{Facets, Revision};

    fn entry(object: &Value) -> Entry {
        let value = object.to_string().into_bytes();
        Arc::new(store::Entry {
            key: "k".into(),
            facets: ObjectFacets::parse(b"/registry/k", &value),
            value: value.into(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
        })
    }

    fn check(kind: &'static Kind, object: &Value, labels: &str, fields: &str, expect: bool) {
        let parameters = Parameters {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
            ..Parameters::default()
        };
        let selection = Selection::new(kind, &parameters).unwrap();
        assert_eq!(selection.selects(&entry(object)), expect, "{labels:?} {fields:?}");
    }

    #[test]
    fn pods_by_label_and_field() {
        let pods = crate::core::core_kind("pods");
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labels": { "app": "web" } },
            "spec": { "nodeName": "n1" }, "status": { "phase": "Running" } });
        check(pods, &pod, "", "", true);
        check(pods, &pod, "app=web", "spec.nodeName=n1", true);
        check(pods, &pod, "app!=web", "", false);
        check(pods, &pod, "", "status.phase!=Running", false);
        check(pods, &pod, "app in (web,db)", "metadata.name=p,spec.nodeName!=n2", true);
    }

    #[test]
    fn events_in_their_other_form() {
        let events = api::kinds::lookup("events.k8s.io", "v1", "events").unwrap();
        let event = json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" },
            "involvedObject": { "kind": "Pod" }, "reason": "Started" });
        check(events, &event, "", "regarding.kind=Pod,reason=Started", true);
        check(events, &event, "", "regarding.kind!=Pod", false);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let parameters = Parameters { field_selector: "spec.foo=1".to_owned(), ..Parameters::default() };
        let error = Selection::new(crate::core::core_kind("pods"), &parameters).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, "field label not supported: spec.foo"));
    }
}
