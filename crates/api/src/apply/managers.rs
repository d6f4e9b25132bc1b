//! `metadata.managedFields`: who owns which fields, by which verb, in which version, since when.
//!
//! Owns: the entries, their identity, order, limit and text in messages. What an entry owns stays in its encoded
//! form until somebody has to know more than FieldsV1 can answer as it is: most writes touch the fields of one
//! manager of several.
//! May not know: types, objects. Follows apimachinery `pkg/util/managedfields/internal`.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::fields_v1;
use super::set::Set;

/// More managers that update (not apply) than these are not kept apart.
pub const UPDATERS_MAX: usize = 10;
/// What updates of all those are put down to.
const ANCIENT_CHANGES: &str = "ancient-changes";
const UNKNOWN: &str = "unknown";
const FIELDS_TYPE: &str = "FieldsV1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells entries apart. An applier is the same in every version of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    pub manager: &'a str,
    pub operation: Operation,
    pub api_version: &'a str,
    pub subresource: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339, UTC, seconds.
    pub time: Option<String>,
    /// FieldsV1, in canonical form.
    pub fields: Value,
}

impl Entry {
    pub fn new(identity: Identity<'_>, set: &Set, time: &str) -> Self {
        Self::with(identity, fields_v1::encode(set), time)
    }

    /// `fields` is FieldsV1 in canonical form.
    pub fn with(identity: Identity<'_>, fields: Value, time: &str) -> Self {
        let manager = if identity.manager.is_empty() { UNKNOWN } else { identity.manager };
        Self {
            manager: manager.to_owned(),
            operation: identity.operation,
            api_version: identity.api_version.to_owned(),
            subresource: identity.subresource.to_owned(),
            time: Some(time.to_owned()),
            fields,
        }
    }

    pub fn is(&self, identity: Identity<'_>) -> bool {
        let manager = if identity.manager.is_empty() { UNKNOWN } else { identity.manager };
        self.manager == manager
            && self.operation == identity.operation
            && self.subresource == identity.subresource
            && (self.operation == Operation::Apply || self.api_version == identity.api_version)
    }

    pub fn identity(&self) -> Identity<'_> {
        let Self { manager, operation, api_version, subresource, .. } = self;
        Identity { manager, operation: *operation, api_version, subresource }
    }

    /// Entries are canonical; one that does not decode owns nothing.
    pub fn set(&self) -> Set {
        fields_v1::decode(&self.fields).unwrap_or_default()
    }

    pub fn put(&mut self, set: &Set) {
        self.fields = fields_v1::encode(set);
    }

    pub fn owns_nothing(&self) -> bool {
        self.fields.as_object().is_none_or(Map::is_empty)
    }

    /// `"kubectl" with subresource "scale" using apps/v1`
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn decode(value: &Value) -> Result<Self, String> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("");
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            FIELDS_TYPE => {}
            other => return Err(format!("invalid fieldsType {other:?}")),
        }
        let set = match value.get("fieldsV1") {
            None | Some(Value::Null) => Set::default(),
            Some(fields) => fields_v1::decode(fields)?,
        };
        Ok(Self {
            manager: text("manager").to_owned(),
            operation,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: value.get("time").and_then(Value::as_str).map(str::to_owned),
            fields: fields_v1::encode(&set),
        })
    }

    /// What [`Self::encode`] wrote, taken back without a look at the fields.
    fn stored(value: Value) -> Option<Self> {
        let Value::Object(mut value) = value else { return None };
        let mut text = |field: &str| match value.remove(field) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        Some(Self {
            manager: text("manager")?,
            operation: if text("operation")? == Operation::Apply.name() { Operation::Apply } else { Operation::Update },
            api_version: text("apiVersion")?,
            subresource: text("subresource").unwrap_or_default(),
            time: text("time"),
            fields: value.remove("fieldsV1")?,
        })
    }

    fn encode(self) -> Value {
        let mut value = Map::new();
        value.insert("manager".to_owned(), self.manager.into());
        value.insert("operation".to_owned(), self.operation.name().into());
        value.insert("apiVersion".to_owned(), self.api_version.into());
        value.insert("fieldsType".to_owned(), FIELDS_TYPE.into());
        value.insert("fieldsV1".to_owned(), self.fields);
        if let Some(time) = self.time {
            value.insert("time".to_owned(), time.into());
        }
        if !self.subresource.is_empty() {
            value.insert("subresource".to_owned(), self.subresource.into());
        }
        Value::Object(value)
    }

    /// Order within `managedFields`: appliers first, then by age and name.
    fn cmp_listed(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| {
            let Self { operation, time, manager, api_version, subresource, .. } = entry;
            (*operation, time.clone(), manager.clone(), api_version.clone(), subresource.clone())
        };
        key(self).cmp(&key(other))
    }
}

/// All entries of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Managers {
    pub entries: Vec<Entry>,
}

impl Managers {
    /// From an object as it is stored.
    pub fn stored(object: &Value) -> Self {
        Self::of(listed(object).unwrap_or_default().to_vec())
    }

    /// From the `managedFields` of a stored object.
    pub fn of(list: Vec<Value>) -> Self {
        Self { entries: list.into_iter().filter_map(Entry::stored).collect() }
    }

