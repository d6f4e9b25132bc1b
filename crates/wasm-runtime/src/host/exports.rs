//! The functions of a component that can be called: found by name, described as data.
//!
//! Owns: names and their short forms, which functions count, signatures. May not know: instances, calls.

use std::collections::HashMap;

use cri::ExportedFunction;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Type};

use crate::value;

/// Longest description of all exports; schemas are left out of a longer one.
const DESCRIPTION_BYTES_MAX: usize = 96 << 10;

/// One function.
#[derive(Debug)]
pub struct Export {
    /// `namespace:package/interface@version#function`, or `function`.
    pub name: String,
    pub index: ComponentExportIndex,
    pub params: Vec<(String, Type)>,
    pub result: Option<Type>,
}

/// All functions whose values can be written down; methods of resources are not.
#[derive(Debug, Default)]
pub struct Exports {
    all: Vec<Export>,
    /// Every form of a name that callers use; `None` when it means several.
    names: HashMap<String, Option<usize>>,
}

/// A name that is no function's, or several functions'.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFound {
    pub why: String,
}

impl Exports {
    pub fn of(component: &Component) -> Self {
        let engine = component.engine();
        let mut exports = Self::default();
        for (name, item) in component.component_type().exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(ty) => {
                    exports.add(None, name, component.get_export_index(None, name), &ty);
                }
                ComponentItem::ComponentInstance(instance) => {
                    let interface = component.get_export_index(None, name);
                    for (function, item) in instance.exports(engine) {
                        let ComponentItem::ComponentFunc(ty) = item.ty else { continue };
                        let index = component.get_export_index(interface.as_ref(), function);
                        exports.add(Some(name), function, index, &ty);
                    }
                }
                _ => {}
            }
        }
        exports
    }

    fn add(
        &mut self,
        interface: Option<&str>,
        function: &str,
        index: Option<ComponentExportIndex>,
        ty: &ComponentFunc,
    ) {
        let Some(index) = index else { return };
        let params: Vec<(String, Type)> = ty.params().map(|(name, ty)| (name.to_owned(), ty)).collect();
        let mut results = ty.results();
        let result = results.next();
        let plain = params.iter().map(|(_, ty)| ty).chain(&result).all(value::is_plain);
        if !plain || results.next().is_some() || function.starts_with('[') {
            return;
        }
        drop(results);
        let at = self.all.len();
        for form in forms(interface, function) {
            self.names.entry(form).and_modify(|known| *known = None).or_insert(Some(at));
        }
        let name = interface.map_or_else(|| function.to_owned(), |interface| format!("{interface}#{function}"));
        self.all.push(Export { name, index, params, result });
    }

    /// By full name, without the version, without the package, or alone where that is clear; `.` does for `#`.
    pub fn find(&self, name: &str) -> Result<&Export, NotFound> {
        match self.names.get(name).or_else(|| self.names.get(&normal(name))) {
            Some(Some(at)) => Ok(&self.all[*at]),
            Some(None) => Err(NotFound { why: format!("`{name}` is exported by several interfaces; {}", self.list()) }),
            None => Err(NotFound { why: format!("there is no export `{name}`; {}", self.list()) }),
        }
    }

    /// `it has: a, b`
    pub fn list(&self) -> String {
        let names: Vec<&str> = self.all.iter().map(|export| export.name.as_str()).collect();
        if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) }
    }

    pub fn describe(&self) -> Result<Vec<ExportedFunction>, String> {
        let mut described: Vec<ExportedFunction> = self.all.iter().map(describe).collect();
        let bytes = |all: &Vec<ExportedFunction>| serde_json::to_vec(all).map_or(usize::MAX, |text| text.len());
        if bytes(&described) > DESCRIPTION_BYTES_MAX {
            for export in &mut described {
                (export.parameters, export.result) = (None, None);
            }
        }
        match bytes(&described) {
            size if size <= DESCRIPTION_BYTES_MAX => Ok(described),
            size => {
                Err(format!("the signatures of its exports take {size} bytes, the limit is {DESCRIPTION_BYTES_MAX}"))
            }
        }
    }
}

