//! `cargo xtask codegen`: writes the protobuf field table of the `api` crate.
//!
//! Reads two crates' sources from cargo's registry: `k8s-pb` for field numbers and wire types,
//! `k8s-openapi` for the exact JSON names. Both are facts of Kubernetes' published `.proto` and
//! OpenAPI files. What is newer than `k8s-pb`, or there as beta only and answered all the same, is in
//! `recent-messages.txt`. The table is one text file, committed, so that a normal build needs neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// In the form of the table. Numbers never change, so that a line may stay when `k8s-pb` has it.
const RECENT: &str = include_str!("recent-messages.txt");
const OUTPUT: &str = "crates/api/src/protobuf/messages.txt";
/// API groups whose messages are left out: nobody sends them to this server. Alpha and beta versions are left out too,
/// but for what has become stable since.
const SKIPPED_PACKAGES: [&str; 4] = ["metrics", "imagepolicy", "apiserverinternal", "extensions"];

/// What Kubernetes' OpenAPI says of one struct.
struct Published {
    /// With the package.
    name: String,
    /// JSON names of the fields, by their letters and digits in lower case.
    fields: BTreeMap<String, String>,
}

/// Structs by their name in lower case: `k8s-pb` spells `HttpGetAction` what is `HTTPGetAction`.
type Names = BTreeMap<String, Published>;

pub fn run() -> Result<()> {
    let (pb, openapi) = (source_of("k8s-pb")?, source_of("k8s-openapi")?);
    let names = json_names(&newest_version(&openapi.join("src"))?)?;
    let (mut messages, mut unstable) = (BTreeMap::new(), BTreeMap::new());
    collect_messages(&pb.join("src"), &mut Vec::new(), &mut messages, &mut unstable)?;
    messages.extend(promoted(&names, &messages, unstable));
    // A message that is only ever inline has no published type of its own: its fields are named by the outer one's.
    let mut outer = BTreeMap::new();
    for (message, fields) in &messages {
        let known = names.get(&message.to_lowercase());
        let inline = fields.iter().filter(|field| is_inline(field, known, &messages));
        outer.extend(inline.filter_map(|field| Some((field.target.clone()?, known?))));
    }
    let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let spelled = |message: &str| names.get(&message.to_lowercase()).map_or(message.to_owned(), |of| of.name.clone());
    for (message, fields) in &messages {
        let lines = table.entry(spelled(message)).or_default();
        let known = names.get(&message.to_lowercase()).or_else(|| outer.get(message).copied());
        for field in fields {
            let json = known.and_then(|of| of.fields.get(&normalised(&field.name))).cloned();
            let mark = if json.is_none() && is_inline(field, known, &messages) { "^" } else { "" };
            let json = json.unwrap_or_else(|| camel_case(&field.name));
            let target = field.target.as_deref().map_or(String::new(), |target| format!(" {}", spelled(target)));
            lines.push(format!(" {} {mark}{} {json}{target}", field.tag, field.kind));
        }
    }
    add_recent(&mut table, RECENT)?;
    let mut text = String::new();
    for (message, lines) in &table {
        writeln!(text, "{message}")?;
        lines.iter().try_for_each(|line| writeln!(text, "{line}"))?;
    }
    fs::write(OUTPUT, &text).with_context(|| format!("cannot write {OUTPUT}"))?;
    println!("{OUTPUT}: {} messages", table.len());
    Ok(())
}

/// Adds the fields that the table does not have.
fn add_recent(table: &mut BTreeMap<String, Vec<String>>, recent: &str) -> Result<()> {
    let mut at = None;
    for line in recent.lines() {
        if !line.starts_with(' ') {
            at = Some(line);
            table.entry(line.to_owned()).or_default();
            continue;
        }
        let message = at.context("a field follows the name of its message")?;
        let lines = table.get_mut(message).context("the name was seen")?;
        let number = |line: &str| line.split(' ').nth(1).map(str::to_owned);
        if !lines.iter().any(|known| number(known) == number(line)) {
            lines.push(line.to_owned());
        }
    }
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
    /// One letter for the wire type, `*` before it when repeated, `%` before it for a map value. In the table, `^` before
    /// it for a message whose fields are the outer one's in JSON.
    kind: String,
    /// As Rust spells it.
    name: String,
    /// Full message name for messages.
    target: Option<String>,
}

/// Whether JSON has the fields of the target instead of this field (`json:",inline"` in Go).
fn is_inline(field: &Field, known: Option<&Published>, messages: &Messages) -> bool {
    let (Some(target), Some(known), "m") = (&field.target, known, field.kind.as_str()) else { return false };
    messages.get(target).is_some_and(|fields| {
        let belongs = |inner: &Field| {
            known.fields.contains_key(&normalised(&inner.name)) || is_inline(inner, Some(known), messages)
        };
        !fields.is_empty() && fields.iter().all(belongs)
    })
}

