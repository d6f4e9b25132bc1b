//! Configuration files in the forms of Kubernetes: YAML or JSON that says its own kind and version.
//!
//! Owns: opening one, and the errors of what cannot be used. May not know: paths, when files are read, any of the forms.

use serde::de::DeserializeOwned;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigFileError {
    #[error("the file is no {kind}: {source}")]
    Parse { kind: &'static str, source: serde_yaml_ng::Error },
    #[error("the file is {}, not {wanted} {kind}", found.trim())]
    Kind { kind: &'static str, wanted: &'static str, found: String },
    #[error("{field}: {why}")]
    Field { field: String, why: String },
}

/// What is wrong with one field.
pub fn wrong(field: impl Into<String>, why: impl Into<String>) -> ConfigFileError {
    ConfigFileError::Field { field: field.into(), why: why.into() }
}

/// One form of file.
pub trait ConfigFile: DeserializeOwned {
    const KIND: &'static str;
    /// Those that are read, the one to write first.
    const API_VERSIONS: &'static [&'static str];

    /// `apiVersion` and `kind` as the file has them.
    fn type_of(&self) -> (&str, &str);

    /// Whether it is of this form.
    fn check_type(&self) -> Result<(), ConfigFileError> {
        let (api_version, kind) = self.type_of();
        if kind == Self::KIND && Self::API_VERSIONS.contains(&api_version) {
            return Ok(());
        }
        let (wanted, found) = (Self::API_VERSIONS[0], format!("{api_version} {kind}"));
        Err(ConfigFileError::Kind { kind: Self::KIND, wanted, found })
    }
}

/// Reads a file of a form.
pub fn open<F: ConfigFile>(text: &str) -> Result<F, ConfigFileError> {
    let parsed = serde_yaml_ng::from_str(text);
    let file: F = parsed.map_err(|source| ConfigFileError::Parse { kind: F::KIND, source })?;
    file.check_type()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "camelCase", default, deny_unknown_fields)]
    struct File {
        api_version: String,
        kind: String,
        size: u32,
    }

    impl ConfigFile for File {
        const KIND: &'static str = "Box";
        const API_VERSIONS: &'static [&'static str] = &["boxes.dev/v1", "boxes.dev/v1beta1"];

        fn type_of(&self) -> (&str, &str) {
            (&self.api_version, &self.kind)
        }
    }

    #[test]
    fn files_say_what_they_are() {
        let check = |text: &str, expect: Result<u32, &str>| {
            let found = open::<File>(text).map(|file| file.size).map_err(|error| error.to_string());
            match (&found, expect) {
                (Ok(found), Ok(expect)) => assert_eq!(*found, expect),
                (Err(found), Err(expect)) => assert!(found.starts_with(expect), "{text}: {found}"),
                _ => panic!("{text}: {found:?}"),
            }
        };
        check("apiVersion: boxes.dev/v1\nkind: Box\nsize: 3", Ok(3));
        check("{\"apiVersion\": \"boxes.dev/v1beta1\", \"kind\": \"Box\"}", Ok(0));
        check("apiVersion: v1\nkind: Pod", Err("the file is v1 Pod, not boxes.dev/v1 Box"));
        check("{}", Err("the file is , not boxes.dev/v1 Box"));
        check("kind: [", Err("the file is no Box: "));
        check("apiVersion: boxes.dev/v1\nkind: Box\ncolour: red", Err("the file is no Box: unknown field `colour`"));
        assert_eq!(wrong("size", "too large").to_string(), "size: too large");
    }
}
