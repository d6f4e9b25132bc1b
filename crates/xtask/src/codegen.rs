//! `cargo xtask codegen`: writes the protobuf field table of the `api` crate.
//!
//! Reads two crates' sources from cargo's registry: `k8s-pb` for field numbers and wire types,
//! `k8s-openapi` for the exact JSON names. Both are facts of Kubernetes' published `.proto` and
//! OpenAPI files. The table is one text file, committed, so that a normal build needs neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const OUTPUT: &str = "crates/api/src/protobuf/messages.txt";
/// API groups whose messages are left out: nobody sends them to this server. Alpha and beta versions
/// are left out too.
const SKIPPED_PACKAGES: [&str; 5] = ["metrics", "kube_aggregator", "imagepolicy", "apiserverinternal", "extensions"];

/// JSON names of one struct's fields, by the name without underscores in lower case.
type Names = BTreeMap<String, String>;

pub fn run() -> Result<()> {
    let (pb, openapi) = (source_of("k8s-pb")?, source_of("k8s-openapi")?);
    let names = json_names(&newest_version(&openapi.join("src"))?)?;
    let mut messages = BTreeMap::new();
    collect_messages(&pb.join("src"), &mut Vec::new(), &mut messages)?;
    let mut text = String::new();
    for (message, fields) in &messages {
        writeln!(text, "{message}")?;
        let known = names.get(message);
        for field in fields {
            let key = normalised(&field.name);
            let json = known.and_then(|n| n.get(&key)).cloned().unwrap_or_else(|| camel_case(&field.name));
            writeln!(text, " {} {} {json}{}", field.tag, field.kind, field.target_text())?;
        }
    }
    fs::write(OUTPUT, &text).with_context(|| format!("cannot write {OUTPUT}"))?;
    println!("{OUTPUT}: {} messages", messages.len());
    Ok(())
}

/// The folder of a package's sources in cargo's registry.
fn source_of(package: &str) -> Result<PathBuf> {
    let arguments = ["metadata", "--format-version", "1", "--features", "xtask/codegen"];
    let output = Command::new("cargo").args(arguments).output().context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata did not answer JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let found = packages.iter().find(|p| p["name"] == package).and_then(|p| p["manifest_path"].as_str());
    let manifest = found.with_context(|| format!("{package} is not in the dependency graph"))?;
    Ok(Path::new(manifest).parent().context("a manifest is in a folder")?.to_owned())
}

fn newest_version(src: &Path) -> Result<PathBuf> {
    let mut versions = BTreeSet::new();
    for entry in fs::read_dir(src).with_context(|| format!("cannot list {}", src.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("v1_")) {
            versions.insert(path);
        }
    }
    versions.pop_last().context("k8s-openapi has no v1_* folder")
}

struct Field {
    tag: u32,
    /// One letter for the wire type, `*` before it when repeated, `%` before it for a map value.
    kind: String,
    /// As Rust spells it.
    name: String,
    /// Full message name for messages.
    target: Option<String>,
}

impl Field {
    fn target_text(&self) -> String {
        self.target.as_ref().map_or(String::new(), |t| format!(" {t}"))
    }
}

fn collect_messages(dir: &Path, package: &mut Vec<String>, out: &mut BTreeMap<String, Vec<Field>>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let is_stable = !(name.contains("alpha") || name.contains("beta"));
        if path.is_dir() && is_stable && !SKIPPED_PACKAGES.contains(&name.as_str()) {
            package.push(name);
            collect_messages(&path, package, out)?;
            package.pop();
        } else if name == "mod.rs" {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            parse_messages(&text, package, out)?;
        }
    }
    Ok(())
}

fn parse_messages(text: &str, package: &[String], out: &mut BTreeMap<String, Vec<Field>>) -> Result<()> {
    let mut current: Option<(String, Vec<Field>)> = None;
    let mut attribute: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.split([' ', '{']).next()) {
            current = Some((format!("{}.{name}", full_package(package)), Vec::new()));
            if line.ends_with("{}") {
                out.extend(current.take());
            }
        } else if line == "}" {
            out.extend(current.take());
        } else if let Some(inner) = line.strip_prefix("#[prost(").and_then(|r| r.strip_suffix(")]")) {
            attribute = Some(inner.to_owned());
        } else if let (Some(rest), Some(attributes)) = (line.strip_prefix("pub "), attribute.take()) {
            let mut declaration = rest.to_owned();
            let is_whole = |text: &str| text.ends_with(',') && text.matches('<').count() == text.matches('>').count();
            while !is_whole(&declaration) {
                declaration.push(' ');
                declaration.push_str(lines.next().context("a field ends with a comma")?.trim());
            }
            let (_, fields) = current.as_mut().context("a field is inside a struct")?;
            fields.push(field(&attributes, &declaration, package)?);
        }
    }
    Ok(())
}

