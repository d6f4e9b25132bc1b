//! Logging of the process: to standard error, warnings unless asked for more.

use tracing_subscriber::EnvFilter;

/// Starts logging. `verbose` counts the `-v`; the environment variable `KNARR_LOG` (the syntax of
/// `RUST_LOG`) wins over it.
pub fn start(verbose: u8) {
    let default = match verbose {
        0 => "error,knarr=warn",
        1 => "warn,knarr=info,apiserver=info,node=info,scheduler=info,controllers=info,network=info,wasm_runtime=info",
        2 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("KNARR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
