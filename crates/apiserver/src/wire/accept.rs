//! Content negotiation: what form of answer the client asked for, and in which encoding.
//!
//! Knows plain objects, `Table`, `PartialObjectMetadata(List)` and aggregated discovery, as JSON or (all but Tables and
//! discovery) as protobuf. CBOR is skipped, since every client lists another form as a fallback.

use http::{HeaderMap, HeaderValue, header};

/// The answer form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Object,
    Table,
    Partial,
    PartialList,
    Discovery,
}

impl Form {
    /// `Content-Type` of the answer as JSON.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Object | Self::Table | Self::Partial | Self::PartialList => "application/json",
            Self::Discovery => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        }
    }
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Media {
    #[default]
    Json,
    Protobuf,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => PROTOBUF,
        }
    }

    /// Of the events of a watch.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub form: Form,
    pub media: Media,
}

impl Accepted {
    pub const PLAIN: Self = Self { form: Form::Object, media: Media::Json };
}

struct Offer<'a> {
    media: &'a str,
    form: &'a str,
    version: &'a str,
    group: &'a str,
    /// `q`: what is liked better comes first.
    quality: f32,
}

impl<'a> Offer<'a> {
    fn new(text: &'a str) -> Self {
        let mut pieces = text.split(';').map(str::trim);
        let media = pieces.next().unwrap_or("");
        let mut offer = Offer { media, form: "", version: "", group: "", quality: 1.0 };
        for (key, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            match key {
                "as" => offer.form = value,
                "v" => offer.version = value,
                "g" => offer.group = value,
                "q" => offer.quality = value.parse().unwrap_or(1.0),
                _ => {}
            }
        }
        offer
    }

    /// How much is left open.
    fn wildcards(&self) -> usize {
        self.media.matches('*').count()
    }

    /// As Kubernetes' way of negotiation has it, a wildcard stands for JSON.
    fn encoding(&self) -> Option<Media> {
        match self.media {
            "application/json" | "application/*" | "*/*" => Some(Media::Json),
            PROTOBUF => Some(Media::Protobuf),
            _ => None,
        }
    }

    fn form(&self) -> Option<Form> {
        match (self.form, self.group, self.version) {
            ("", ..) => Some(Form::Object),
            ("Table", "meta.k8s.io", "v1") => Some(Form::Table),
            ("PartialObjectMetadata", "meta.k8s.io", "v1") => Some(Form::Partial),
            ("PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Form::PartialList),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Form::Discovery),
            _ => None,
        }
    }
}

/// What the client lists, the best first; what it likes as much stays in its order.
fn offers(accept: &str) -> Vec<Offer<'_>> {
    let mut offers: Vec<Offer<'_>> = accept.split(',').map(Offer::new).collect();
    if offers.len() > 1 {
        offers.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| a.wildcards().cmp(&b.wildcards())));
    }
    offers
}

/// The best offer of the client that can be met; `None` when there is none (406). Every kind's metadata can be answered
/// as protobuf, its objects if there is a message for them. What `is_listed` nowhere (a review) has neither columns nor
/// metadata to show.
pub fn negotiate(headers: &HeaderMap, is_listed: bool, has_message: impl Fn() -> bool) -> Option<Accepted> {
    let accept = headers.get(header::ACCEPT).map_or(Some(""), |v| v.to_str().ok())?;
    if accept.trim().is_empty() {
        return Some(Accepted::PLAIN);
    }
    offers(accept).iter().find_map(|offer| {
        let (media, form) = (offer.encoding()?, offer.form()?);
        let is_met = match (media, form) {
            (_, Form::Table | Form::Partial | Form::PartialList) if !is_listed => false,
            (Media::Json, _) | (Media::Protobuf, Form::Partial | Form::PartialList) => true,
            (Media::Protobuf, Form::Object) => has_message(),
            (Media::Protobuf, Form::Table | Form::Discovery) => false,
        };
        is_met.then_some(Accepted { form, media })
    })
}

/// How to say no: in the encoding of the first plain offer that can be met, or as JSON, which has to do where the client
/// would take neither.
pub fn of_failures(accept: Option<&HeaderValue>) -> Media {
    let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or("");
    if !accept.contains(PROTOBUF) {
        return Media::Json;
    }
    let plain = |offer: &Offer<'_>| offer.encoding().filter(|_| offer.form.is_empty());
    offers(accept).iter().find_map(plain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_and_client_go_headers() {
        use Media::{Json, Protobuf};
        let check = |accept: &str, has_message: bool, expect: Option<(Form, Media)>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            let found = negotiate(&headers, true, || has_message).map(|accepted| (accepted.form, accepted.media));
            assert_eq!(found, expect, "{accept} {has_message}");
        };
        check("", true, Some((Form::Object, Json)));
        check("*/*", true, Some((Form::Object, Json)));
        check("application/json", true, Some((Form::Object, Json)));
        check("application/vnd.kubernetes.protobuf,application/json", true, Some((Form::Object, Protobuf)));
        check("application/vnd.kubernetes.protobuf, */*", true, Some((Form::Object, Protobuf)));
        check("application/vnd.kubernetes.protobuf, */*", false, Some((Form::Object, Json)));
        check("*/*, application/vnd.kubernetes.protobuf", true, Some((Form::Object, Protobuf)));
        check("application/json, application/vnd.kubernetes.protobuf", true, Some((Form::Object, Json)));
        check("application/json;q=0.5, application/vnd.kubernetes.protobuf", true, Some((Form::Object, Protobuf)));
        check("application/vnd.kubernetes.protobuf", true, Some((Form::Object, Protobuf)));
        check("application/vnd.kubernetes.protobuf;stream=watch", true, Some((Form::Object, Protobuf)));
        check("application/vnd.kubernetes.protobuf", false, None);
        check("text/html", true, None);
        check("application/cbor,application/json", true, Some((Form::Object, Json)));
        let tables = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                      application/json";
        check(tables, true, Some((Form::Table, Json)));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", true, Some((Form::Object, Json)));
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", true, None);
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                       application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        check(partial, true, Some((Form::PartialList, Protobuf)));
        check(partial, false, Some((Form::PartialList, Protobuf)));
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                         application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        check(discovery, true, Some((Form::Discovery, Json)));
        let mut tables = HeaderMap::new();
        tables.insert(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io".parse().unwrap());
        assert_eq!(negotiate(&tables, false, || true), None, "a review is no row");
        tables.insert(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io, */*".parse().unwrap());
        assert_eq!(negotiate(&tables, false, || true), Some(Accepted::PLAIN));
        assert_eq!(negotiate(&HeaderMap::new(), true, || true), Some(Accepted::PLAIN));
    }

    #[test]
    fn failures_are_encoded_as_clients_read_them() {
        let check = |accept: &str, expect: Media| {
            assert_eq!(of_failures(Some(&accept.parse().unwrap())), expect, "{accept}");
        };
        check("application/vnd.kubernetes.protobuf", Media::Protobuf);
        check("application/vnd.kubernetes.protobuf,application/json", Media::Protobuf);
        check("application/json,application/vnd.kubernetes.protobuf", Media::Json);
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", Media::Json);
        check("text/html", Media::Json);
        assert_eq!(of_failures(None), Media::Json);
    }
}
