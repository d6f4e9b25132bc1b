//! Embeds the example images, when the build was told where they are.
//!
//! `cargo xtask build` compiles the example guests and a small static Linux program, then sets
//! `KNARR_EXAMPLES_DIR`. A plain `cargo build` has no Wasm toolchain to rely on and embeds nothing;
//! `knarr demo` then says so.

use std::path::Path;
use std::{env, fs};

const FILES: [&str; 3] = ["hello-http.wasm", "hello-command.wasm", "backend"];

fn main() {
    println!("cargo:rerun-if-env-changed=KNARR_EXAMPLES_DIR");
    println!("cargo:rerun-if-changed=build.rs");
    let directory = env::var("KNARR_EXAMPLES_DIR").ok();
    let mut text = String::new();
    for name in FILES {
        let constant = name.replace(['-', '.'], "_").to_uppercase();
        let value = match &directory {
            Some(directory) => {
                let path = Path::new(directory).join(name);
                println!("cargo:rerun-if-changed={}", path.display());
                assert!(path.exists(), "KNARR_EXAMPLES_DIR has no {name}: run `cargo xtask build`");
                format!("Some(include_bytes!({path:?}))")
            }
            None => "None".to_owned(),
        };
        text.push_str(&format!("pub const {constant}: Option<&[u8]> = {value};\n"));
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out).join("embedded.rs"), text).expect("cargo made OUT_DIR");
}
