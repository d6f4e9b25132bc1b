//! The example images and manifests that `knarr demo` uses, part of the binary.

use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use image::build::{self, BuildOptions, ImageFile, StartConfig};
use image::{ImageStore, Platform, this_architecture};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// `deploy/examples/`, in the order in which they are applied.
pub const MANIFESTS: [(&str, &str); 5] = [
    ("10-backend.yaml", include_str!("../../../deploy/examples/10-backend.yaml")),
    ("20-hello.yaml", include_str!("../../../deploy/examples/20-hello.yaml")),
    ("30-mixed.yaml", include_str!("../../../deploy/examples/30-mixed.yaml")),
    ("40-dual.yaml", include_str!("../../../deploy/examples/40-dual.yaml")),
    ("50-function.yaml", include_str!("../../../deploy/examples/50-function.yaml")),
];

fn embedded(packed: Option<&[u8]>) -> Result<Vec<u8>> {
    let packed =
        packed.context("this binary was built without the example images; build it with `cargo xtask build`")?;
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).context("an example image in this binary is damaged")?;
    Ok(bytes)
}

/// The component that serves HTTP.
pub fn hello_http() -> Result<Vec<u8>> {
    embedded(embedded::HELLO_HTTP_WASM)
}

/// The component whose exports are called.
pub fn plugin_shop() -> Result<Vec<u8>> {
    embedded(embedded::PLUGIN_SHOP_WASM)
}

/// The static Linux program that serves HTTP.
pub fn backend() -> Result<Vec<u8>> {
    embedded(embedded::BACKEND)
}

/// Repositories of the example images.
pub const REPOSITORIES: [&str; 5] =
    ["examples/hello-http", "examples/hello-command", "examples/plugin-shop", "examples/backend", "examples/dual"];
/// Their tag.
pub const TAG: &str = "v1";

/// Builds the example images into the store.
pub fn put_images(store: &ImageStore) -> Result<()> {
    let v1 = |repository: &'static str| BuildOptions { repository, tag: TAG };
    let untagged = BuildOptions { repository: "examples/dual", tag: "" };
    let hello = hello_http()?;
    build::wasm_artifact(store, &hello, &v1("examples/hello-http"))?;
    build::wasm_artifact(store, &embedded(embedded::HELLO_COMMAND_WASM)?, &v1("examples/hello-command"))?;
    build::wasm_artifact(store, &plugin_shop()?, &v1("examples/plugin-shop"))?;
    let program = backend()?;
    let program = ImageFile { path: "/backend", mode: 0o755, content: &program };
    let start = StartConfig { entrypoint: vec!["/backend".to_owned()], ..StartConfig::default() };
    build::linux_files(store, std::slice::from_ref(&program), &start, &v1("examples/backend"))?;
    let wasm = build::wasm_artifact(store, &hello, &untagged)?;
    let native = build::linux_files(store, &[program], &start, &untagged)?;
    let platform = |os: &str, architecture: &str| Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
    };
    let entries = [(wasm, platform("wasi", "wasm")), (native, platform("linux", this_architecture()))];
    build::index(store, &entries, &v1("examples/dual"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn what_is_embedded_comes_out_as_it_went_in() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(b"\0asm and more").unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(embedded(Some(&packed)).unwrap(), b"\0asm and more");
        let check = |packed: Option<&[u8]>, expect: &str| {
            let error = embedded(packed).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(None, "cargo xtask build");
        check(Some(&packed[..packed.len() / 2]), "damaged");
        check(Some(b"not packed"), "damaged");
    }
}
