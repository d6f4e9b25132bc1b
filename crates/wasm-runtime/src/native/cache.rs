//! The cache of native code by (digest of the Wasm bytes, engine compatibility).
//!
//! Layout: `<digest hex>-<compatibility>.cwasm` and `….json` (description and seal), written to a
//! temporary name, synced, renamed; the `.json` goes last, so a code file without one is garbage.
//! What is not in it is had from elsewhere, if there is somebody to ask, or compiled.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::artifact::{self, Description, InspectError};
use crate::confine::Confinement;
use crate::keyed_locks::KeyedLocks;
use crate::native::compile::{self, CompileError, CompilerProcess};
use crate::native::elsewhere::{self, CODE_BYTES_MAX, CodeSource, Wanted};
use crate::native::expiry;
use crate::native::seal::SealKey;
use crate::native::slots::FairSlots;
use crate::{engine, offer};

/// Largest Wasm file that is compiled.
pub const WASM_BYTES_MAX: u64 = 256 << 20;
/// Compilers at a time: each takes every core for seconds and up to a gigabyte.
const COMPILERS_MAX: usize = 2;
/// Images that others are asked for at a time: it costs this machine little.
const ASKED_MAX: usize = 4;

/// An unprivileged host reads it again through the descriptor it was passed; by its path nobody
/// else can, because the directory is 0700.
const CODE_MODE: u32 = 0o644;

/// Sealed native code, open for reading, and what it is.
#[derive(Debug)]
pub struct NativeCode {
    pub file: File,
    pub description: Description,
    pub bytes: u64,
    /// Of the code: 64 hex digits.
    pub sha256: String,
}

/// A file that is to be run.
#[derive(Debug, Clone, Copy)]
pub struct WasmFile<'a> {
    pub path: &'a Path,
    /// `sha256:…` of its bytes.
    pub digest: &'a str,
    /// `sha256:…` of the manifest of the image that it is of.
    pub manifest: &'a str,
    /// Of the pod that waits for it.
    pub namespace: &'a str,
}

/// Where native code is kept, and how it is compiled.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Made with mode 0700.
    pub dir: PathBuf,
    /// Re-executed as `internal wasm-compile`.
    pub helper_binary: PathBuf,
    /// The user that compilers become when this process is root.
    pub uid_gid: Option<(u32, u32)>,
    /// Parent of the compilers' cgroup.
    pub cgroup: String,
}

