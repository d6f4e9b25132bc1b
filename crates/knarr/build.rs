//! Embeds the example images, gzipped, when the build was told where they are.
//!
//! `cargo xtask build` compiles the example guests and a small static Linux program, then sets
//! `KNARR_EXAMPLES_DIR`. A plain `cargo build` has no Wasm toolchain to rely on and embeds nothing;
//! `knarr demo` then says so.

use std::io::Write;
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

const FILES: [&str; 4] = ["hello-http.wasm", "hello-command.wasm", "plugin-shop.wasm", "backend"];

fn main() {
    println!("cargo:rerun-if-env-changed=KNARR_EXAMPLES_DIR");
    println!("cargo:rerun-if-changed=build.rs");
    let directory = env::var("KNARR_EXAMPLES_DIR").ok();
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let out = Path::new(&out);
    let mut text = String::new();
    for name in FILES {
        let constant = name.replace(['-', '.'], "_").to_uppercase();
        let value = match &directory {
            Some(directory) => {
                let path = Path::new(directory).join(name);
                println!("cargo:rerun-if-changed={}", path.display());
                assert!(path.exists(), "KNARR_EXAMPLES_DIR has no {name}: run `cargo xtask build`");
                let packed = out.join(format!("{name}.gz"));
                fs::write(&packed, pack(&path)).expect("cargo made OUT_DIR");
                format!("Some(include_bytes!({packed:?}))")
            }
            None => "None".to_owned(),
        };
        text.push_str(&format!("pub const {constant}: Option<&[u8]> = {value};\n"));
    }
    fs::write(out.join("embedded.rs"), text).expect("cargo made OUT_DIR");
}

fn pack(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bytes).and_then(|()| packed.finish()).expect("memory takes everything")
}
