//! Looks into `.wasm` bytes: module or component, what it imports and exports.
//!
//! Owns: reading names for configs and for people. May not know: wasmtime, or whether an import
//! can be satisfied (the Wasm runtime decides that).

use wasmparser::{Encoding, Parser, Payload};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WasmKind {
    /// A core module (WASI 0.1 or none).
    Module,
    /// A component (WASI 0.2 and later).
    Component,
}

/// Top-level names of a `.wasm` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WasmInfo {
    pub kind: WasmKind,
    /// `wasi:http/types@0.2.0` of a component, `module.name` of a module.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// Reads the top level of the file; the error is a sentence for a person.
pub fn inspect(bytes: &[u8]) -> Result<WasmInfo, String> {
    if !bytes.starts_with(b"\0asm") {
        let shown: Vec<String> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
        return Err(format!("it starts with {}, not with 00 61 73 6d", shown.join(" ")));
    }
    let mut info = WasmInfo { kind: WasmKind::Module, imports: Vec::new(), exports: Vec::new() };
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|e| e.to_string())?;
        match payload {
            Payload::Version { encoding, .. } if depth == 0 && info.imports.is_empty() => {
                info.kind = if encoding == Encoding::Component { WasmKind::Component } else { WasmKind::Module };
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            other if depth == 0 => top_level(&mut info, other).map_err(|e| e.to_string())?,
            _ => {}
        }
    }
    Ok(info)
}

fn top_level(info: &mut WasmInfo, payload: Payload<'_>) -> wasmparser::Result<()> {
    match payload {
        Payload::ComponentImportSection(section) => {
            for import in section {
                info.imports.push(import?.name.name.to_owned());
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section {
                info.exports.push(export?.name.name.to_owned());
            }
        }
        Payload::ImportSection(section) => {
            for import in section.into_imports() {
                let import = import?;
                info.imports.push(format!("{}.{}", import.module, import.name));
            }
        }
        Payload::ExportSection(section) => {
            for export in section {
                info.exports.push(export?.name.to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let module = wat::parse_str(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (func (export "_start")))"#,
        )
        .unwrap();
        let info = inspect(&module).unwrap();
        assert_eq!(info.kind, WasmKind::Module);
        assert_eq!(info.imports, ["wasi_snapshot_preview1.proc_exit"]);
        assert_eq!(info.exports, ["_start"]);
        let text = r#"(component
            (import "wasi:cli/exit@0.2.0" (instance))
            (core module (func (export "inner")))
            (component $c) (instance $i (instantiate $c))
            (export "wasi:cli/run@0.2.0" (instance $i)))"#;
        let info = inspect(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!(info.kind, WasmKind::Component);
        assert_eq!(info.imports, ["wasi:cli/exit@0.2.0"]);
        assert_eq!(info.exports, ["wasi:cli/run@0.2.0"]);
        assert!(inspect(b"\x7fELF....").unwrap_err().contains("7f 45 4c 46"));
        assert!(inspect(b"\0asm\x01\0\0\0\xff\xff").is_err());
        assert!(inspect(b"").is_err());
    }
}
