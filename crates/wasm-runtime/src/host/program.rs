//! Native code loaded once per digest and linked once; instances are cheap from here.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use wasmtime::component::{Component, InstancePre as ComponentPre, Linker as ComponentLinker};
use wasmtime::{Engine, InstancePre as ModulePre, Linker as ModuleLinker, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings::CommandPre as AsyncCommandPre;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2, p3};

use crate::artifact::{Description, Format, Workload};
use crate::host::guest::{ComponentState, ModuleState};
use crate::offer;

/// A linked artifact, by the way it runs.
pub enum Program {
    Http {
        serve: ProxyPre<ComponentState>,
        component: ComponentPre<ComponentState>,
    },
    Command {
        run: CommandPre<ComponentState>,
        component: ComponentPre<ComponentState>,
    },
    AsyncCommand {
        run: AsyncCommandPre<ComponentState>,
        component: ComponentPre<ComponentState>,
    },
    Plugin {
        component: ComponentPre<ComponentState>,
    },
    /// Runs `_start` if it has one.
    Module {
        module: ModulePre<ModuleState>,
    },
}

impl Program {
    pub fn component(&self) -> Option<&ComponentPre<ComponentState>> {
        match self {
            Self::Http { component, .. }
            | Self::Command { component, .. }
            | Self::AsyncCommand { component, .. }
            | Self::Plugin { component } => Some(component),
            Self::Module { .. } => None,
        }
    }

    pub fn engine(&self) -> &Engine {
        match self {
            Self::Module { module } => module.module().engine(),
            Self::Http { component, .. }
            | Self::Command { component, .. }
            | Self::AsyncCommand { component, .. }
            | Self::Plugin { component } => component.engine(),
        }
    }
}

/// Makes programs and remembers those in use.
pub struct Programs {
    engine: Engine,
    components: ComponentLinker<ComponentState>,
    modules: ModuleLinker<ModuleState>,
    loaded: HashMap<String, Weak<Program>>,
}

impl Programs {
    pub fn new(engine: Engine) -> wasmtime::Result<Self> {
        let components = offer::component_linker(&engine)?;
        let modules = offer::module_linker(&engine)?;
        Ok(Self { engine, components, modules, loaded: HashMap::new() })
    }

    /// The program for `digest`, loaded from `code` unless some container has it already.
    pub fn load(&mut self, digest: &str, description: &Description, code: File) -> wasmtime::Result<Arc<Program>> {
        if let Some(program) = self.loaded.get(digest).and_then(Weak::upgrade) {
            return Ok(program);
        }
        let program = Arc::new(match description.format {
            Format::Component => self.load_component(description, code)?,
            Format::Module => {
                Program::Module { module: self.modules.instantiate_pre(&open_module(&self.engine, code)?)? }
            }
        });
        self.loaded.retain(|_, program| program.strong_count() > 0);
        self.loaded.insert(digest.to_owned(), Arc::downgrade(&program));
        Ok(program)
    }

    fn load_component(&self, description: &Description, code: File) -> wasmtime::Result<Program> {
        let component = self.components.instantiate_pre(&open_component(&self.engine, &code)?)?;
        Ok(match description.workload() {
            Workload::HttpService => {
                Program::Http { serve: ProxyPre::P3(p3::bindings::ServicePre::new(component.clone())?), component }
            }
            Workload::HttpProxy => {
                Program::Http { serve: ProxyPre::P2(p2::bindings::ProxyPre::new(component.clone())?), component }
            }
            Workload::AsyncCommand => {
                Program::AsyncCommand { run: AsyncCommandPre::new(component.clone())?, component }
            }
            Workload::Command => Program::Command { run: CommandPre::new(component.clone())?, component },
            Workload::Start | Workload::Plugin => Program::Plugin { component },
        })
    }
}

#[allow(unsafe_code, reason = "precompiled code is trusted machine code; see SAFETY")]
fn open_component(engine: &Engine, code: &File) -> wasmtime::Result<Component> {
    // SAFETY: the file was opened by the privileged side after its seal was checked: this node's
    // compiler made it, from a directory nobody else can write, and it is never changed in place.
    unsafe { Component::deserialize_file(engine, format!("/proc/self/fd/{}", code.as_raw_fd())) }
}

#[allow(unsafe_code, reason = "precompiled code is trusted machine code; see SAFETY")]
fn open_module(engine: &Engine, code: File) -> wasmtime::Result<Module> {
    // SAFETY: as for components.
    unsafe { Module::deserialize_open_file(engine, code) }
}
