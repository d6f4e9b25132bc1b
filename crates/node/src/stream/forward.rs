//! Which SPDY streams belong together when ports are forwarded: for each connection an error stream and a data
//! stream, with the same request id. Follows `k8s.io/kubelet/pkg/cri/streaming/portforward`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// Streams that wait for their other half.
pub const HALVES_MAX: usize = 128;
/// How long they may.
pub const HALF_AGE_MAX: Duration = Duration::from_secs(30);

/// What a stream says about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Announced<'a> {
    pub stream_type: Option<&'a str>,
    pub port: Option<&'a str>,
    pub request_id: Option<&'a str>,
}

/// A connection that can be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair<S> {
    pub port: u16,
    pub error: S,
    pub data: S,
}

struct Half<S, T> {
    port: u16,
    error: Option<S>,
    data: Option<S>,
    since: T,
}

/// Halves of pairs. `T` is a time.
pub struct Pairs<S, T> {
    waiting: BTreeMap<String, Half<S, T>>,
}

impl<S, T: Copy + PartialOrd> Pairs<S, T> {
    pub fn new() -> Self {
        Self { waiting: BTreeMap::new() }
    }

    /// A pair, when this stream was the missing half. A stream that cannot be one comes back with the reason.
    pub fn add(&mut self, stream: S, announced: Announced<'_>, now: T) -> Result<Option<Pair<S>>, (S, String)> {
        let is_error = match announced.stream_type {
            Some("error") => true,
            Some("data") => false,
            other => return Err((stream, format!("invalid stream type {:?}", other.unwrap_or_default()))),
        };
        let Some(port) = announced.port.and_then(|port| port.parse().ok()).filter(|port: &u16| *port > 0) else {
            return Err((stream, format!("invalid port {:?}", announced.port.unwrap_or_default())));
        };
        let Some(id) = announced.request_id else {
            return Err((stream, "the stream has no request id".to_owned()));
        };
        if self.waiting.len() >= HALVES_MAX && !self.waiting.contains_key(id) {
            return Err((stream, format!("{HALVES_MAX} streams wait for their other half already")));
        }
        let half = self.waiting.entry(id.to_owned()).or_insert(Half { port, error: None, data: None, since: now });
        let place = if is_error { &mut half.error } else { &mut half.data };
        if place.is_some() || half.port != port {
            return Err((stream, format!("request {id} has such a stream already, or is for another port")));
        }
        *place = Some(stream);
        if half.error.is_none() || half.data.is_none() {
            return Ok(None);
        }
        let whole = self.waiting.remove(id).and_then(|half| Some(Pair { port, error: half.error?, data: half.data? }));
        Ok(whole)
    }

    /// Halves that have waited since before this.
    pub fn expire(&mut self, before: T) -> Vec<S> {
        let old: Vec<String> =
            self.waiting.iter().filter(|(_, half)| half.since < before).map(|(id, _)| id.clone()).collect();
        let halves = old.iter().filter_map(|id| self.waiting.remove(id));
        halves.flat_map(|half| half.error.into_iter().chain(half.data)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(stream_type: &'a str, port: &'a str, request_id: &'a str) -> Announced<'a> {
        let given = |text: &'a str| (!text.is_empty()).then_some(text);
        Announced { stream_type: given(stream_type), port: given(port), request_id: given(request_id) }
    }

    #[test]
    fn halves_find_each_other() {
        let mut pairs = Pairs::new();
        assert_eq!(pairs.add("e0", said("error", "80", "0"), 1), Ok(None));
        assert_eq!(pairs.add("d1", said("data", "81", "1"), 1), Ok(None));
        assert_eq!(pairs.add("d0", said("data", "80", "0"), 2), Ok(Some(Pair { port: 80, error: "e0", data: "d0" })));
        assert_eq!(pairs.add("e1", said("error", "81", "1"), 2), Ok(Some(Pair { port: 81, error: "e1", data: "d1" })));
        assert!(pairs.waiting.is_empty());
    }

    #[test]
    fn what_cannot_be_a_half_comes_back() {
        let mut pairs = Pairs::new();
        assert_eq!(pairs.add("e", said("error", "80", "0"), 1), Ok(None));
        let mut check = |announced, expect: &str| {
            let (stream, why) = pairs.add("x", announced, 1).unwrap_err();
            assert!(stream == "x" && why.contains(expect), "{why}");
        };
        check(said("", "80", "1"), "invalid stream type \"\"");
        check(said("voice", "80", "1"), "invalid stream type \"voice\"");
        check(said("data", "0", "1"), "invalid port \"0\"");
        check(said("data", "70000", "1"), "invalid port");
        check(said("data", "80", ""), "no request id");
        check(said("error", "80", "0"), "such a stream already");
        check(said("data", "81", "0"), "another port");
    }

    #[test]
    fn halves_do_not_wait_for_ever() {
        let mut pairs = Pairs::new();
        for id in 0..HALVES_MAX {
            assert_eq!(pairs.add(id, said("data", "80", &id.to_string()), id), Ok(None));
        }
        assert!(pairs.add(1000, said("data", "80", "1000"), 1000).is_err());
        assert_eq!(pairs.expire(3), [0, 1, 2]);
        assert_eq!(pairs.add(1000, said("data", "80", "1000"), 1000), Ok(None));
    }
}
