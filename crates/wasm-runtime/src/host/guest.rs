//! What an instance sees: its store data, made afresh for every instance.
//!
//! Owns: turning a container's settings into a WASI context. May not know: how instances are
//! scheduled or what they export.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::host::capability::{Granted, Held};
use crate::host::container::Container;
use crate::host::cpu;
use crate::host::logs::Stream;
use crate::host::meter::MemoryShare;
use crate::host::outgoing::OutgoingHttp;
use crate::host::outgoing::next::NextHandler;
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
    next: NextHandler,
    memory: MemoryShare,
    granted: Arc<Granted>,
    held: Held,
}

impl ComponentState {
    /// What its container was given beyond WASI.
    pub fn granted(&self) -> &Arc<Granted> {
        &self.granted
    }

    /// What the instance takes of its container's limit.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.taken_bytes()
    }

    /// As [`WasiHttpView::http`], for requests that go to the next container of the pod.
    pub fn next_handler(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.next }
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

/// When a guest has to be done.
pub enum Deadline {
    None,
    At(Instant),
    /// It serves several requests, and the time it has changes with them.
    Moving(Arc<Pace>),
}

impl From<Option<Instant>> for Deadline {
    fn from(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::None, Self::At)
    }
}

impl From<Arc<Pace>> for Deadline {
    fn from(pace: Arc<Pace>) -> Self {
        Self::Moving(pace)
    }
}

/// How long an instance may go on, and whether it computes.
pub struct Pace {
    until: Mutex<Instant>,
    /// A tick met it in the middle of computing.
    is_busy: AtomicBool,
}

impl Pace {
    pub fn until(until: Instant) -> Arc<Self> {
        Arc::new(Self { until: Mutex::new(until), is_busy: AtomicBool::new(false) })
    }

    pub fn set(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    pub fn get(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is about to be polled.
    pub fn begins(&self) {
        self.is_busy.store(false, Ordering::Relaxed);
    }

    /// Since it was last polled it waits for nothing but its thread.
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }
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
    deadline: impl Into<Deadline>,
) -> wasmtime::Result<Guest<ComponentState>> {
    let memory = container.memory_share();
    let refused = memory.refused();
    let state = ComponentState {
        wasi: context(container)?.build(),
        http: WasiHttpCtx::new(),
        table: limited_table(),
        outgoing: OutgoingHttp::new(Arc::clone(&container.outgoing)),
        next: container.next.clone(),
        memory,
        granted: Arc::clone(&container.granted),
        held: Held::default(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    give_way(&mut store, deadline.into());
    Ok(Guest { store, refused })
}

pub fn module(
    engine: &Engine,
    container: &Container,
    deadline: impl Into<Deadline>,
) -> wasmtime::Result<Guest<ModuleState>> {
    let memory = container.memory_share();
    let refused = memory.refused();
    let mut wasi = context(container)?.build_p1();
    wasi.ctx().table.set_max_capacity(HANDLES_MAX);
    let mut store = Store::new(engine, ModuleState { wasi, memory });
    store.limiter(|state| &mut state.memory);
    give_way(&mut store, deadline.into());
    Ok(Guest { store, refused })
}

fn limited_table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    table
}

/// On every tick the guest yields to others; past its deadline it traps where it is, so that the
/// log shows where it spun.
fn give_way<T: 'static>(store: &mut Store<T>, deadline: Deadline) {
    store.set_hostcall_fuel(CALL_BYTES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        let until = match &deadline {
            Deadline::None => None,
            Deadline::At(deadline) => Some(*deadline),
            Deadline::Moving(pace) => {
                pace.is_busy.store(true, Ordering::Relaxed);
                Some(pace.get())
            }
        };
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        if is_over {
            return Ok(UpdateDeadline::Interrupt);
        }
        cpu::give_way();
        Ok(UpdateDeadline::Yield(1))
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
    let (sockets, own_localhost) = (spec.egress.sockets, spec.egress.own_localhost);
    if sockets != Sockets::Denied {
        builder.allow_tcp(true).allow_udp(true).socket_addr_check(move |address, wanted| {
            let allowed = may_use(sockets, own_localhost, address.ip(), reaches_out(wanted));
            Box::pin(async move { allowed })
        });
    }
    Ok(builder)
}

fn reaches_out(wanted: SocketAddrUse) -> bool {
    matches!(wanted, SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend)
}

/// Whose localhost it is decides: in the network namespace of the machine it is the machine's, with all that listens
/// there for nobody else. To connect to the unspecified address is to connect to localhost.
fn may_use(sockets: Sockets, own_localhost: bool, ip: IpAddr, reaches_out: bool) -> bool {
    let ip = ip.to_canonical();
    let is_localhost = ip.is_loopback() || (ip.is_unspecified() && reaches_out);
    match sockets {
        Sockets::Denied => false,
        Sockets::Localhost => is_localhost || ip.is_unspecified(),
        Sockets::All => !is_link_local(ip) && (own_localhost || !is_localhost),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_reach_what_is_the_pods() {
        const BIND: bool = false;
        const CONNECT: bool = true;
        let check = |sockets, own_localhost, ip: &str, reaches_out, expect| {
            let found = may_use(sockets, own_localhost, ip.parse().unwrap(), reaches_out);
            assert_eq!(found, expect, "{sockets:?} {own_localhost} {ip} {reaches_out}");
        };
        for ip in ["10.1.2.3", "127.0.0.1", "0.0.0.0", "169.254.169.254"] {
            check(Sockets::Denied, true, ip, CONNECT, false);
        }
        check(Sockets::Localhost, true, "127.0.0.1", CONNECT, true);
        check(Sockets::Localhost, true, "::1", CONNECT, true);
        check(Sockets::Localhost, true, "0.0.0.0", BIND, true);
        check(Sockets::Localhost, true, "10.1.2.3", CONNECT, false);
        check(Sockets::All, false, "10.1.2.3", CONNECT, true);
        check(Sockets::All, false, "2001:db8::1", CONNECT, true);
        check(Sockets::All, false, "0.0.0.0", BIND, true);
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            check(Sockets::All, false, ip, CONNECT, false);
            check(Sockets::All, true, ip, CONNECT, true);
        }
        check(Sockets::All, false, "127.0.0.1", BIND, false);
        for ip in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"] {
            check(Sockets::All, true, ip, CONNECT, false);
        }
    }
}
