//! What `knarr internal …` is in the product: the re-executed helper processes, for tests.

fn main() {
    let mut args = std::env::args().skip(1);
    let code = match (args.next().as_deref(), args.next()) {
        (Some("internal"), Some(name)) => {
            let rest: Vec<String> = args.collect();
            container_runtime::internal_main(&name, &rest)
        }
        _ => None,
    };
    std::process::exit(code.unwrap_or(2));
}