/// Why an image cannot be made ready to run.
#[derive(Debug, Error)]
pub enum PrepareError {
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("its file has digest {found}, the manifest says {expected}")]
    Digest { expected: String, found: String },
    #[error("its file is {bytes} bytes, the limit is {WASM_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error("{}", offer::explain_missing(.imports))]
    MissingImports { imports: Vec<String> },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("cannot {attempt}")]
    Io {
        attempt: String,
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Sidecar {
    description: Description,
    seal: String,
}

pub struct NativeCache {
    dir: PathBuf,
    key: SealKey,
    compiler: CompilerProcess,
    compilers: FairSlots,
    asked: FairSlots,
    in_flight: KeyedLocks,
}

impl std::fmt::Debug for NativeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeCache").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl NativeCache {
    pub fn open(config: NativeConfig) -> io::Result<Self> {
        let NativeConfig { dir, helper_binary, uid_gid, cgroup } = config;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let key = SealKey::open(&dir.join("key"))?;
        let uid_gid = uid_gid.filter(|_| nix::unistd::geteuid().is_root());
        let confinement = Confinement { cgroup: Some(format!("{cgroup}/wasm-compile")), netns: None, uid_gid };
        let compiler = CompilerProcess { helper_binary, confinement };
        let (compilers, asked) = (FairSlots::new(COMPILERS_MAX), FairSlots::new(ASKED_MAX));
        Ok(Self { dir, key, compiler, compilers, asked, in_flight: KeyedLocks::default() })
    }

    /// Native code for the Wasm file: from the cache, from `source`, or compiled now.
    pub async fn prepare(
        &self,
        wasm: WasmFile<'_>,
        source: Option<&dyn CodeSource>,
    ) -> Result<NativeCode, PrepareError> {
        if let Some(code) = self.find(wasm.digest) {
            return Ok(code);
        }
        let _alone = self.in_flight.lock(wasm.digest).await;
        if let Some(code) = self.find(wasm.digest) {
            return Ok(code);
        }
        let description = check(wasm.path, wasm.digest)?;
        if let Some(source) = source
            && let Some(code) = self.ask(wasm, &description, source).await?
        {
            return Ok(code);
        }
        let _slot = self.compilers.take(wasm.namespace).await;
        let began = Instant::now();
        let (staged, output) = self.stage(wasm.digest)?;
        compile::run(&self.compiler, wasm.path, &output, description.format).await?;
        let code = self.keep(wasm.digest, description, (staged, output))?;
        let (digest, seconds) = (wasm.digest, began.elapsed().as_secs_f32());
        tracing::info!(digest, namespace = wasm.namespace, bytes = code.bytes, seconds, "native code was compiled");
        Ok(code)
    }

    /// The code as somebody else has compiled it; `None`: it has to be compiled here.
    async fn ask(
        &self,
        wasm: WasmFile<'_>,
        description: &Description,
        source: &dyn CodeSource,
    ) -> Result<Option<NativeCode>, PrepareError> {
        let _slot = self.asked.take(wasm.namespace).await;
        let WasmFile { digest, manifest, namespace, .. } = wasm;
        let wanted = Wanted { digest, manifest, compatibility: engine::compatibility(), namespace };
        let found = match source.code(wanted).await {
            Ok(found) => found,
            Err(why) => {
                tracing::info!(digest, namespace, %why, "native code is compiled on this machine");
                return Ok(None);
            }
        };
        let (staged, output) = self.stage(digest)?;
        let from = found.from.clone();
        if let Err(why) = elsewhere::receive(found, &output, CODE_BYTES_MAX).await {
            tracing::warn!(digest, namespace, from, %why, "native code from another machine is not used");
            return Ok(None);
        }
        let code = self.keep(digest, description.clone(), (staged, output))?;
        tracing::info!(digest, namespace, from, bytes = code.bytes, "native code was received");
        Ok(Some(code))
    }

    /// An empty file that is removed unless it is kept.
    fn stage(&self, digest: &str) -> Result<(Staged, File), PrepareError> {
        let (code_path, _) = self.paths(digest);
        let path = code_path.with_extension(format!("cwasm.tmp-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.create(true).truncate(true).write(true).read(true).mode(CODE_MODE);
        let output = options.open(&path).map_err(failed("create", &path))?;
        Ok((Staged(path), output))
    }

    /// Seals what was staged.
    fn keep(
        &self,
        digest: &str,
        description: Description,
        (staged, output): (Staged, File),
    ) -> Result<NativeCode, PrepareError> {
        let (code_path, sidecar_path) = self.paths(digest);
        let staged = &staged.0;
        output.sync_all().map_err(failed("sync", staged))?;
        let code = std::fs::read(staged).map_err(failed("read", staged))?;
        std::fs::rename(staged, &code_path).map_err(failed("rename", staged))?;
        let sidecar = self.sidecar(&code, description, &code_path);
        drop(code);
        crate::durable::write(&sidecar_path, &serde_json::to_vec(&sidecar).expect("a sidecar is plain data"))
            .map_err(failed("write", &sidecar_path))?;
        self.find(digest).ok_or_else(|| PrepareError::Io {
            attempt: format!("read back {}", code_path.display()),
            source: io::Error::other("its seal does not match"),
        })
    }

    fn sidecar(&self, code: &[u8], description: Description, code_path: &Path) -> Sidecar {
        let seal =
            self.key.seal(&sealed_parts(&digest_of(code), &description, code_path).each_ref().map(Vec::as_slice));
        Sidecar { description, seal }
    }

    /// The sealed code if it is whole; anything else is treated as absent and compiled anew.
    pub fn find(&self, digest: &str) -> Option<NativeCode> {
        let (code_path, sidecar_path) = self.paths(digest);
        let sidecar: Sidecar = serde_json::from_slice(&std::fs::read(&sidecar_path).ok()?).ok()?;
        let mut file = File::open(&code_path).ok()?;
        let mut code = Vec::new();
        file.read_to_end(&mut code).ok()?;
        let found = digest_of(&code);
        let parts = sealed_parts(&found, &sidecar.description, &code_path);
        if !self.key.matches(&parts.each_ref().map(Vec::as_slice), &sidecar.seal) {
            tracing::warn!(file = %code_path.display(), "native code does not match its seal, compiling it again");
            return None;
        }
        file.rewind().ok()?;
        expiry::note_use(&sidecar_path, SystemTime::now());
        Some(NativeCode {
            file,
            description: sidecar.description,
            bytes: code.len() as u64,
            sha256: hex::encode(found),
        })
    }

    /// Removes code that was not used for so long, but for that of these Wasm files (`sha256:…`). Answers the bytes that
    /// are free then. Blocking.
    pub fn expire(&self, in_use: &BTreeSet<String>, unused_for: Duration) -> io::Result<u64> {
        expiry::expire(&self.dir, in_use, unused_for, SystemTime::now())
    }

    fn paths(&self, digest: &str) -> (PathBuf, PathBuf) {
        let hex = digest.rsplit(':').next().unwrap_or(digest);
        let safe: String = hex.chars().filter(char::is_ascii_alphanumeric).collect();
        let stem = format!("{safe}-{}", engine::compatibility());
        (self.dir.join(format!("{stem}.cwasm")), self.dir.join(format!("{stem}.json")))
    }
}

/// What the seal covers: the code's digest, what it is said to be, and under which name it lies.
fn sealed_parts(code_digest: &[u8], description: &Description, path: &Path) -> [Vec<u8>; 3] {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned().into_bytes()).unwrap_or_default();
    let described = serde_json::to_vec(description).expect("a description is plain data");
    [code_digest.to_vec(), described, name]
}

fn digest_of(code: &[u8]) -> [u8; 32] {
    Sha256::digest(code).into()
}

fn failed(attempt: &str, path: &Path) -> impl FnOnce(io::Error) -> PrepareError {
    let attempt = format!("{attempt} {}", path.display());
    move |source| PrepareError::Io { attempt, source }
}

/// A file under a temporary name. What was kept has another name already.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads and judges the Wasm file itself.
fn check(wasm: &Path, digest: &str) -> Result<Description, PrepareError> {
    let io = |source| PrepareError::Io { attempt: format!("read {}", wasm.display()), source };
    let bytes = std::fs::metadata(wasm).map_err(io)?.len();
    if bytes > WASM_BYTES_MAX {
        return Err(PrepareError::TooLarge { bytes });
    }
    let bytes = std::fs::read(wasm).map_err(io)?;
    let description = artifact::inspect(&bytes)?;
    let found = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    if found != digest {
        return Err(PrepareError::Digest { expected: digest.to_owned(), found });
    }
    let imports = offer::missing_imports(&description);
    if imports.is_empty() { Ok(description) } else { Err(PrepareError::MissingImports { imports }) }
}
