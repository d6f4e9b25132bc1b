//! `cargo xtask …`: what the repository does to itself. One file per subcommand, one row here.

mod codegen;
mod toolchain;
mod wasm_apps;

/// Name, what it does, how.
const SUBCOMMANDS: &[(&str, &str, fn() -> anyhow::Result<()>)] = &[
    ("codegen", "writes the protobuf field table of the `api` crate", codegen::run),
    ("wasm-apps", "builds the guests of wasm-apps/ into <target>/wasm-apps/*.wasm", wasm_apps::run),
];

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    match SUBCOMMANDS.iter().find(|(name, _, _)| *name == wanted) {
        Some((_, _, run)) => run(),
        None => {
            for (name, does, _) in SUBCOMMANDS {
                eprintln!("cargo xtask {name:<12} {does}");
            }
            anyhow::bail!("there is no subcommand {wanted:?}")
        }
    }
}
