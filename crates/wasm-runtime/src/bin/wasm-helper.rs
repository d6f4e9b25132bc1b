//! The program that tests give as `helper_binary`: nothing but this crate's hidden subcommands.

fn main() {
    let mut args = std::env::args().skip(1);
    let code = match (args.next().as_deref(), args.next()) {
        (Some("internal"), Some(name)) => wasm_runtime::internal_main(&name, &args.collect::<Vec<_>>()),
        _ => None,
    };
    std::process::exit(code.unwrap_or(2));
}
