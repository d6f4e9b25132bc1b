//! Compiling in a process of its own.
//!
//! Compile-time denial of service is outside wasmtime's security promise, so the compiler runs as
//! `internal wasm-compile`: Wasm on stdin, native code on stdout, complaints on stderr, no files
//! to open, a memory cgroup where that can be had, CPU and address-space limits, low priority,
//! an unprivileged user. It also links what it compiled against our linkers, so that an import
//! with the right name and the wrong type is refused now and not at the first request.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;
use tokio::io::AsyncReadExt;

use crate::artifact::Format;
use crate::confine::{self, Confinement};
use crate::{engine, offer};

const CPU_SECONDS_MAX: u64 = 180;
const WALL_TIME_MAX: Duration = Duration::from_secs(240);
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const ADDRESS_SPACE_BYTES_MAX: u64 = 8 << 30;
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;
/// Of what the engine says, as much is shown: it can quote names of any length, and goes into an Event.
const COMPLAINT_SHOWN_CHARS: usize = 600;
const NICENESS: i32 = 10;
/// The child's exit code when the Wasm itself is at fault.
const EXIT_REJECTED: i32 = 3;

/// How to start the compiler.
#[derive(Debug, Clone)]
pub struct CompilerProcess {
    pub helper_binary: PathBuf,
    pub confinement: Confinement,
}

#[derive(Debug, Error)]
pub enum CompileError {
    /// The engine says what is wrong with the file.
    #[error("{why}")]
    Rejected { why: String },
    #[error("its compiler {why}")]
    Failed { why: String },
    /// By the clock, not by its own use of CPU: on a machine that has more to do. It may work another time.
    #[error("its compiler was not done after {} s", WALL_TIME_MAX.as_secs())]
    TooSlow,
    #[error("cannot start the compiler {}", .program.display())]
    Spawn {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Compiles `wasm` into `output`.
pub async fn run(compiler: &CompilerProcess, wasm: &Path, output: &File, format: Format) -> Result<(), CompileError> {
    let spawn = |source| CompileError::Spawn { program: compiler.helper_binary.clone(), source };
    let confinement = serde_json::to_string(&compiler.confinement).expect("a confinement is plain data");
    let mut child = tokio::process::Command::new(&compiler.helper_binary)
        .args(["internal", crate::COMPILE_COMMAND, format_name(format), &confinement])
        .env_clear()
        .stdin(File::open(wasm).map_err(spawn)?)
        .stdout(output.try_clone().map_err(spawn)?)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn)?;
    let mut complaint = Vec::new();
    let stderr = child.stderr.take().expect("stderr was piped");
    let ended = tokio::time::timeout(WALL_TIME_MAX, async {
        let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await;
        child.wait().await
    })
    .await;
    if let Some(cgroup) = compiler.confinement.cgroup.as_deref().filter(|_| nix::unistd::geteuid().is_root()) {
        // Empty now, unless another compiler runs: then it stays, and that one removes it.
        confine::remove_cgroup(cgroup);
    }
    let Ok(status) = ended else {
        return Err(CompileError::TooSlow);
    };
    let status = status.map_err(spawn)?;
    let complaint = shown(String::from_utf8_lossy(&complaint).trim());
    match status.code() {
        Some(0) => Ok(()),
        Some(EXIT_REJECTED) => Err(CompileError::Rejected { why: complaint }),
        _ => {
            let limits = format!("limits: {} MiB of memory, {CPU_SECONDS_MAX} s of CPU", MEMORY_BYTES_MAX >> 20);
            Err(CompileError::Failed { why: format!("ended with {status} ({limits}) {complaint}") })
        }
    }
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Module => "module",
        Format::Component => "component",
    }
}

/// `internal wasm-compile module|component CONFINEMENT`.
pub fn main(args: &[String]) -> i32 {
    let [format, confinement] = args else {
        eprintln!("usage: internal {} module|component CONFINEMENT", crate::COMPILE_COMMAND);
        return 2;
    };
    if let Err(error) = limit(confinement) {
        eprintln!("{error}");
        return 1;
    }
    let mut wasm = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut wasm) {
        eprintln!("cannot read the Wasm file: {error}");
        return 1;
    }
    let compiled = match format.as_str() {
        "component" => compile_component(&wasm),
        _ => compile_module(&wasm),
    };
    match compiled {
        Ok(code) => match std::io::stdout().write_all(&code).and_then(|()| std::io::stdout().flush()) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("cannot write the native code: {error}");
                1
            }
        },
        Err(error) => {
            // Not more than the parent reads: it would wait for the rest to be read.
            eprintln!("{}", shown(&format!("{error:#}")));
            EXIT_REJECTED
        }
    }
}

fn shown(complaint: &str) -> String {
    let mut shown: String = complaint.chars().take(COMPLAINT_SHOWN_CHARS).collect();
    if shown.len() < complaint.len() {
        shown.push('…');
    }
    shown
}

fn limit(confinement: &str) -> Result<(), String> {
    let confinement: Confinement = serde_json::from_str(confinement).map_err(|error| error.to_string())?;
    let limits = [
        (Resource::RLIMIT_CPU, CPU_SECONDS_MAX),
        (Resource::RLIMIT_AS, ADDRESS_SPACE_BYTES_MAX),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, most, most).map_err(|error| format!("cannot limit {resource:?}: {error}"))?;
    }
    let _ = rustix::process::nice(NICENESS);
    confine::enter_cgroup(&confinement, Some(MEMORY_BYTES_MAX));
    confine::drop_privileges(&confinement, &[]).map_err(|error| error.to_string())
}

fn compile_component(wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let engine = engine::compile_engine()?;
    let component = wasmtime::component::Component::from_binary(&engine, wasm)?;
    offer::component_linker(&engine)?.instantiate_pre(&component)?;
    component.serialize()
}

fn compile_module(wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let engine = engine::compile_engine()?;
    let module = wasmtime::Module::from_binary(&engine, wasm)?;
    offer::module_linker(&engine)?.instantiate_pre(&module)?;
    module.serialize()
}
