//! The form in which objects leave: as stored, converted to the served version, as Table or as metadata.

use api::custom::Custom;
use api::kinds::Kind;
use api::kinds::convert::convert;
use api::status::Status;
use api::table::{IncludeObject, partial_metadata};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core::{Entry, Request};
use crate::object::encode::{decode, encode};
use crate::wire::accept::Form;
use crate::wire::respond::to_bytes;

#[derive(Debug, Clone)]
pub struct Presenter {
    kind: &'static Kind,
    custom: Option<Custom>,
    form: Form,
    include: IncludeObject,
}

/// `metadata` of a list answer.
#[derive(Debug, Clone, Default)]
pub struct ListMeta {
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl ListMeta {
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "resourceVersion": self.revision.to_string() });
        if !self.continue_token.is_empty() {
            value["continue"] = self.continue_token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            value["remainingItemCount"] = remaining.into();
        }
        value
    }
}

impl Presenter {
    pub fn new(request: &Request) -> Result<Self, Status> {
        let text = &request.parameters.include_object;
        let include = IncludeObject::from_query(text)
            .ok_or_else(|| Status::bad_request(format!("unrecognized includeObject value: {text:?}")))?;
        Ok(Self { kind: request.kind, custom: request.custom.clone(), form: request.form, include })
    }

    /// Can stored bytes be handed out as they are?
    pub fn is_verbatim(&self) -> bool {
        matches!(self.form, Form::Object | Form::Discovery)
            && self.custom.is_none()
            && std::ptr::eq(self.kind, self.kind.stored())
    }

    pub fn form(&self) -> Form {
        self.form
    }

    fn served(&self, stored: &[u8]) -> Value {
        let mut object = decode(stored);
        match &self.custom {
            Some(custom) => custom.present(&mut object),
            None => convert(self.kind.stored(), self.kind, &mut object),
        }
        object
    }

    /// One object.
    pub fn object(&self, stored: &Bytes) -> Bytes {
        if self.is_verbatim() {
            return stored.clone();
        }
        self.value(self.served(stored))
    }

    /// An object in the served form that is kept nowhere.
    pub fn value(&self, object: Value) -> Bytes {
        match self.form {
            Form::Object | Form::Discovery => {
                let revision = api::meta::resource_version(&object).to_owned();
                encode(&object).stamped(&revision)
            }
            Form::Partial | Form::PartialList => to_bytes(&partial_metadata(&object)),
            Form::Table => {
                let revision = api::meta::resource_version(&object).parse().unwrap_or(0);
                let meta = ListMeta { revision, ..ListMeta::default() };
                to_bytes(&self.table(&[&object], &meta))
            }
        }
    }

    /// A whole list that is not verbatim.
    pub fn list(&self, entries: &[Entry], meta: &ListMeta) -> Bytes {
        self.values(entries.iter().map(|entry| self.served(&entry.value)).collect(), meta)
    }

    /// A list of objects in the served form.
    pub fn values(&self, objects: Vec<Value>, meta: &ListMeta) -> Bytes {
        let (kind, api_version, items) = match self.form {
            Form::Table => return to_bytes(&self.table(&objects.iter().collect::<Vec<_>>(), meta)),
            Form::Partial | Form::PartialList => {
                let items = objects.iter().map(partial_metadata).collect();
                ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned(), items)
            }
            Form::Object | Form::Discovery => (self.kind.list_kind, self.kind.api_version(), objects),
        };
        to_bytes(&json!({ "kind": kind, "apiVersion": api_version, "metadata": meta.to_value(), "items": items }))
    }

    fn table(&self, objects: &[&Value], meta: &ListMeta) -> Value {
        let now = Timestamp::now();
        let mut table = match &self.custom {
            Some(custom) => custom.table(objects, now, self.include),
            None => api::table::table(self.kind, objects, now, self.include),
        };
        table["metadata"] = meta.to_value();
        table
    }

    /// The bytes before and after the items of a verbatim list.
    pub fn list_frame(&self, meta: &ListMeta) -> (Bytes, Bytes) {
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            self.kind.list_kind,
            self.kind.api_version(),
            meta.to_value()
        );
        (head.into(), Bytes::from_static(b"]}\n"))
    }

    /// The object of a BOOKMARK event.
    pub fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Partial | Form::PartialList => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Form::Table => {
                let mut table = self.table(&[], &ListMeta { revision, ..ListMeta::default() });
                if initial_events_end {
                    // A Table has no annotations of its own: client-go looks at the object of the first row.
                    let row = json!({ "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
                        "metadata": metadata });
                    table["rows"] = json!([{ "cells": [], "object": row }]);
                }
                table
            }
            Form::Object | Form::Discovery => {
                json!({ "kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata })
            }
        };
        to_bytes(&object)
    }
}
