//! Native code loaded once per digest and linked once; instances are cheap from here.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use rustix::mm::Advice;
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

    /// Where the code file is mapped.
    fn image(&self) -> Range<*const u8> {
        match self {
            Self::Module { module } => module.module().image_range(),
            Self::Http { component, .. }
            | Self::Command { component, .. }
            | Self::AsyncCommand { component, .. }
            | Self::Plugin { component } => component.component().image_range(),
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
        give_back_pages(&program.image());
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

/// Unmaps the pages that loading touched: the tables of a component are read once, and a pod nobody calls
/// should cost no more than its own few structures. The page cache keeps them, so a call maps what it
/// needs again without the disk (`madvise(2)`, `MADV_DONTNEED`).
///
/// It saves memory and nothing depends on it, so a refusal is only logged.
#[allow(unsafe_code, reason = "the pages come back from the file as they were; see SAFETY")]
fn give_back_pages(image: &Range<*const u8>) {
    let bytes = image.end.addr() - image.start.addr();
    // SAFETY: the range is a private mapping of a file that is never changed in place, made by
    // `open_component` or `open_module`, and read-only since: wasmtime refuses code with relocations,
    // so no page was written, and each reads the same when it is mapped again.
    let given_back = unsafe { rustix::mm::madvise(image.start.cast_mut().cast(), bytes, Advice::LinuxDontNeed) };
    if let Err(error) = given_back {
        tracing::debug!(%error, bytes, "keep the pages that loading touched");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::engine::{compile_engine, host_engine};

    /// KiB of the file's mappings that this process holds (`proc_pid_smaps(5)`, `Rss`).
    fn resident_kib(path: &str) -> Option<u64> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut lines = smaps.lines().skip_while(|line| !line.ends_with(path)).peekable();
        lines.peek()?;
        let mut kib = 0;
        let mut is_ours = false;
        for line in lines {
            let mut words = line.split_whitespace();
            match words.next()? {
                "Rss:" if is_ours => kib += words.next()?.parse::<u64>().ok()?,
                first if !first.ends_with(':') => is_ours = line.ends_with(path),
                _ => {}
            }
        }
        Some(kib)
    }

    #[test]
    fn a_loaded_program_keeps_no_pages_of_its_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let data = "x".repeat(300_000);
        let wat = format!("(module (memory 10) (data (i32.const 0) \"{data}\") (func (export \"_start\")))");
        let code = compile_engine().unwrap().precompile_module(&wat::parse_str(wat).unwrap()).unwrap();
        file.write_all(&code).unwrap();
        let description =
            Description { format: Format::Module, imports: Vec::new(), exports: vec!["_start".to_owned()] };

        let (engine, _) = host_engine().unwrap();
        let mut programs = Programs::new(engine).unwrap();
        let program = programs.load("sha256:one", &description, file.reopen().unwrap()).unwrap();

        assert_eq!(resident_kib(file.path().to_str().unwrap()), Some(0));
        drop(program);
    }
}