    /// From what a client sent.
    ///
    /// # Errors
    /// Says what an entry lacks.
    pub fn sent(list: &[Value]) -> Result<Self, String> {
        let mut managers = Self::default();
        for entry in list {
            let entry = Entry::decode(entry)?;
            managers.entries.retain(|other| !other.is(entry.identity()));
            managers.entries.push(entry);
        }
        Ok(managers)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn position(&self, identity: Identity<'_>) -> Option<usize> {
        self.entries.iter().position(|entry| entry.is(identity))
    }

    /// The value of `metadata.managedFields`; `None` when nobody owns anything.
    pub fn encode(mut self) -> Option<Value> {
        self.entries.retain(|entry| !entry.owns_nothing());
        self.entries.sort_by(Entry::cmp_listed);
        let list: Vec<Value> = self.entries.into_iter().map(Entry::encode).collect();
        (!list.is_empty()).then_some(Value::Array(list))
    }

    /// Unites the oldest updates of a version until there are no more than [`UPDATERS_MAX`].
    pub fn cap(&mut self) {
        let mut left = self.entries.iter().filter(|entry| entry.operation == Operation::Update).count();
        if left <= UPDATERS_MAX {
            return;
        }
        self.entries.sort_by(Entry::cmp_listed);
        let mut kept: Vec<Entry> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            let unites = entry.operation == Operation::Update && left > UPDATERS_MAX;
            let of_version =
                |other: &&mut Entry| other.operation == Operation::Update && other.api_version == entry.api_version;
            match kept.iter_mut().find(of_version).filter(|_| unites) {
                Some(bucket) => {
                    bucket.put(&bucket.set().union(&entry.set()));
                    ANCIENT_CHANGES.clone_into(&mut bucket.manager);
                    bucket.subresource.clear();
                    bucket.time = entry.time;
                    left -= 1;
                }
                None => kept.push(entry),
            }
        }
        self.entries = kept;
        self.unite_doubled();
    }

    /// A bucket may meet one of former times that is younger than what is united now.
    fn unite_doubled(&mut self) {
        let mut single: Vec<Entry> = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            match single.iter_mut().find(|other| other.is(entry.identity())) {
                Some(other) => {
                    other.put(&other.set().union(&entry.set()));
                    other.time = entry.time;
                }
                None => single.push(entry),
            }
        }
        self.entries = single;
    }
}

/// `metadata.managedFields`, when it is a list.
pub fn listed(object: &Value) -> Option<&[Value]> {
    object.get("metadata")?.get("managedFields")?.as_array().map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, time: u32, field: &str) -> Value {
        json!({ "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": format!("2026-01-01T00:00:{time:02}Z"), "fieldsV1": { format!("f:{field}"): {} } })
    }

    #[test]
    fn entries_come_back_sorted() {
        let list = [entry("b", "Update", 1, "x"), entry("z", "Apply", 9, "y"), entry("a", "Update", 1, "z")];
        let managers = Managers::sent(&list).unwrap();
        let expect = json!([list[1], list[2], list[0]]);
        assert_eq!(managers.clone().encode(), Some(expect.clone()));
        assert_eq!(
            Managers::stored(&json!({ "metadata": { "managedFields": expect.clone() } })).encode(),
            Some(expect)
        );
        assert_eq!(Managers::default().encode(), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let base = entry("m", "Update", 1, "x");
        let check = |field: &str, value: Value, expect: &str| {
            let mut entry = base.clone();
            entry[field] = value;
            assert_eq!(Managers::sent(&[entry]).unwrap_err(), expect);
        };
        check("operation", json!("Patch"), "operation must be `Apply` or `Update`");
        check("apiVersion", json!(""), "apiVersion must not be empty");
        check("fieldsType", json!("FieldsV2"), "invalid fieldsType \"FieldsV2\"");
        check("fieldsV1", json!({ "spec": {} }), "\"spec\" is no path element");
    }

    #[test]
    fn identity_ignores_the_version_of_appliers() {
        let identity = |operation, api_version| Identity { manager: "m", operation, api_version, subresource: "" };
        let applier = Entry::new(identity(Operation::Apply, "v1"), &Set::default(), "");
        assert!(applier.is(identity(Operation::Apply, "v2")) && !applier.is(identity(Operation::Update, "v1")));
        let updater = Entry::new(identity(Operation::Update, "v1"), &Set::default(), "");
        assert!(updater.is(identity(Operation::Update, "v1")) && !updater.is(identity(Operation::Update, "v2")));
        let nameless = Identity { manager: "", ..identity(Operation::Update, "v1") };
        assert!(Entry::new(nameless, &Set::default(), "").is(nameless));
    }

    #[test]
    fn descriptions() {
        let mut entry = Entry::decode(&entry("kubectl", "Update", 1, "x")).unwrap();
        assert_eq!(entry.describe(), "\"kubectl\" using v1");
        entry.subresource = "scale".to_owned();
        assert_eq!(entry.describe(), "\"kubectl\" with subresource \"scale\" using v1");
        entry.operation = Operation::Apply;
        assert_eq!(entry.describe(), "\"kubectl\" with subresource \"scale\"");
    }

    #[test]
    fn old_updates_are_united() {
        let mut list: Vec<Value> = (0..12).map(|n| entry(&format!("m{n:02}"), "Update", n, &format!("x{n}"))).collect();
        list.push(entry("applier", "Apply", 0, "y"));
        let mut managers = Managers::sent(&list).unwrap();
        managers.cap();
        let names: Vec<&str> = managers.entries.iter().map(|entry| entry.manager.as_str()).collect();
        assert_eq!(
            names,
            ["applier", "ancient-changes", "m03", "m04", "m05", "m06", "m07", "m08", "m09", "m10", "m11"]
        );
        let ancient = &managers.entries[1];
        assert_eq!(ancient.fields, json!({ "f:x0": {}, "f:x1": {}, "f:x2": {} }));
        assert_eq!(ancient.time.as_deref(), Some("2026-01-01T00:00:02Z"));
        let before = managers.clone();
        managers.cap();
        assert_eq!(managers, before);
    }
}
