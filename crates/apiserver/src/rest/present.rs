//! The form in which objects leave: as stored, converted to the served version, as Table or as metadata; as JSON or as
//! protobuf.

use std::convert::Infallible;

use api::custom::Custom;
use api::kinds::Kind;
use api::kinds::convert::convert;
use api::protobuf::ListEncoder;
use api::status::Status;
use api::table::{IncludeObject, partial_metadata};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core::{Entry, Request};
use crate::object::encode::{decode, encode};
use crate::wire::accept::{Accepted, Form, Media};
use crate::wire::respond::{self, encoded, to_bytes};

const META: &str = "meta.k8s.io/v1";
/// A list that is encoded as protobuf lets others run after about this many bytes.
const PAUSE_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone)]
pub struct Presenter {
    kind: &'static Kind,
    custom: Option<Custom>,
    form: Form,
    media: Media,
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
        let Accepted { form, media } = request.accepted;
        Ok(Self { kind: request.kind, custom: request.custom.clone(), form, media, include })
    }

    /// Can stored bytes be handed out as they are?
    pub fn is_verbatim(&self) -> bool {
        matches!(self.form, Form::Object | Form::Discovery)
            && self.media == Media::Json
            && self.custom.is_none()
            && std::ptr::eq(self.kind, self.kind.stored())
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn media(&self) -> Media {
        self.media
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
    pub fn object(&self, stored: &Bytes) -> Result<Bytes, Status> {
        if self.is_verbatim() {
            return Ok(stored.clone());
        }
        self.value(self.served(stored))
    }

    /// An object in the served form.
    fn value(&self, object: Value) -> Result<Bytes, Status> {
        match (self.form, self.media) {
            (Form::Object | Form::Discovery, Media::Json) => {
                let revision = api::meta::resource_version(&object).to_owned();
                Ok(encode(&object).stamped(&revision))
            }
            (Form::Object | Form::Discovery, Media::Protobuf) => encoded(self.media, &object),
            (Form::Partial | Form::PartialList, _) => encoded(self.media, &partial_metadata(&object)),
            (Form::Table, _) => {
                let revision = api::meta::resource_version(&object).parse().unwrap_or(0);
                let meta = ListMeta { revision, ..ListMeta::default() };
                Ok(to_bytes(&self.table(&[&object], &meta)))
            }
        }
    }

    /// Answers with one object.
    pub fn answer(&self, code: StatusCode, stored: &Bytes) -> Result<Response, Status> {
        Ok(respond::typed(code, self.media.content_type(), self.object(stored)?))
    }

    /// Answers with an object in the served form that is kept nowhere.
    pub fn answer_value(&self, object: Value) -> Result<Response, Status> {
        Ok(respond::typed(StatusCode::OK, self.media.content_type(), self.value(object)?))
    }

    /// Answers with a whole list that is not verbatim.
    pub async fn answer_list(&self, entries: &[Entry], meta: &ListMeta) -> Result<Response, Status> {
        if self.media == Media::Json {
            return self.answer_values(entries.iter().map(|entry| self.served(&entry.value)).collect(), meta);
        }
        let mut list = self.protobuf_list(meta)?;
        let mut pause_at = PAUSE_BYTES;
        for entry in entries {
            list.push(&self.item(self.served(&entry.value))).map_err(|error| respond::unencodable(&error))?;
            if list.len() >= pause_at {
                pause_at = list.len() + PAUSE_BYTES;
                tokio::task::yield_now().await;
            }
        }
        Ok(self.protobuf_answer(list))
    }

    /// Answers with a list of objects in the served form.
    pub fn answer_values(&self, objects: Vec<Value>, meta: &ListMeta) -> Result<Response, Status> {
        if self.media == Media::Protobuf {
            let mut list = self.protobuf_list(meta)?;
            for object in objects {
                list.push(&self.item(object)).map_err(|error| respond::unencodable(&error))?;
            }
            return Ok(self.protobuf_answer(list));
        }
        let list = if self.form == Form::Table {
            self.table(&objects.iter().collect::<Vec<_>>(), meta)
        } else {
            let (api_version, kind) = self.list_type();
            let items: Vec<Value> = objects.into_iter().map(|object| self.item(object)).collect();
            json!({ "kind": kind, "apiVersion": api_version, "metadata": meta.to_value(), "items": items })
        };
        Ok(respond::value(&list))
    }

    /// What a list has of an object.
    fn item(&self, object: Value) -> Value {
        match self.form {
            Form::Partial | Form::PartialList => partial_metadata(&object),
            Form::Object | Form::Discovery | Form::Table => object,
        }
    }

    fn list_type(&self) -> (String, &'static str) {
        match self.form {
            Form::Partial | Form::PartialList => (META.to_owned(), "PartialObjectMetadataList"),
            Form::Object | Form::Discovery | Form::Table => (self.kind.api_version(), self.kind.list_kind),
        }
    }

    fn protobuf_list(&self, meta: &ListMeta) -> Result<ListEncoder, Status> {
        let (api_version, kind) = match self.form {
            Form::Partial | Form::PartialList => (META.to_owned(), "PartialObjectMetadata"),
            Form::Object | Form::Discovery | Form::Table => (self.kind.api_version(), self.kind.kind),
        };
        ListEncoder::new(&api_version, kind, &meta.to_value()).map_err(|error| respond::unencodable(&error))
    }

    fn protobuf_answer(&self, list: ListEncoder) -> Response {
        let (api_version, kind) = self.list_type();
        let pieces = list.finish(&api_version, kind).map(|piece| Ok::<Bytes, Infallible>(piece.into()));
        let body = Body::from_stream(futures::stream::iter(pieces));
        respond::typed(StatusCode::OK, self.media.content_type(), body)
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
    pub fn bookmark(&self, revision: u64, initial_events_end: bool) -> Result<Bytes, Status> {
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Partial | Form::PartialList => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata })
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
        encoded(self.media, &object)
    }
}
