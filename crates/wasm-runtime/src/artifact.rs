//! What a `.wasm` file is, read from its bytes alone.
//!
//! Owns: telling modules from components, their imports and exports, and which export runs.
//! May not know: the engine, the network, files. Manifest metadata is never trusted; the bytes are.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wasmparser::{ComponentTypeRef, Encoding, ExternalKind, Parser, Payload, TypeRef};

/// A binary module or component, and what it wants and offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub format: Format,
    /// In file order. Core modules: `module.name`; components: `namespace:package/interface@version`.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// A core module (WASI 0.1 or plain).
    Module,
    /// A component (WASI 0.2 or 0.3).
    Component,
}

/// How a container of this artifact runs, decided by its exports in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Workload {
    /// `wasi:http/handler@0.3.x`: serves HTTP.
    HttpService,
    /// `wasi:http/incoming-handler@0.2.x`: serves HTTP.
    HttpProxy,
    /// `wasi:cli/run@0.3.x`: runs once.
    AsyncCommand,
    /// `wasi:cli/run@0.2.x`: runs once.
    Command,
    /// A core module's `_start`: runs once.
    Start,
    /// Nothing runs by itself; exports are invoked.
    Plugin,
}

impl Workload {
    pub fn serves_http(self) -> bool {
        matches!(self, Self::HttpService | Self::HttpProxy)
    }
}

impl Description {
    pub fn workload(&self) -> Workload {
        let exports = |prefix: &str| self.exports.iter().any(|name| name.starts_with(prefix));
        match self.format {
            Format::Module if self.exports.iter().any(|name| name == "_start") => Workload::Start,
            Format::Module => Workload::Plugin,
            Format::Component if exports("wasi:http/handler@0.3.") => Workload::HttpService,
            Format::Component if exports("wasi:http/incoming-handler@0.2.") => Workload::HttpProxy,
            Format::Component if exports("wasi:cli/run@0.3.") => Workload::AsyncCommand,
            Format::Component if exports("wasi:cli/run@0.2.") => Workload::Command,
            Format::Component => Workload::Plugin,
        }
    }
}

/// The bytes are not a Wasm artifact this crate can read.
#[derive(Debug, Error)]
pub enum InspectError {
    #[error("is no WebAssembly file: starts with {start}")]
    NotWasm { start: String },
    #[error("is damaged: {source}")]
    Malformed {
        #[source]
        source: wasmparser::BinaryReaderError,
    },
}

impl From<wasmparser::BinaryReaderError> for InspectError {
    fn from(source: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed { source }
    }
}

/// Reads the outermost module or component; nested ones are its private matter.
pub fn inspect(bytes: &[u8]) -> Result<Description, InspectError> {
    if !bytes.starts_with(b"\0asm") {
        return Err(InspectError::NotWasm { start: printable_start(bytes) });
    }
    let mut described = Description { format: Format::Module, imports: Vec::new(), exports: Vec::new() };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { encoding: Encoding::Component, .. } if depth == 0 => {
                described.format = Format::Component;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            payload if depth == 0 => read_section(payload, &mut described)?,
            _ => {}
        }
    }
    Ok(described)
}

fn read_section(payload: Payload<'_>, described: &mut Description) -> Result<(), InspectError> {
    match payload {
        Payload::ImportSection(section) => {
            for import in section.into_imports() {
                let import = import?;
                let what = match import.ty {
                    TypeRef::Func(_) | TypeRef::FuncExact(_) => "",
                    TypeRef::Memory(_) => " (memory)",
                    TypeRef::Table(_) => " (table)",
                    TypeRef::Global(_) => " (global)",
                    TypeRef::Tag(_) => " (tag)",
                };
                described.imports.push(format!("{}.{}{what}", import.module, import.name));
            }
        }
        Payload::ExportSection(section) => {
            for export in section {
                let export = export?;
                if export.kind == ExternalKind::Func {
                    described.exports.push(export.name.to_owned());
                }
            }
        }
        Payload::ComponentImportSection(section) => {
            for import in section {
                let import = import?;
                // An imported type only gives a name to a type of another import.
                if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                    described.imports.push(import.name.name.to_owned());
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section {
                described.exports.push(export?.name.name.to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

/// The first bytes as a reader recognises them: text where it is text, hex where it is not.
fn printable_start(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(8)];
    if start.is_empty() {
        return "nothing (it is empty)".to_owned();
    }
    let known = match start {
        [0x7f, b'E', b'L', b'F', ..] => " (an ELF program)",
        [b'#', b'!', ..] => " (a script)",
        [0x1f, 0x8b, ..] => " (a gzip archive)",
        [b'(', ..] => " (Wasm text? it has to be the binary format)",
        _ => "",
    };
    format!("\"{}\"{known}", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_file_is() {
        let check = |wat: &str, format: Format, workload: Workload, imports: &[&str], exports: &[&str]| {
            let described = inspect(&wat::parse_str(wat).unwrap()).unwrap();
            assert_eq!(described.format, format, "{wat}");
            assert_eq!(described.workload(), workload, "{wat}");
            assert_eq!(described.imports, imports, "{wat}");
            assert_eq!(described.exports, exports, "{wat}");
        };
        check("(module)", Format::Module, Workload::Plugin, &[], &[]);
        check(
            r#"(module (import "env" "f" (func)) (import "env" "m" (memory 1)) (func (export "_start")))"#,
            Format::Module,
            Workload::Start,
            &["env.f", "env.m (memory)"],
            &["_start"],
        );
        check("(component)", Format::Component, Workload::Plugin, &[], &[]);
        check(
            r#"(component (import "acme:db/store@1.0.0" (instance))
                 (component (import "inner" (instance)) (core module (func (export "hidden"))))
                 (instance $i) (export "wasi:http/incoming-handler@0.2.3" (instance $i))
                 (instance $j) (export "wasi:cli/run@0.2.0" (instance $j)))"#,
            Format::Component,
            Workload::HttpProxy,
            &["acme:db/store@1.0.0"],
            &["wasi:http/incoming-handler@0.2.3", "wasi:cli/run@0.2.0"],
        );
    }

    #[test]
    fn refuses_other_files_by_what_they_start_with() {
        let check = |bytes: &[u8], expect: &str| {
            let error = inspect(bytes).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(
            b"\x7fELF\x02\x01\x01\0more",
            "is no WebAssembly file: starts with \"\\x7fELF\\x02\\x01\\x01\\x00\" (an ELF",
        );
        check(b"", "it is empty");
        check(b"#!/bin/sh", "(a script)");
        check(b"\0asm\x01\0\0\0\x02\xff", "is damaged");
    }
}
