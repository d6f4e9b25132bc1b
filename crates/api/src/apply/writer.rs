//! Who writes, through which door, and what a change means for what everybody owns.
//!
//! Owns: the fields that nobody owns, changes as seen in the version of each entry, and giving up what somebody else
//! wrote. May not know: verbs.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::compare::compare;
use super::conversions::Conversions;
use super::created::created;
use super::element::Element;
use super::fields_v1;
use super::managers::{Entry, Identity, Operation};
use super::place::Typing;
use super::set::Set;

/// A write, apart from what it writes.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Of the objects, as they come.
    pub typing: Typing<'a>,
    /// The version that the client speaks.
    pub api_version: &'a str,
    /// `fieldManager`, or what stands for it.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Fields that this door leaves as they are, whatever the client sends.
    pub unowned: &'a Set,
    /// RFC 3339, UTC, seconds.
    pub now: &'a str,
    /// Of a kind whose versions differ. When a run leaves questions there, its outcome is void.
    pub conversions: Option<&'a Conversions>,
}

/// Below `metadata`: the server's, or what finds the object.
const IDENTITY: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Nobody owns these.
static IDENTITY_FIELDS: LazyLock<Set> = LazyLock::new(|| {
    let mut set = paths(&[&["apiVersion"], &["kind"]]);
    IDENTITY.iter().for_each(|field| set.insert(&[Element::field("metadata"), Element::field(field)]));
    set
});

/// Nor this, but what is below it.
static METADATA: LazyLock<Set> = LazyLock::new(|| paths(&[&["metadata"]]));

pub static NOTHING: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// A set of plain fields: `&[&["status"], &["metadata", "labels"]]`.
pub fn paths(paths: &[&[&str]]) -> Set {
    let mut set = Set::default();
    for path in paths {
        set.insert(&path.iter().map(|field| Element::field(field)).collect::<Vec<_>>());
    }
    set
}

impl<'a> Writer<'a> {
    pub fn identity(&self, operation: Operation) -> Identity<'a> {
        Identity { manager: self.manager, operation, api_version: self.api_version, subresource: self.subresource }
    }

    /// What of a set the writer may own.
    pub fn ownable(&self, set: &Set) -> Set {
        set.without(self.unowned).without(&IDENTITY_FIELDS).difference(&METADATA)
    }

    /// An object in another version; nothing where the converter failed.
    pub fn convert<'v>(&self, from: Typing<'_>, object: &'v Value, to: Typing<'_>) -> Option<Cow<'v, Value>> {
        let Some(conversions) = self.conversions else { return Some(from.convert(object, to)) };
        let (Some(is), Some(wanted)) = (from.api_version(), to.api_version()) else {
            return Some(Cow::Borrowed(object));
        };
        // What comes of something that is not known yet is not asked about: it still says another version.
        let is_whole = object.get("metadata").is_some() && object.get("apiVersion") == Some(&is.as_str().into());
        if is == wanted || !is_whole { Some(Cow::Borrowed(object)) } else { conversions.find(object, &wanted) }
    }

    /// Whether the outcome is void.
    pub fn is_waiting(&self) -> bool {
        self.conversions.is_some_and(Conversions::are_missing)
    }

    /// FieldsV1 of what the writer owns of an object that it creates.
    pub fn created(&self, new: &Value) -> Map<String, Value> {
        let Some(to) = self.typing.in_version(self.api_version) else { return Map::new() };
        created(to.root(), &self.typing.convert(new, to), [self.unowned, &IDENTITY_FIELDS])
    }

    pub fn changes(&self, old: &'a Value, new: &'a Value) -> ChangesByVersion<'a> {
        ChangesByVersion { writer: *self, old, new, seen: Vec::new() }
    }
}

/// A change as it matters to owners.
#[derive(Debug, Default)]
pub struct Change {
    /// Added or modified.
    pub written: Set,
    pub removed: Set,
    /// Both: what nobody but the writer owns any more.
    pub lost: Set,
}

/// The change from one object to another, in each version that somebody owns fields in.
pub struct ChangesByVersion<'a> {
    writer: Writer<'a>,
    old: &'a Value,
    new: &'a Value,
    seen: Vec<(String, Option<Change>)>,
}

impl ChangesByVersion<'_> {
    /// `None`: the version is not served any more.
    pub fn at(&mut self, api_version: &str) -> Option<&Change> {
        let index = match self.seen.iter().position(|(version, _)| version == api_version) {
            Some(index) => index,
            None => {
                self.seen.push((api_version.to_owned(), self.compare(api_version)));
                self.seen.len() - 1
            }
        };
        self.seen[index].1.as_ref()
    }

    fn compare(&self, api_version: &str) -> Option<Change> {
        let from = self.writer.typing;
        let to = from.in_version(api_version)?;
        let versioned = |object| self.writer.convert(from, object, to);
        // Of what cannot be seen nobody loses anything.
        let (Some(old), Some(new)) = (versioned(self.old), versioned(self.new)) else { return Some(Change::default()) };
        let changes = compare(to.root(), &old, &new);
        let ours = |set: Set| set.without(self.writer.unowned).without(&IDENTITY_FIELDS);
        let removed = ours(changes.removed);
        let written = ours(changes.added.union(&changes.modified));
        Some(Change { lost: written.clone().union(&removed), written, removed })
    }
}

/// Takes from an entry what others changed or removed.
pub fn give_up(entry: &mut Entry, lost: &Set) {
    if fields_v1::touches(&entry.fields, lost) {
        entry.put(&entry.set().difference(lost));
    }
}
