//! `knarr image …`: packs and moves images without a daemon.
//!
//! Everything is put together in a store of its own in a temporary directory and then pushed, so
//! these commands need a kubeconfig and neither root nor the server's files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cri::{ImageService, PlatformPreference, PullRequest};
use image::build::{self, BuildOptions, ImageFile, StartConfig};
use image::{Digest, ImageStore, Images, Reference};
use serde_json::{Value, json};

use crate::access::Access;
use crate::cli::{AccessArgs, ImageCommand, Output};
use crate::registry_client::RegistryClient;

/// Of a digest, in a tag that stands for content.
const CONTENT_TAG_DIGITS: usize = 16;

pub async fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Build { path, tag, entrypoint, compat, access } => {
            let target = Target::parse(&tag)?;
            let scratch = Scratch::new()?;
            let digest = build_any(&scratch.store, &path, &entrypoint, compat)?;
            push(&access, &scratch.store, &digest, &target).await
        }
        ImageCommand::Push { path, tag, access } => {
            let target = Target::parse(&tag)?;
            let scratch = Scratch::new()?;
            let digest = import_layout(&scratch.store, &path)?;
            push(&access, &scratch.store, &digest, &target).await
        }
        ImageCommand::Pull { reference, tag, access } => pull(&reference, tag, &access).await,
        ImageCommand::Ls { output, access } => list(output, &access).await,
    }
}

/// Name and tag in the embedded registry.
struct Target {
    repository: String,
    tag: String,
}

impl Target {
    fn parse(text: &str) -> Result<Self> {
        let reference = Reference::parse(text).with_context(|| format!("{text:?} is no image name"))?;
        let tag = reference.tag_or_latest().to_owned();
        Ok(Self { repository: reference.repository, tag })
    }
}

/// A content store that lives as long as the command.
struct Scratch {
    store: Arc<ImageStore>,
    _dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        Ok(Self { store: ImageStore::open(dir.path())?, _dir: dir })
    }
}

fn build_any(store: &ImageStore, path: &Path, entrypoint: &[String], compat: bool) -> Result<Digest> {
    let untagged = BuildOptions { repository: "build", tag: "" };
    let mut start = StartConfig { entrypoint: entrypoint.to_vec(), ..StartConfig::default() };
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.is_dir() {
        if entrypoint.is_empty() {
            bail!("a directory needs --entrypoint: which program of it should run?");
        }
        return Ok(build::linux_directory(store, path, &start, &untagged)?);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.starts_with(b"\x7fELF") {
        let file = ImageFile { path: "/app", mode: 0o755, content: &bytes };
        if entrypoint.is_empty() {
            start.entrypoint = vec!["/app".to_owned()];
        }
        return Ok(build::linux_files(store, &[file], &start, &untagged)?);
    }
    let built = if compat {
        build::wasm_compat(store, &bytes, &untagged)
    } else {
        build::wasm_artifact(store, &bytes, &untagged)
    };
    built.with_context(|| format!("cannot pack {}", path.display()))
}

/// Reads an OCI image layout; the first manifest of its `index.json` is taken.
fn import_layout(store: &ImageStore, path: &Path) -> Result<Digest> {
    let index_path = path.join("index.json");
    let text = fs::read_to_string(&index_path)
        .with_context(|| format!("{} is no OCI layout: cannot read index.json", path.display()))?;
    let index: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", index_path.display()))?;
    for entry in fs::read_dir(path.join("blobs/sha256")).context("the layout has no blobs/sha256")? {
        let file = entry.context("cannot list the layout's blobs")?.path();
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let digest = store.put_blob(&bytes)?;
        if file.file_name().is_none_or(|name| name != digest.hex()) {
            bail!("blob {} has digest {digest}: the layout is damaged", file.display());
        }
    }
    let digest =
        index.pointer("/manifests/0/digest").and_then(Value::as_str).context("index.json names no manifest")?;
    Ok(digest.parse()?)
}

/// Packs a file and pushes it under a tag of its content. Answers the image's name for nodes.
pub(super) async fn pack_and_push(registry: &RegistryClient, path: &Path, repository: &str) -> Result<String> {
    let scratch = Scratch::new()?;
    let digest = build_any(&scratch.store, path, &[], false)?;
    let tag = &digest.hex()[..CONTENT_TAG_DIGITS];
    registry.push(&scratch.store, &digest, repository, tag).await?;
    Ok(format!("registry.local/{repository}:{tag}"))
}

async fn push(access: &AccessArgs, store: &ImageStore, digest: &Digest, target: &Target) -> Result<()> {
    let access = Access::load(access).await?;
    let registry = RegistryClient::new(&access)?;
    registry.push(store, digest, &target.repository, &target.tag).await?;
    println!("registry.local/{}:{}@{digest}", target.repository, target.tag);
    Ok(())
}

async fn pull(reference: &str, tag: Option<String>, access: &AccessArgs) -> Result<()> {
    let parsed = Reference::parse(reference).with_context(|| format!("{reference:?} is no image name"))?;
    let default = format!("{}:{}", parsed.repository, parsed.tag_or_latest());
    let target = Target::parse(&tag.unwrap_or(default))?;
    let scratch = Scratch::new()?;
    let images = Images::new(Arc::clone(&scratch.store), Vec::new());
    let request =
        PullRequest { reference: reference.to_owned(), preference: PlatformPreference::WasmFirst, auth: None };
    let image = images.pull(request).await?;
    push(access, &scratch.store, &image.manifest_digest.parse()?, &target).await
}

async fn list(output: Output, access: &AccessArgs) -> Result<()> {
    let registry = RegistryClient::new(&Access::load(access).await?)?;
    let catalog = registry.get("/v2/_catalog").await?;
    let mut rows = Vec::new();
    for repository in catalog["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let tags = registry.get(&format!("/v2/{repository}/tags/list")).await?;
        for tag in tags["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let manifest = registry.get(&format!("/v2/{repository}/manifests/{tag}")).await?;
            let size: u64 =
                manifest["layers"].as_array().into_iter().flatten().filter_map(|l| l["size"].as_u64()).sum();
            let kind = match (manifest.get("manifests"), manifest.pointer("/config/mediaType")) {
                (Some(_), _) => "index",
                (None, Some(t)) if t.as_str().is_some_and(|t| t.contains("wasm")) => "wasm",
                _ => "image",
            };
            rows.push(json!({ "name": format!("registry.local/{repository}:{tag}"), "kind": kind, "sizeBytes": size }));
        }
    }
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Text => {
            println!("{:<56} {:<6} {:>12}", "NAME", "KIND", "BYTES");
            for row in &rows {
                println!(
                    "{:<56} {:<6} {:>12}",
                    row["name"].as_str().unwrap_or(""),
                    row["kind"].as_str().unwrap_or(""),
                    row["sizeBytes"].as_u64().unwrap_or(0)
                );
            }
        }
    }
    Ok(())
}
