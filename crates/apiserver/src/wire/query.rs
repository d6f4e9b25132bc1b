//! The query parameters of the API, read once into one value.
//!
//! Follows `ListOptions`, `GetOptions`, `CreateOptions`, `DeleteOptions` of meta/v1.

use api::apply::MANAGER_BYTES_MAX;
use api::schema::FieldValidation;
use api::status::{FieldError, Status, Subject};
use axum::extract::Query;
use http::Uri;

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevisionMatch {
    Exact,
    NotOlderThan,
}

/// Every parameter the server reads; absent ones keep their default.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: usize,
    pub continue_token: String,
    pub resource_version: String,
    pub revision_match: Option<RevisionMatch>,
    pub watch: bool,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
    pub dry_run: bool,
    pub field_manager: String,
    pub force: bool,
    pub validation: FieldValidation,
    pub include_object: String,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: String,
    pub orphan_dependents: Option<bool>,
    /// All pairs, for what is passed on (logs) or read by one subresource.
    pub pairs: Vec<(String, String)>,
}

fn flag(key: &str, value: &str) -> Result<bool, Status> {
    match value {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(Status::bad_request(format!("query parameter {key}: {value:?} is not a boolean"))),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Status> {
    value.parse().map_err(|_| Status::bad_request(format!("query parameter {key}: {value:?} is not a valid number")))
}

impl Parameters {
    pub fn parse(uri: &Uri) -> Result<Self, Status> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|e| Status::bad_request(format!("the query string does not decode: {e}")))?;
        let mut parameters = Self::default();
        for (key, value) in &pairs {
            parameters.read(key, value)?;
        }
        parameters.pairs = pairs;
        Ok(parameters)
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn read(&mut self, key: &str, value: &str) -> Result<(), Status> {
        match key {
            "labelSelector" => value.clone_into(&mut self.label_selector),
            "fieldSelector" => value.clone_into(&mut self.field_selector),
            "limit" if !value.is_empty() => self.limit = usize::try_from(number::<i64>(key, value)?).unwrap_or(0),
            "continue" => value.clone_into(&mut self.continue_token),
            "resourceVersion" => value.clone_into(&mut self.resource_version),
            "resourceVersionMatch" => self.revision_match = revision_match(value)?,
            "watch" => self.watch = flag(key, value)?,
            "allowWatchBookmarks" => self.allow_bookmarks = flag(key, value)?,
            "sendInitialEvents" => self.send_initial_events = Some(flag(key, value)?),
            "timeoutSeconds" if !value.is_empty() => self.timeout_seconds = Some(number(key, value)?),
            "dryRun" => self.dry_run = dry_run(value)?,
            "fieldManager" => value.clone_into(&mut self.field_manager),
            "force" => self.force = flag(key, value)?,
            "fieldValidation" => self.validation = validation(value)?,
            "includeObject" => value.clone_into(&mut self.include_object),
            "gracePeriodSeconds" if !value.is_empty() => self.grace_period_seconds = Some(number(key, value)?),
            "propagationPolicy" => value.clone_into(&mut self.propagation_policy),
            "orphanDependents" => self.orphan_dependents = Some(flag(key, value)?),
            _ => {}
        }
        Ok(())
    }
}

/// Which options a write takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOptions {
    Create,
    Update,
    Patch,
    /// A patch that is server-side apply.
    Apply,
}

impl WriteOptions {
    fn kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }
}

impl Parameters {
    /// Follows `meta/v1/validation` (ValidatePatchOptions and its kin).
    pub fn check(&self, options: WriteOptions) -> Result<(), Status> {
        let mut errors = Vec::new();
        let manager = self.field_manager.as_str();
        match options {
            WriteOptions::Apply if manager.is_empty() => {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            WriteOptions::Patch if self.get("force").is_some() => {
                errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
            }
            WriteOptions::Create | WriteOptions::Update | WriteOptions::Patch | WriteOptions::Apply => {}
        }
        if manager.len() > MANAGER_BYTES_MAX {
            errors.push(FieldError::too_long("fieldManager", MANAGER_BYTES_MAX));
        }
        for (at, character) in manager.char_indices().filter(|(_, c)| c.is_control()) {
            let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
            errors.push(FieldError::invalid("fieldManager", manager, detail));
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&Subject { group: "meta.k8s.io", resource: options.kind(), name: "" }, &errors))
    }
}

fn revision_match(value: &str) -> Result<Option<RevisionMatch>, Status> {
    match value {
        "" => Ok(None),
        "Exact" => Ok(Some(RevisionMatch::Exact)),
        "NotOlderThan" => Ok(Some(RevisionMatch::NotOlderThan)),
        _ => Err(Status::bad_request(format!(
            "resourceVersionMatch: Unsupported value: {value:?}: supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

/// `dryRun` has one legal value.
pub fn dry_run(value: &str) -> Result<bool, Status> {
    match value {
        "" => Ok(false),
        "All" => Ok(true),
        _ => Err(Status::bad_request(format!("dryRun: Unsupported value: {value:?}: supported values: \"All\""))),
    }
}

fn validation(value: &str) -> Result<FieldValidation, Status> {
    FieldValidation::from_query(value).ok_or_else(|| {
        Status::bad_request(format!(
            "fieldValidation: Unsupported value: {value:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Parameters, Status> {
        Parameters::parse(&format!("/api/v1/pods?{query}").parse().unwrap())
    }

    #[test]
    fn reads_parameters() {
        let p = parse("labelSelector=a%3Db%2Cc&limit=500&watch=true&allowWatchBookmarks=1&timeoutSeconds=5&dryRun=All")
            .unwrap();
        assert_eq!((p.label_selector.as_str(), p.limit, p.watch), ("a=b,c", 500, true));
        assert_eq!((p.allow_bookmarks, p.timeout_seconds, p.dry_run), (true, Some(5), true));
        let p = parse("limit=&limit=-1&sendInitialEvents=false&fieldValidation=Strict&tailLines=3").unwrap();
        assert_eq!((p.limit, p.send_initial_events, p.validation), (0, Some(false), FieldValidation::Strict));
        assert_eq!(p.get("tailLines"), Some("3"));
    }

    #[test]
    fn options_of_writes() {
        let check = |query: &str, options: WriteOptions, expect: &str| {
            let found = parse(query).unwrap().check(options).map_err(|status| (status.code, status.message));
            let expect = if expect.is_empty() { Ok(()) } else { Err((422, expect.to_owned())) };
            assert_eq!(found, expect, "{query} {options:?}");
        };
        check("", WriteOptions::Patch, "");
        check("fieldManager=me&force=true", WriteOptions::Apply, "");
        check(
            "",
            WriteOptions::Apply,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        );
        check(
            "force=false",
            WriteOptions::Patch,
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        );
        check(
            &format!("fieldManager={}", "x".repeat(129)),
            WriteOptions::Create,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes",
        );
        assert_eq!(parse("fieldManager=a%0Ab").unwrap().check(WriteOptions::Update).unwrap_err().code, 422);
    }

    #[test]
    fn refuses_nonsense() {
        for query in ["limit=x", "watch=maybe", "dryRun=Some", "fieldValidation=x", "resourceVersionMatch=x"] {
            assert_eq!(parse(query).unwrap_err().code, 400, "{query}");
        }
    }
}