fn describe(export: &Export) -> ExportedFunction {
    ExportedFunction {
        name: export.name.clone(),
        signature: export.signature(),
        parameters: Some(value::object_schema(export.params.iter().map(|(name, ty)| (name.as_str(), ty.clone())))),
        result: export.result.as_ref().map(value::schema),
    }
}

impl Export {
    /// `func(a: u32, b: u32) -> u32`
    pub fn signature(&self) -> String {
        let params: Vec<String> = self.params.iter().map(|(name, ty)| format!("{name}: {}", value::wit(ty))).collect();
        let result = self.result.as_ref().map(|ty| format!(" -> {}", value::wit(ty))).unwrap_or_default();
        format!("func({}){result}", params.join(", "))
    }
}

/// The forms of a function's name, longest first.
fn forms(interface: Option<&str>, function: &str) -> Vec<String> {
    let Some(full) = interface else { return vec![function.to_owned()] };
    let unversioned = full.split('@').next().unwrap_or(full);
    let bare = unversioned.rsplit('/').next().unwrap_or(unversioned);
    let mut forms: Vec<String> = [full, unversioned, bare].iter().map(|name| format!("{name}#{function}")).collect();
    forms.push(function.to_owned());
    forms.dedup();
    forms
}

/// `a:b/c.f@1.0.0` and `c.f`, as wasmtime's command line has them, with the `#` of [`forms`].
fn normal(name: &str) -> String {
    if let Some((path, version)) = name.rsplit_once('@')
        && let Some((interface, function)) = path.rsplit_once('.')
    {
        return format!("{interface}@{version}#{function}");
    }
    match name.rsplit_once('.') {
        Some((interface, function)) => format!("{interface}#{function}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compile_engine;

    fn exports(text: &str) -> Exports {
        Exports::of(&Component::new(&compile_engine().unwrap(), text).unwrap())
    }

    fn two_interfaces() -> Exports {
        exports(
            r#"(component
              (core module $m (func (export "f") (param i32) (result i32) local.get 0) (func (export "n")))
              (core instance $i (instantiate $m))
              (func $f (param "a" u32) (result u32) (canon lift (core func $i "f")))
              (func $n (canon lift (core func $i "n")))
              (instance $one (export "place" (func $f)) (export "same" (func $n)))
              (instance $two (export "same" (func $n)))
              (export "acme:shop/orders@1.2.0" (instance $one))
              (export "acme:shop/admin" (instance $two))
              (export "add" (func $f)))"#,
        )
    }

    #[test]
    fn names_have_many_forms() {
        let exports = two_interfaces();
        let check = |name: &str, expect: &str| assert_eq!(exports.find(name).unwrap().name, expect);
        let place = "acme:shop/orders@1.2.0#place";
        for form in
            [place, "acme:shop/orders#place", "orders#place", "place", "orders.place", "acme:shop/orders.place@1.2.0"]
        {
            check(form, place);
        }
        check("add", "add");
        check("admin.same", "acme:shop/admin#same");
        let all = "it has: acme:shop/orders@1.2.0#place, acme:shop/orders@1.2.0#same, acme:shop/admin#same, add";
        let refused = |name: &str| exports.find(name).unwrap_err().why;
        assert_eq!(refused("same"), format!("`same` is exported by several interfaces; {all}"));
        assert_eq!(refused("sub"), format!("there is no export `sub`; {all}"));
    }

    #[test]
    fn descriptions() {
        let described = two_interfaces().describe().unwrap();
        assert_eq!(described[0].signature, "func(a: u32) -> u32");
        assert_eq!(described[1].signature, "func()");
        let parameters = described[0].parameters.clone().unwrap();
        assert_eq!(parameters["required"], serde_json::json!(["a"]));
        assert_eq!(described[1].result, None);
        assert_eq!(Exports::default().list(), "it has none");
    }
}
