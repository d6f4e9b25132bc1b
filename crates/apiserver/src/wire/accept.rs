//! Content negotiation: what form of answer the client asked for.
//!
//! Knows JSON as plain objects, `Table` and `PartialObjectMetadata(List)`, and aggregated
//! discovery; protobuf and CBOR are skipped, since every client lists JSON as a fallback.

use http::{HeaderMap, header};

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
    /// `Content-Type` of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Object | Self::Table | Self::Partial | Self::PartialList => "application/json",
            Self::Discovery => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        }
    }
}

struct Offer<'a> {
    media: &'a str,
    form: &'a str,
    version: &'a str,
    group: &'a str,
}

fn offers(accept: &str) -> impl Iterator<Item = Offer<'_>> {
    accept.split(',').map(|part| {
        let mut pieces = part.split(';').map(str::trim);
        let media = pieces.next().unwrap_or("");
        let mut offer = Offer { media, form: "", version: "", group: "" };
        for (key, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            match key {
                "as" => offer.form = value,
                "v" => offer.version = value,
                "g" => offer.group = value,
                _ => {}
            }
        }
        offer
    })
}

/// The first offer of the client that can be met; `None` when there is none (406).
pub fn negotiate(headers: &HeaderMap) -> Option<Form> {
    let accept = headers.get(header::ACCEPT).map_or(Some(""), |v| v.to_str().ok())?;
    if accept.trim().is_empty() {
        return Some(Form::Object);
    }
    offers(accept).find_map(|offer| {
        let json = matches!(offer.media, "application/json" | "application/*" | "*/*");
        match (json, offer.form, offer.group, offer.version) {
            (false, ..) => None,
            (true, "", ..) => Some(Form::Object),
            (true, "Table", "meta.k8s.io", "v1") => Some(Form::Table),
            (true, "PartialObjectMetadata", "meta.k8s.io", "v1") => Some(Form::Partial),
            (true, "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Form::PartialList),
            (true, "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Form::Discovery),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_and_client_go_headers() {
        let cases = [
            ("", Some(Form::Object)),
            ("*/*", Some(Form::Object)),
            ("application/json", Some(Form::Object)),
            ("application/vnd.kubernetes.protobuf,application/json", Some(Form::Object)),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                 application/json",
                Some(Form::Table),
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some(Form::Object)),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                 application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some(Form::PartialList),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                 application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Some(Form::Discovery),
            ),
        ];
        for (accept, expect) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(negotiate(&headers), expect, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), Some(Form::Object));
    }
}
