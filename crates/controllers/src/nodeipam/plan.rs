//! Which range a node without one gets. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Node;
use reconcile::{ApiAction, Note, Plan};
use serde_json::json;

/// All pods of a cluster.
const CLUSTER: Range = Range { first: u32::from_be_bytes([10, 32, 0, 0]), length: 12 };
/// The pods of a first server.
const SET_APART: Range = Range { first: u32::from_be_bytes([10, 32, 0, 0]), length: 17 };
/// What each node gets: 254 addresses.
const LENGTH: u8 = 24;

/// An IPv4 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    length: u8,
}

impl Range {
    fn last(self) -> u32 {
        self.first | (u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0))
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.length)
    }
}

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').ok_or(())?;
        let (address, length): (Ipv4Addr, u8) = (address.parse().map_err(|_| ())?, length.parse().map_err(|_| ())?);
        if length > 32 {
            return Err(());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Ok(Self { first: u32::from(address) & mask, length })
    }
}

/// The range that a node has.
#[must_use]
pub fn range_of(node: &Node) -> Option<Range> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
}

/// The plan for `node`, and the range that it gives. `taken`: what others have.
#[must_use]
pub fn plan(node: &Node, taken: &[Range]) -> (Plan, Option<Range>) {
    let has = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).unwrap_or_default();
    if !has.is_empty() {
        return (Plan::nothing("it has a range"), None);
    }
    if node.metadata.deletion_timestamp.is_some() {
        return (Plan::nothing("it is being deleted"), None);
    }
    let Some(range) = free(taken) else {
        let note = Note::warning(node, "CIDRNotAvailable", format!("no range of {CLUSTER} is left for its pods"));
        return (Plan::of(vec![ApiAction::Event(note)], "no range is left"), None);
    };
    let text = range.to_string();
    let body = json!({ "metadata": { "uid": node.metadata.uid }, "spec": { "podCIDR": text, "podCIDRs": [text] } });
    (Plan::of(vec![ApiAction::merge_patch(node, body)], format!("it gets {range}")), Some(range))
}

/// The first that nobody has.
fn free(taken: &[Range]) -> Option<Range> {
    let step = 1u32 << (32 - u32::from(LENGTH));
    let mut first = CLUSTER.first;
    while first <= CLUSTER.last() {
        let range = Range { first, length: LENGTH };
        let used =
            taken.iter().chain([&SET_APART]).filter(|other| other.overlaps(range)).map(|other| other.last()).max();
        match used {
            None => return Some(range),
            // Past the end of what is in the way.
            Some(last) => first = last.max(range.last()).checked_add(1)?.next_multiple_of(step),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| text.parse().expect("a range")).collect()
    }

    #[test]
    fn the_first_free_range() {
        let check = |taken: &[&str], expect: &str| {
            assert_eq!(free(&ranges(taken)).map(|range| range.to_string()).as_deref(), Some(expect), "{taken:?}");
        };
        check(&[], "10.32.128.0/24");
        check(&["10.32.0.0/17"], "10.32.128.0/24");
        check(&["10.32.128.0/24", "10.32.130.0/24"], "10.32.129.0/24");
        check(&["10.32.128.0/20", "10.32.144.128/25"], "10.32.145.0/24");
        check(&["192.168.0.0/16"], "10.32.128.0/24");
        assert_eq!(free(&ranges(&["10.0.0.0/8"])), None);
        assert_eq!(free(&ranges(&["10.32.0.0/13", "10.40.0.0/13"])), None);
        assert_eq!(free(&ranges(&["0.0.0.0/0"])), None);
        check(&["10.32.0.0/13", "10.40.0.0/14", "10.44.0.0/15", "10.46.0.0/16", "10.47.0.0/17"], "10.47.128.0/24");
    }

    #[test]
    fn ranges_are_read_and_written() {
        for (text, expect) in [("10.32.7.9/18", Some("10.32.0.0/18")), ("1.2.3.4/32", Some("1.2.3.4/32"))] {
            assert_eq!(text.parse::<Range>().ok().map(|range| range.to_string()).as_deref(), expect);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/64", "x/8"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    #[test]
    fn plans() {
        let check = |spec: serde_json::Value, taken: &[&str], expect: &str| {
            let node = crate::model::object(json!({ "metadata": { "name": "n1" }, "spec": spec }));
            let (plan, range) = plan(&node, &ranges(taken));
            assert_eq!(plan.render(), expect);
            assert_eq!(range.is_some(), expect.starts_with("it gets"));
        };
        check(json!({ "podCIDR": "10.32.134.0/24" }), &[], "it has a range");
        check(json!({}), &[], "it gets 10.32.128.0/24\n  patch nodes/web/n1");
        check(json!({}), &["10.32.128.0/24"], "it gets 10.32.129.0/24\n  patch nodes/web/n1");
        check(
            json!({}),
            &["10.0.0.0/8"],
            "no range is left\n  event CIDRNotAvailable no range of 10.32.0.0/12 is left for its pods",
        );
    }
}
