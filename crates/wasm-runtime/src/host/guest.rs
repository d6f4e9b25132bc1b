//! What an instance sees: its store data, made afresh for every instance.
//!
//! Owns: turning a container's settings into a WASI context. May not know: how instances are
//! scheduled or what they export.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::host::capability::{Granted, Held};
use crate::host::container::Container;
use crate::host::logs::Stream;
use crate::host::meter::MemoryShare;
use crate::host::outgoing::OutgoingHttp;
use crate::protocol::Sockets;

/// Things of the host's that one instance may hold at a time: streams, files, sockets, fields. The process has a
/// million files for all its guests.
const HANDLES_MAX: usize = 8192;
/// Bytes of strings and lists that one call of the guest's may hand over.
const CALL_BYTES_MAX: usize = 32 << 20;
/// Of one `get-random-bytes`.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// Store data of a component.
pub struct ComponentState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    outgoing: OutgoingHttp,
    memory: MemoryShare,
    granted: Arc<Granted>,
    held: Held,
}

impl ComponentState {
    /// What its container was given beyond WASI.
    pub fn granted(&self) -> &Arc<Granted> {
        &self.granted
    }

    /// The handles of the instance, and what those of capabilities take.
    pub fn table_and_held(&mut self) -> (&mut ResourceTable, &mut Held) {
        (&mut self.table, &mut self.held)
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

/// Store data of a core module.
pub struct ModuleState {
    pub wasi: WasiP1Ctx,
    memory: MemoryShare,
}

/// A store ready to instantiate into, and the flag that tells an OOM from another trap.
pub struct Guest<T: 'static> {
    pub store: Store<T>,
    pub refused: Arc<AtomicBool>,
}

impl<T> Guest<T> {
    pub fn was_refused_memory(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }
}

pub fn component(
    engine: &Engine,
    container: &Container,
    deadline: Option<Instant>,
) -> wasmtime::Result<Guest<ComponentState>> {
    let memory = container.memory_share();
    let refused = memory.refused();
    let state = ComponentState {
        wasi: context(container)?.build(),
        http: WasiHttpCtx::new(),
        table: limited_table(),
        outgoing: OutgoingHttp::new(Arc::clone(&container.outgoing)),
        memory,
        granted: Arc::clone(&container.granted),
        held: Held::default(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    give_way(&mut store, deadline);
    Ok(Guest { store, refused })
}

pub fn module(
    engine: &Engine,
    container: &Container,
    deadline: Option<Instant>,
) -> wasmtime::Result<Guest<ModuleState>> {
    let memory = container.memory_share();
    let refused = memory.refused();
    let mut wasi = context(container)?.build_p1();
    wasi.ctx().table.set_max_capacity(HANDLES_MAX);
    let mut store = Store::new(engine, ModuleState { wasi, memory });
    store.limiter(|state| &mut state.memory);
    give_way(&mut store, deadline);
    Ok(Guest { store, refused })
}

fn limited_table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    table
}

/// On every tick the guest yields to others; past its deadline it traps where it is, so that the
/// log shows where it spun.
fn give_way<T: 'static>(store: &mut Store<T>, deadline: Option<Instant>) {
    store.set_hostcall_fuel(CALL_BYTES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        Ok(match deadline {
            Some(deadline) if Instant::now() >= deadline => UpdateDeadline::Interrupt,
            _ => UpdateDeadline::Yield(1),
        })
    });
}

fn context(container: &Container) -> wasmtime::Result<WasiCtxBuilder> {
    let spec = &container.spec;
    let mut builder = WasiCtx::builder();
    builder
        .args(&spec.args)
        .envs(&spec.env)
        .max_random_size(RANDOM_BYTES_MAX)
        .stdout(container.log.writer(Stream::Stdout))
        .stderr(container.log.writer(Stream::Stderr));
    if let Some(dir) = &spec.working_dir {
        builder.initial_cwd(dir);
    }
    for (dir, preopen) in container.preopens.iter().zip(&spec.preopens) {
        let perms = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        // Opened by the privileged side; the path through our own table gives a fresh descriptor.
        builder.preopened_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()), &preopen.guest_path, perms)?;
    }
    let sockets = spec.egress.sockets;
    if sockets != Sockets::Denied {
        builder.allow_tcp(true).allow_udp(true).socket_addr_check(move |address, _| {
            let ip = address.ip();
            let allowed = match sockets {
                Sockets::Denied => false,
                Sockets::Localhost => ip.is_loopback() || ip.is_unspecified(),
                Sockets::All => !is_link_local(ip),
            };
            Box::pin(async move { allowed })
        });
    }
    Ok(builder)
}

fn is_link_local(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
