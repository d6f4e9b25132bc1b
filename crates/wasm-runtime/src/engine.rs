//! The one place where wasmtime's `Config` is made.
//!
//! Owns: the settings every process shares. Native code is bound to them: the compiler process,
//! the sandbox hosts and the cache key must agree, so nobody else may call `Config::new`.
//! May not know: containers, files, sockets.

use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

/// Most instances a host keeps slots for, whatever the machine.
const POOL_SLOTS_MAX: u32 = 1000;
/// Fewest slots worth reserving address space for; below this a host allocates on demand.
const POOL_SLOTS_MIN: u32 = 32;
/// One slot per this much of the machine's memory.
const POOL_MIB_PER_SLOT: u64 = 32;
/// Core instances, tables and memories per component slot: adapters and interpreters bring several.
const CORE_INSTANCES_PER_SLOT: u32 = 6;
const MEMORIES_PER_SLOT: u32 = 2;
/// What one module may define. Two tables are usual (functions and external references), several memories are not.
const TABLES_PER_MODULE: u32 = 10;
const MEMORIES_PER_MODULE: u32 = 8;
/// A large C++ program or interpreter has tens of thousands of functions in its table. Costs addresses, no memory.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// What a slot keeps mapped between two instances. The pages that the last guest wrote are put back to
/// the module's image by copying, which is cheaper than giving them up (a system call that interrupts
/// the other CPUs) and faulting them in again. `PAGEMAP_SCAN` (Linux 6.7) finds those pages; without
/// it the whole range would be copied each time, so [`pool`] keeps nothing then.
const KEPT_MEMORY_BYTES: usize = 1 << 20;
const KEPT_TABLE_BYTES: usize = 64 << 10;
/// A guest's own stack, and the native stack it and the host calls under it run on.
const WASM_STACK_BYTES: usize = 512 << 10;
const ASYNC_STACK_BYTES: usize = 2 << 20;

/// Where instances get their memory from. It does not change the compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// Mapped when needed: for processes that run little (the compiler).
    OnDemand,
    /// Reserved ahead, reused: three times cheaper per request.
    Pooling { slots: u32 },
}

/// The settings of every engine of every Knarr process.
pub fn engine_config(allocation: Allocation) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.memory_init_cow(true);
    config.wasm_component_model_async(true);
    config.max_wasm_stack(WASM_STACK_BYTES);
    config.async_stack_size(ASYNC_STACK_BYTES);
    // Shared memories are not counted by the memory limiter.
    config.wasm_threads(false);
    // Line tables of the guest are read on a trap only when the guest carries them.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    match allocation {
        Allocation::OnDemand => config.allocation_strategy(InstanceAllocationStrategy::OnDemand),
        Allocation::Pooling { slots } => config.allocation_strategy(pool(slots)),
    };
    config
}

fn pool(slots: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_PER_SLOT)
        .total_memories(slots * MEMORIES_PER_SLOT)
        .total_tables(slots * CORE_INSTANCES_PER_SLOT)
        .total_stacks(slots)
        .total_gc_heaps((slots / 8).max(8))
        .max_core_instances_per_component(60)
        .max_memories_per_component(MEMORIES_PER_MODULE)
        .max_memories_per_module(MEMORIES_PER_MODULE)
        .max_tables_per_component(60)
        .max_tables_per_module(TABLES_PER_MODULE)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(16);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(KEPT_MEMORY_BYTES)
            .table_keep_resident(KEPT_TABLE_BYTES);
    }
    pool
}

/// The engine of a process that only compiles or inspects.
pub fn compile_engine() -> wasmtime::Result<Engine> {
    Engine::new(&engine_config(Allocation::OnDemand))
}

/// The engine of a sandbox host: pooled if the address space can be had, else on demand.
pub fn host_engine() -> wasmtime::Result<(Engine, Allocation)> {
    for allocation in attempts(machine_memory_mib()) {
        match Engine::new(&engine_config(allocation)) {
            Ok(engine) => return Ok((engine, allocation)),
            Err(error) if allocation == Allocation::OnDemand => return Err(error),
            Err(error) => tracing::warn!(?allocation, %error, "cannot reserve the instance pool, trying a smaller one"),
        }
    }
    unreachable!("attempts() ends with on-demand, which returns")
}

fn attempts(memory_mib: u64) -> Vec<Allocation> {
    let wanted = u32::try_from(memory_mib / POOL_MIB_PER_SLOT).unwrap_or(POOL_SLOTS_MAX);
    let mut slots = wanted.clamp(POOL_SLOTS_MIN, POOL_SLOTS_MAX);
    let mut list = Vec::new();
    while slots >= POOL_SLOTS_MIN {
        list.push(Allocation::Pooling { slots });
        slots /= 4;
    }
    list.push(Allocation::OnDemand);
    list
}

fn machine_memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Names the engine build, settings and CPU features that native code depends on: 16 hex digits.
/// Equal strings mean that code compiled by one process loads in the other.
pub fn compatibility() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| match compile_engine() {
        Ok(engine) => {
            let mut hasher = ShaHasher(Sha256::new());
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hex::encode(&hasher.0.finalize()[..8])
        }
        Err(error) => {
            tracing::error!(%error, "this machine cannot run the Wasm engine");
            "none".to_owned()
        }
    })
}

/// Feeds what implements `Hash` to SHA-256, because the standard hasher may change between builds.
struct ShaHasher(Sha256);

impl Hasher for ShaHasher {
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_shrink_before_giving_up() {
        let check = |mib: u64, expect: &[u32]| {
            let slots: Vec<u32> = attempts(mib)
                .into_iter()
                .filter_map(|a| match a {
                    Allocation::Pooling { slots } => Some(slots),
                    Allocation::OnDemand => None,
                })
                .collect();
            assert_eq!(slots, expect, "{mib} MiB");
            assert_eq!(attempts(mib).last(), Some(&Allocation::OnDemand));
        };
        check(0, &[32]);
        check(4096, &[128, 32]);
        check(1 << 20, &[1000, 250, 62]);
    }

    #[test]
    fn code_from_the_compiler_loads_in_a_pooled_host() {
        let compiler = compile_engine().unwrap();
        let code = compiler.precompile_module(b"\0asm\x01\0\0\0").unwrap();
        let (host, _) = host_engine().unwrap();
        // SAFETY: the bytes were produced two lines above.
        #[allow(unsafe_code)]
        let loaded = unsafe { wasmtime::Module::deserialize(&host, code) };
        assert!(loaded.is_ok(), "{:?}", loaded.err());
    }

    #[test]
    fn compatibility_is_stable_within_a_build() {
        assert_eq!(compatibility(), compatibility());
        assert_eq!(compatibility().len(), 16);
    }
}