type Messages = BTreeMap<String, Vec<Field>>;

fn collect_messages(
    dir: &Path,
    package: &mut Vec<String>,
    stable: &mut Messages,
    unstable: &mut Messages,
) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !SKIPPED_PACKAGES.contains(&name.as_str()) {
            package.push(name);
            collect_messages(&path, package, stable, unstable)?;
            package.pop();
        } else if name == "mod.rs" {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let is_unstable = package.iter().any(|part| part.contains("alpha") || part.contains("beta"));
            parse_messages(&text, package, if is_unstable { unstable } else { stable })?;
        }
    }
    Ok(())
}

/// Messages of v1 that `k8s-pb` only has as beta or alpha: field numbers stay when a version becomes stable.
fn promoted(names: &Names, stable: &Messages, unstable: Messages) -> Messages {
    let known: BTreeSet<String> = stable.keys().map(|name| name.to_lowercase()).collect();
    let mut found = Messages::new();
    for version in ["v1beta1", "v1alpha1"] {
        let segment = format!(".{version}.");
        for (name, fields) in &unstable {
            let promoted = name.replace(&segment, ".v1.");
            let is_wanted = names.contains_key(&promoted.to_lowercase()) && !known.contains(&promoted.to_lowercase());
            if promoted == *name || !is_wanted || found.contains_key(&promoted) {
                continue;
            }
            let field = |field: &Field| Field {
                tag: field.tag,
                kind: field.kind.clone(),
                name: field.name.clone(),
                target: field.target.as_ref().map(|target| target.replace(&segment, ".v1.")),
            };
            found.insert(promoted, fields.iter().map(field).collect());
        }
    }
    found
}

fn parse_messages(text: &str, package: &[String], out: &mut Messages) -> Result<()> {
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

fn json_names(dir: &Path) -> Result<Names> {
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
            let declared = text.split_once("\npub struct ").or_else(|| text.split_once("\npub enum "));
            let Some((_, rest)) = declared else { continue };
            let of = rest.split([' ', '{', '<', '(']).next().unwrap_or("");
            let fields = text.lines().filter_map(|line| {
                let (json, _) = line.trim().split_once(" => Field::Key_")?;
                let json = json.strip_prefix('"')?.strip_suffix('"')?;
                Some((normalised(json), json.to_owned()))
            });
            let name = format!("{package}.{of}");
            names.insert(name.to_lowercase(), Published { fields: fields.collect(), name });
        }
    }
    Ok(names)
}

/// Letters and digits in lower case: the same for `x_kubernetes_map_type` and `x-kubernetes-map-type`.
fn normalised(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
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
    fn recent_fields_are_added_once() {
        let mut table = BTreeMap::from([("a.A".to_owned(), vec![" 1 s name".to_owned()])]);
        add_recent(&mut table, "a.A\n 1 s name\n 2 *s names\na.B\n 1 b yes\n").unwrap();
        let expect = BTreeMap::from([
            ("a.A".to_owned(), vec![" 1 s name".to_owned(), " 2 *s names".to_owned()]),
            ("a.B".to_owned(), vec![" 1 b yes".to_owned()]),
        ]);
        assert_eq!(table, expect);
        assert!(add_recent(&mut table, " 1 s lost").is_err());
    }

    #[test]
    fn names_without_a_schema_are_camel_case() {
        assert_eq!(camel_case("non_resource_attributes"), "nonResourceAttributes");
        assert_eq!(normalised("cluster_ip"), "clusterip");
        assert_eq!(normalised("x-kubernetes-map-type"), "xkubernetesmaptype");
    }

    #[test]
    fn fields_of_inline_messages_are_the_outer_ones() {
        let field = |name: &str, target: Option<&str>| Field {
            tag: 1,
            kind: if target.is_some() { "m" } else { "s" }.to_owned(),
            name: name.to_owned(),
            target: target.map(str::to_owned),
        };
        let messages = BTreeMap::from([
            ("a.Source".to_owned(), vec![field("host_path", Some("a.HostPath")), field("more", Some("a.More"))]),
            ("a.More".to_owned(), vec![field("nfs", None)]),
            ("a.Other".to_owned(), vec![field("unknown", None)]),
        ]);
        let fields = ["name", "hostPath", "nfs"].map(|json| (normalised(json), json.to_owned()));
        let volume = Published { name: "a.Volume".to_owned(), fields: fields.into() };
        let check = |target: &str, expect: bool| {
            assert_eq!(is_inline(&field("x", Some(target)), Some(&volume), &messages), expect, "{target}");
        };
        check("a.Source", true);
        check("a.Other", false);
        check("a.Missing", false);
    }
}