fn full_package(package: &[String]) -> String {
    format!("io.k8s.{}", package.join("."))
}

fn field(attributes: &str, declaration: &str, package: &[String]) -> Result<Field> {
    let (name, rust_type) = declaration.split_once(": ").context("a field has a type")?;
    let tag = attributes.rsplit_once("tag = \"").or_else(|| attributes.rsplit_once("tag=\""));
    let tag = tag.and_then(|(_, t)| t.split('"').next()).context("a field has a tag")?.parse()?;
    let (mark, wire) = if let Some(map) = attributes.strip_prefix("btree_map = \"string, ") {
        ("%", map.split('"').next().unwrap_or(""))
    } else if attributes.contains("repeated") {
        ("*", attributes.split([',', ' ']).next().unwrap_or(""))
    } else {
        ("", attributes.split([',', ' ']).next().unwrap_or(""))
    };
    let letter = match wire {
        "string" => "s",
        "bool" => "b",
        "int32" | "int64" => "i",
        "double" => "d",
        "bytes" => "y",
        "message" => "m",
        other => bail!("unknown wire type {other:?} in {attributes:?}"),
    };
    let target = (letter == "m").then(|| resolve(rust_type, package)).transpose()?;
    Ok(Field { tag, kind: format!("{mark}{letter}"), name: name.trim_start_matches("r#").to_owned(), target })
}

/// `Option<super::super::core::v1::Pod>` seen from a package, as a full message name.
fn resolve(rust_type: &str, package: &[String]) -> Result<String> {
    let inner = rust_type.trim_end_matches([',', '>', ' ']);
    let path = inner.rsplit(['<', ' ']).next().context("a type has a name")?;
    let mut at: Vec<&str> = package.iter().map(String::as_str).collect();
    for segment in path.split("::") {
        match segment {
            "super" => {
                at.pop().context("super:: stays inside the crate")?;
            }
            other => at.push(other),
        }
    }
    Ok(format!("io.k8s.{}", at.join(".")))
}

fn json_names(dir: &Path) -> Result<BTreeMap<String, Names>> {
    let mut names = BTreeMap::new();
    let mut open = vec![(dir.to_owned(), "io.k8s".to_owned())];
    while let Some((dir, package)) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                open.push((path, format!("{package}.{name}")));
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let Some((_, rest)) = text.split_once("\npub struct ") else { continue };
            let of = rest.split([' ', '{', '<', '(']).next().unwrap_or("");
            let fields = text.lines().filter_map(|line| {
                let (json, _) = line.trim().split_once(" => Field::Key_")?;
                let json = json.strip_prefix('"')?.strip_suffix('"')?;
                Some((json.to_lowercase(), json.to_owned()))
            });
            names.insert(format!("{package}.{of}"), fields.collect());
        }
    }
    Ok(names)
}

fn normalised(name: &str) -> String {
    name.replace('_', "").to_lowercase()
}

fn camel_case(name: &str) -> String {
    let mut out = String::new();
    for (index, part) in name.split('_').filter(|p| !p.is_empty()).enumerate() {
        let mut letters = part.chars();
        match letters.next() {
            Some(first) if index > 0 => out.extend(first.to_uppercase()),
            Some(first) => out.push(first),
            None => {}
        }
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let package = ["api", "apps", "v1"].map(str::to_owned);
        let check = |attributes: &str, declaration: &str, expect: (u32, &str, &str, Option<&str>)| {
            let field = field(attributes, declaration, &package).unwrap();
            assert_eq!((field.tag, field.kind.as_str(), field.name.as_str(), field.target.as_deref()), expect);
        };
        check("string, repeated, tag = \"3\"", "command: Vec<String>,", (3, "*s", "command", None));
        check("bytes = \"vec\", optional, tag = \"1\"", "raw: Option<Vec<u8>>,", (1, "y", "raw", None));
        check(
            "message, optional, tag = \"2\"",
            "spec: ::core::option::Option<super::super::core::v1::PodSpec>,",
            (2, "m", "spec", Some("io.k8s.api.core.v1.PodSpec")),
        );
        check(
            "btree_map = \"string, message\", tag = \"1\"",
            "limits: ::prost::alloc::collections::BTreeMap<::prost::alloc::string::String, super::Quantity>,",
            (1, "%m", "limits", Some("io.k8s.api.apps.Quantity")),
        );
    }

    #[test]
    fn names_without_a_schema_are_camel_case() {
        assert_eq!(camel_case("non_resource_attributes"), "nonResourceAttributes");
        assert_eq!(normalised("cluster_ip"), "clusterip");
    }
}
