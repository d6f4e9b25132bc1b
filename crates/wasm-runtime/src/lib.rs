//! `RuntimeService` on wasmtime.
//!
//! Owns: compiling Wasm images ahead of time in a limited child process, and running them in
//! **sandbox host processes** apart from the agent. May not know: pods as the API has them,
//! registries, how addresses are routed.
//!
//! ```text
//! agent process                          sandbox host (one per namespace, or per pod)
//!   runtime/   records, plan, host links ──unix socket, open files──► host/  control
//!   native/    cache, seals                                            ├─ http: instance per request
//!      └─ compiler process (per image)                                 ├─ run: commands, _start
//!   runtime/guest_calls ◄──what guests ask, connected socket──────────  ├─ capability, agent
//!                                                                      └─ egress, dns, logs, meter
//! ```
//!
//! # What a guest may do
//!
//! * **Files**: the mounts of its container, each a preopened directory, read-only where the mount
//!   is. No implicit `/`, except the read-only root of a compat image.
//! * **Outgoing HTTP** (`wasi:http`): any Service or pod name of the cluster. Other hosts only if
//!   annotation `knarr.dev/allowed-hosts` lists them (comma list, `*.domain` and `*` allowed). The
//!   resolved address is judged again: never link-local, never loopback, except the pod's own
//!   localhost when the host process has the pod's network namespace (mixed pods). https trusts the
//!   authorities that the machine trusts. A pod of the same host is called without a socket, where
//!   network policies let it; connections come from the pod's own address.
//! * **Sockets** (`wasi:sockets`): denied. A mixed pod may use its own localhost; annotation
//!   `knarr.dev/allow-sockets: "true"` allows all but link-local, and localhost where that is the machine's. Name lookup through
//!   `wasi:sockets` stays off: it would use the machine's resolver.
//! * **Configuration** (`wasi:config`): its environment, and files of the mount that annotation
//!   `knarr.dev/config-dir` names.
//! * **Log lines** (`wasi:logging`): in its own log.
//! * **Keys and values** (`wasi:keyvalue`): the buckets that annotation `knarr.dev/buckets` lists. The
//!   host asks the agent for them (`calls`); it has no credentials itself.
//! * **Memory**: the container's limit over all its instances, 256 MiB when it sets none.
//! * **Time**: an HTTP request has 30 s (annotation `knarr.dev/request-timeout`, seconds).

mod artifact;
mod calls;
mod confine;
mod durable;
mod engine;
mod host;
mod keyed_locks;
mod native;
mod offer;
mod owned;
mod process_id;
mod protocol;
mod runtime;
mod value;
mod wire;

pub use artifact::{Description, Format, InspectError, Workload};
pub use engine::compatibility;
pub use native::{
    CODE_BYTES_MAX, CodeSource, FoundCode, NativeCache, NativeCode, NativeConfig, NotFound, PrepareError, Wanted,
    WasmFile,
};
pub use runtime::{WasmRuntime, WasmRuntimeConfig};

// Hidden subcommands of the binary that end up here.

/// The word after `internal` that makes this program a sandbox host.
pub const HOST_COMMAND: &str = "wasm-host";
const COMPILE_COMMAND: &str = "wasm-compile";

/// Runs a hidden subcommand and gives its exit code; `None` when the name is not one of ours.
/// Must be called before the process has a second thread.
pub fn internal_main(name: &str, args: &[String]) -> Option<i32> {
    match name {
        HOST_COMMAND => Some(host::main(args)),
        COMPILE_COMMAND => Some(native::compile::main(args)),
        _ => None,
    }
}

/// What a `.wasm` file is: module or component, its imports and exports, how it would run
/// ([`Description::workload`]).
pub fn describe(bytes: &[u8]) -> Result<Description, InspectError> {
    artifact::inspect(bytes)
}

/// The imports that this build cannot satisfy, as they are named in the file.
pub fn missing_imports(description: &Description) -> Vec<String> {
    offer::missing_imports(description)
}
