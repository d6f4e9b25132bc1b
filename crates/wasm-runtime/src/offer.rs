//! Which imports a guest may have: the linkers, and the same list as data.
//!
//! Owns: what Knarr offers to Wasm code. A new WASI interface is one row here and one line in
//! [`component_linker`]; what is beyond WASI is a row of [`CAPABILITIES`]. The rows let an import be
//! refused by name before anything is compiled.

use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Engine, Linker as ModuleLinker};

use crate::artifact::{Description, Format};
use crate::host::capability::{self, CAPABILITIES, import_name};
use crate::host::guest::{ComponentState, ModuleState};
use crate::host::outgoing::next;

/// Interfaces by package and the version family that is compatible: every patch release of 0.2,
/// every patch release of 0.3.
const INTERFACES: &[(&str, &str, &[&str])] = &[
    (
        "wasi:cli",
        "0.2",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", "0.2", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", "0.2", &["types", "preopens"]),
    ("wasi:io", "0.2", &["error", "poll", "streams"]),
    ("wasi:random", "0.2", &["random", "insecure", "insecure-seed"]),
    (
        "wasi:sockets",
        "0.2",
        &["network", "instance-network", "ip-name-lookup", "tcp", "tcp-create-socket", "udp", "udp-create-socket"],
    ),
    ("wasi:http", "0.2", &["types", "outgoing-handler"]),
    (
        "wasi:cli",
        "0.3",
        &[
            "types",
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", "0.3", &["types", "monotonic-clock", "system-clock"]),
    ("wasi:filesystem", "0.3", &["types", "preopens"]),
    ("wasi:random", "0.3", &["random", "insecure", "insecure-seed"]),
    ("wasi:sockets", "0.3", &["types", "ip-name-lookup"]),
    // A middleware imports the handler: the next container of its pod (`host/outgoing/next`).
    ("wasi:http", "0.3", &["types", "client", "handler"]),
];

/// Core modules import these functions by module name.
const MODULE_PACKAGES: &[&str] = &["wasi_snapshot_preview1"];

/// Of the imports that are missing, as many are named, and as much of a name is shown: it all goes into an Event.
const MISSING_SHOWN_MAX: usize = 5;
const NAME_SHOWN_MAX: usize = 100;

/// Every import that nothing here satisfies, in file order.
pub fn missing_imports(described: &Description) -> Vec<String> {
    described.imports.iter().filter(|import| !is_offered(described.format, import)).cloned().collect()
}

/// The sentence an Event shows.
pub fn explain_missing(missing: &[String]) -> String {
    let name = |name: &String| format!("`{}`", name.chars().take(NAME_SHOWN_MAX).collect::<String>());
    let mut names = missing.iter().take(MISSING_SHOWN_MAX).map(name).collect::<Vec<_>>().join(", ");
    if let Some(more) = missing.len().checked_sub(MISSING_SHOWN_MAX).filter(|more| *more > 0) {
        names.push_str(&format!(" and {more} more"));
    }
    let verb = if missing.len() == 1 { "an interface" } else { "interfaces" };
    format!(
        "it imports {names}, {verb} this node does not offer (offered: WASI 0.1, 0.2 and 0.3 with wasi:http; {})",
        beyond_wasi()
    )
}

/// `wasi:config 0.2.0-rc.1, …`: a pre-release is asked for by its whole name, so it has to be told.
fn beyond_wasi() -> String {
    let versions = CAPABILITIES.iter().flat_map(|capability| {
        let named = capability.versions.iter().filter(|version| !version.is_empty());
        named.map(|version| format!("{} {version}", capability.package))
    });
    versions.collect::<Vec<_>>().join(", ")
}

fn is_offered(format: Format, import: &str) -> bool {
    match format {
        Format::Module => import.split_once('.').is_some_and(|(module, _)| MODULE_PACKAGES.contains(&module)),
        Format::Component if is_capability(import) => true,
        Format::Component => {
            let Some((name, version)) = import.split_once('@') else { return false };
            let Some((package, interface)) = name.split_once('/') else { return false };
            // A pre-release (0.3.0-rc-…) promises compatibility with nothing.
            !version.contains('-')
                && INTERFACES.iter().any(|(offered, family, interfaces)| {
                    *offered == package
                        && version.strip_prefix(family).is_some_and(|rest| rest.starts_with('.'))
                        && interfaces.contains(&interface)
                })
        }
    }
}

fn is_capability(import: &str) -> bool {
    CAPABILITIES.iter().any(|capability| {
        capability.versions.iter().any(|version| {
            let mut interfaces = capability.interfaces.iter();
            interfaces.any(|interface| import_name(capability.package, interface.name, version) == import)
        })
    })
}

/// The linker for components of WASI 0.2 and 0.3.
pub(crate) fn component_linker(engine: &Engine) -> wasmtime::Result<ComponentLinker<ComponentState>> {
    let mut linker = ComponentLinker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    next::add_to_linker(&mut linker)?;
    capability::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// The linker for core modules of WASI 0.1.
pub(crate) fn module_linker(engine: &Engine) -> wasmtime::Result<ModuleLinker<ModuleState>> {
    let mut linker = ModuleLinker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compile_engine;

    #[test]
    fn imports_are_matched_by_package_interface_and_family() {
        let check = |import: &str, offered: bool| {
            assert_eq!(is_offered(Format::Component, import), offered, "{import}");
        };
        check("wasi:io/streams@0.2.0", true);
        check("wasi:io/streams@0.2.99", true);
        check("wasi:http/client@0.3.1", true);
        check("wasi:io/streams@0.20.0", false);
        check("wasi:io/streams", false);
        check("wasi:http/client@0.3.0-rc-2026-03-15", false);
        check("wasi:nn/tensor@0.2.0", false);
        check("wasi:keyvalue/store@0.2.0-draft", true);
        check("wasi:keyvalue/atomics@0.2.0-draft2", true);
        check("wasi:keyvalue/store@0.2.0-draft3", false);
        check("wasi:keyvalue/store@0.2.0", false);
        check("wasi:keyvalue/watcher@0.2.0-draft", false);
        check("wasi:config/store@0.2.0-rc.1", true);
        check("wasi:logging/logging@0.1.0-draft", true);
        check("wasi:logging/logging", true);
        check("log", false);
        assert!(is_offered(Format::Module, "wasi_snapshot_preview1.fd_write"));
        assert!(!is_offered(Format::Module, "env.abort"));
    }

    #[test]
    fn every_row_is_in_the_linker() {
        let engine = compile_engine().unwrap();
        let linker = component_linker(&engine).unwrap();
        for (package, family, interfaces) in INTERFACES {
            for interface in *interfaces {
                let version = if *family == "0.2" { "0.2.12" } else { "0.3.0" };
                let wat = format!("(component (import \"{package}/{interface}@{version}\" (instance)))");
                let component = wasmtime::component::Component::new(&engine, wat).unwrap();
                let linked = linker.instantiate_pre(&component);
                assert!(linked.is_ok(), "{package}/{interface}@{version}: {:?}", linked.err());
            }
        }
        for capability in CAPABILITIES {
            for (version, interface) in
                capability.versions.iter().flat_map(|v| capability.interfaces.iter().map(move |i| (v, i)))
            {
                let name = import_name(capability.package, interface.name, version);
                let wat = format!("(component (import \"{name}\" (instance)))");
                let component = wasmtime::component::Component::new(&engine, wat).unwrap();
                let linked = linker.instantiate_pre(&component);
                assert!(linked.is_ok(), "{name}: {:?}", linked.err());
            }
        }
    }

    #[test]
    fn the_refusal_names_the_import() {
        let text = explain_missing(&["acme:db/store@1.0.0".to_owned()]);
        assert!(text.starts_with("it imports `acme:db/store@1.0.0`, an interface this node does not offer"), "{text}");
        let many: Vec<String> = (0..1000).map(|number| format!("acme:db/{number}-{}", "x".repeat(1000))).collect();
        let text = explain_missing(&many);
        assert!(text.contains("acme:db/4-") && text.contains(" and 995 more, interfaces"), "{text}");
        assert!(text.len() < 1024, "{} bytes", text.len());
    }
}
