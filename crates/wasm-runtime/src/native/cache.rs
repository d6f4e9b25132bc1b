//! The cache of native code by (digest of the Wasm bytes, engine compatibility).
//!
//! Layout: `<digest hex>-<compatibility>.cwasm` and `….json` (description and seal), written to a
//! temporary name, synced, renamed; the `.json` goes last, so a code file without one is garbage.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::artifact::{self, Description, InspectError};
use crate::keyed_locks::KeyedLocks;
use crate::native::compile::{self, CompileError, CompilerProcess};
use crate::native::seal::SealKey;
use crate::{engine, offer};

/// Largest Wasm file that is compiled.
pub const WASM_BYTES_MAX: u64 = 256 << 20;
/// Compilers at a time: each takes every core for seconds and up to a gigabyte.
const COMPILERS_MAX: usize = 2;

/// An unprivileged host reads it again through the descriptor it was passed; by its path nobody
/// else can, because the directory is 0700.
const CODE_MODE: u32 = 0o644;

/// Sealed native code, open for reading, and what it is.
#[derive(Debug)]
pub struct NativeCode {
    pub file: File,
    pub description: Description,
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
    compilers: Semaphore,
    in_flight: KeyedLocks,
}

impl NativeCache {
    pub fn open(dir: PathBuf, compiler: CompilerProcess) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let key = SealKey::open(&dir.join("key"))?;
        Ok(Self { dir, key, compiler, compilers: Semaphore::new(COMPILERS_MAX), in_flight: KeyedLocks::default() })
    }

    /// Native code for the Wasm file, from the cache or compiled now.
    pub async fn prepare(&self, wasm: &Path, digest: &str) -> Result<NativeCode, PrepareError> {
        if let Some(code) = self.lookup(digest) {
            return Ok(code);
        }
        let _alone = self.in_flight.lock(digest).await;
        if let Some(code) = self.lookup(digest) {
            return Ok(code);
        }
        let description = check(wasm, digest)?;
        let _permit = self.compilers.acquire().await.expect("the semaphore is never closed");
        self.compile(wasm, digest, description).await
    }

    async fn compile(&self, wasm: &Path, digest: &str, description: Description) -> Result<NativeCode, PrepareError> {
        let (code_path, sidecar_path) = self.paths(digest);
        let staged = code_path.with_extension(format!("cwasm.tmp-{}", std::process::id()));
        let io = |attempt: &str, path: &Path| {
            let attempt = format!("{attempt} {}", path.display());
            move |source| PrepareError::Io { attempt, source }
        };
        let output = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .read(true)
            .mode(CODE_MODE)
            .open(&staged)
            .map_err(io("create", &staged))?;
        let compiled = compile::run(&self.compiler, wasm, &output, description.format).await;
        let result = compiled.map_err(PrepareError::from).and_then(|()| {
            output.sync_all().map_err(io("sync", &staged))?;
            let code = std::fs::read(&staged).map_err(io("read", &staged))?;
            std::fs::rename(&staged, &code_path).map_err(io("rename", &staged))?;
            let sidecar = self.sidecar(&code, description, &code_path);
            crate::durable::write(&sidecar_path, &serde_json::to_vec(&sidecar).expect("a sidecar is plain data"))
                .map_err(io("write", &sidecar_path))
        });
        if result.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        result?;
        self.lookup(digest).ok_or_else(|| PrepareError::Io {
            attempt: format!("read back {}", code_path.display()),
            source: io::Error::other("its seal does not match"),
        })
    }

    fn sidecar(&self, code: &[u8], description: Description, code_path: &Path) -> Sidecar {
        let seal = self.key.seal(&sealed_parts(code, &description, code_path).each_ref().map(Vec::as_slice));
        Sidecar { description, seal }
    }

    /// The sealed code if it is whole; anything else is treated as absent and compiled anew.
    fn lookup(&self, digest: &str) -> Option<NativeCode> {
        let (code_path, sidecar_path) = self.paths(digest);
        let sidecar: Sidecar = serde_json::from_slice(&std::fs::read(sidecar_path).ok()?).ok()?;
        let mut file = File::open(&code_path).ok()?;
        let mut code = Vec::new();
        file.read_to_end(&mut code).ok()?;
        let parts = sealed_parts(&code, &sidecar.description, &code_path);
        if !self.key.matches(&parts.each_ref().map(Vec::as_slice), &sidecar.seal) {
            tracing::warn!(file = %code_path.display(), "native code does not match its seal, compiling it again");
            return None;
        }
        file.rewind().ok()?;
        Some(NativeCode { file, description: sidecar.description })
    }

    fn paths(&self, digest: &str) -> (PathBuf, PathBuf) {
        let hex = digest.rsplit(':').next().unwrap_or(digest);
        let safe: String = hex.chars().filter(char::is_ascii_alphanumeric).collect();
        let stem = format!("{safe}-{}", engine::compatibility());
        (self.dir.join(format!("{stem}.cwasm")), self.dir.join(format!("{stem}.json")))
    }
}

/// What the seal covers: the code's digest, what it is said to be, and under which name it lies.
fn sealed_parts(code: &[u8], description: &Description, path: &Path) -> [Vec<u8>; 3] {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned().into_bytes()).unwrap_or_default();
    let described = serde_json::to_vec(description).expect("a description is plain data");
    [Sha256::digest(code).to_vec(), described, name]
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
