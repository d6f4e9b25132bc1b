//! Values of components as JSON, and their types as JSON Schema. Pure.
//!
//! Owns: the mapping between WIT and JSON. WAVE, the other form, is wasmtime's own.
//! May not know: instances, requests, limits.
//!
//! | WIT | JSON |
//! | --- | --- |
//! | `bool`, `string`, `s8` … `u64`, `f32`, `f64` | itself; 64-bit integers also as text; `"nan"`, `"inf"`, `"-inf"` |
//! | `char` | text of one character |
//! | `list<u8>` | base64 text; an array of numbers is taken too |
//! | `list`, `tuple` | array |
//! | `record` | object with the declared names; fields of type `option` may be left out |
//! | `variant` | `{"case": payload}`, or `"case"` where it has none |
//! | `enum` | text |
//! | `flags` | array of texts |
//! | `option` | null or the bare value; `{"some": value}` where that value may itself be null |
//! | `result` | `{"ok": value}` or `{"err": value}` |

mod from_json;
mod schema;
#[cfg(test)]
mod tests;
mod to_json;

use wasmtime::component::Type;

pub use from_json::from_json;
pub use schema::{is_plain, object as object_schema, schema};
pub use to_json::to_json;

/// Deepest nesting of values and types that is followed.
const DEPTH_MAX: usize = 64;

/// Whether JSON null already stands for a value of the type, so that an option of it needs a wrapping.
fn may_be_null(ty: &Type) -> bool {
    matches!(ty, Type::Option(_))
}

/// The type as WIT has it.
pub fn wit(ty: &Type) -> String {
    wasmtime::component::wasm_wave::wasm::DisplayType(ty).to_string()
}
