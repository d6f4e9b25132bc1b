//! From CRI's words to the kernel's: which capabilities, which mounts, which command line. Pure; it
//! touches neither files nor clock, and whatever it refuses is refused before anything was made.

#![deny(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use caps::Capability;
use cri::{
    ContainerConfig, ContainerId, DnsConfig, ImageKind, Mount, PodSandboxConfig, Resources, SeccompProfile,
    SecurityContext,
};

use crate::protocol::ContainerAbout;
use crate::spec::{
    BindMount, CPU_PERIOD_MICROS, ContainerSpec, Limits, ProcessSpec, RootfsSpec, SystemMounts, UserSpec,
};

/// Processes and threads of a container that says nothing about it.
pub const PIDS_LIMIT_DEFAULT: u64 = 4096;
/// The shim lives in the pod's cgroup; the pod's limit must not be eaten by it.
pub const SHIM_MEMORY_BYTES: u64 = 24 * 1024 * 1024;
/// The kernel refuses shorter quotas.
const CPU_QUOTA_MICROS_MIN: u64 = 1000;
const CPU_SHARES_MIN: u64 = 2;
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SIGTERM: i32 = 15;
/// What a program on a terminal finds when nobody chose another.
const TERM_DEFAULT: (&str, &str) = ("TERM", "xterm");
/// What the kubelet gives a pod without any request: first to go when memory is short.
const OOM_SCORE_BEST_EFFORT: i32 = 1000;

/// What Docker leaves a container by default.
const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where a container's things are on the host.
#[derive(Debug, Clone)]
pub struct Place {
    /// The sandbox's directory: `resolv.conf`, `hostname`, `shm`.
    pub sandbox_dir: PathBuf,
    /// The container's own directory for `upper`, `work`, `merged`.
    pub writable: PathBuf,
    pub created_at: SystemTime,
}

/// The name of a container within this runtime. Neither name nor attempt has an underscore in it.
pub fn container_id(pod_uid: &str, name: &str, attempt: u32) -> ContainerId {
    ContainerId(format!("{pod_uid}_{name}_{attempt}"))
}

/// The pod uid in a container's id.
pub fn pod_uid_of(id: &ContainerId) -> &str {
    id.0.rsplitn(3, '_').nth(2).unwrap_or_default()
}

/// Whether a name can be one component of a path and of a cgroup.
pub fn is_path_safe(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(plain)
}

/// Everything about a new container, or why it cannot be. The seccomp program is filled in by the
/// caller, which caches it: see [`wants_seccomp`].
pub fn plan_container(
    sandbox: &PodSandboxConfig,
    config: &ContainerConfig,
    place: &Place,
) -> Result<(ContainerAbout, ContainerSpec), String> {
    if !is_path_safe(&config.name) {
        return Err(format!("{:?} is no container name", config.name));
    }
    let ImageKind::Rootfs { layers } = &config.image.kind else {
        return Err(format!("image {} is Wasm; this runtime runs Linux containers", config.image.reference));
    };
    let about = ContainerAbout {
        id: container_id(&sandbox.pod_uid, &config.name, config.attempt),
        name: config.name.clone(),
        attempt: config.attempt,
        image: config.image.reference.clone(),
        image_id: config.image.image_id.clone(),
        created_at: place.created_at,
        log_path: config.log_path.clone(),
        cgroup: format!("{}/{}-{}", sandbox.cgroup_parent, config.name, config.attempt),
        stop_signal: stop_signal(config.image.config.stop_signal.as_deref())?,
        writable: place.writable.clone(),
    };
    let security = &config.security;
    let spec = ContainerSpec {
        rootfs: RootfsSpec {
            layers: layers.clone(),
            writable: place.writable.clone(),
            read_only: security.read_only_root_filesystem,
        },
        mounts: bind_mounts(sandbox, config, &place.sandbox_dir)?,
        system: system_mounts(security, &place.sandbox_dir),
        process: process(sandbox, config)?,
        limits: container_limits(&config.resources),
        oom_score_adj: oom_score_adj(&config.resources),
        stdio: config.stdio,
        process_namespace_of: config.process_namespace_of.clone(),
    };
    Ok((about, spec))
}

/// Limits of the pod's own cgroup. Its processes do not end together: the shim must stay to say which
/// container ran out of memory.
pub fn pod_limits(resources: &Resources) -> Limits {
    let limits = limits(resources, None);
    Limits { memory_bytes: limits.memory_bytes.map(|bytes| bytes.saturating_add(SHIM_MEMORY_BYTES)), ..limits }
}

pub fn container_limits(resources: &Resources) -> Limits {
    Limits { oom_ends_all: true, ..limits(resources, Some(PIDS_LIMIT_DEFAULT)) }
}

fn limits(resources: &Resources, pids_default: Option<u64>) -> Limits {
    let request = resources.cpu_request_millis.or(resources.cpu_limit_millis);
    Limits {
        memory_bytes: resources.memory_limit_bytes.filter(|bytes| *bytes > 0),
        cpu_quota_micros: resources
            .cpu_limit_millis
            .filter(|millis| *millis > 0)
            .map(|millis| (millis * CPU_PERIOD_MICROS / 1000).max(CPU_QUOTA_MICROS_MIN)),
        cpu_shares: request.map(|millis| (millis * 1024 / 1000).max(CPU_SHARES_MIN)),
        pids: resources.pids_limit.filter(|pids| *pids > 0).or(pids_default),
        oom_ends_all: false,
    }
}

fn oom_score_adj(resources: &Resources) -> i32 {
    if *resources == Resources::default() { OOM_SCORE_BEST_EFFORT } else { 0 }
}

pub fn wants_seccomp(security: &SecurityContext) -> bool {
    !security.privileged && security.seccomp == SeccompProfile::RuntimeDefault
}

fn system_mounts(security: &SecurityContext, sandbox_dir: &Path) -> SystemMounts {
    let unless_privileged = |paths: &[&str]| {
        if security.privileged { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    SystemMounts {
        privileged: security.privileged,
        shm: sandbox_dir.join("shm"),
        masked_paths: unless_privileged(&MASKED_PATHS),
        read_only_paths: unless_privileged(&READ_ONLY_PATHS),
    }
}

fn process(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Result<ProcessSpec, String> {
    let security = &config.security;
    let image = &config.image.config;
    let working_dir = config.working_dir.clone().or_else(|| image.working_dir.clone()).filter(|dir| !dir.is_empty());
    Ok(ProcessSpec {
        args: command_line(config)?,
        env: environment(sandbox, config),
        working_dir: match working_dir {
            Some(dir) if dir.starts_with('/') => dir,
            Some(dir) => format!("/{dir}"),
            None => "/".to_owned(),
        },
        user: UserSpec {
            run_as_user: security.run_as_user,
            run_as_group: security.run_as_group,
            supplemental_groups: security.supplemental_groups.clone(),
            image_user: image.user.clone().filter(|user| !user.is_empty()),
        },
        capabilities: capabilities(security)?,
        no_new_privileges: security.no_new_privileges,
        seccomp: None,
    })
}

/// As Kubernetes combines them: `command` replaces the entrypoint and drops the image's cmd.
fn command_line(config: &ContainerConfig) -> Result<Vec<String>, String> {
    let image = &config.image.config;
    let (head, tail) = if config.command.is_empty() {
        (&image.entrypoint, if config.args.is_empty() { &image.cmd } else { &config.args })
    } else {
        (&config.command, &config.args)
    };
    let args: Vec<String> = head.iter().chain(tail).cloned().collect();
    if args.is_empty() {
        return Err(format!(
            "no command: image {} has neither entrypoint nor cmd, and the container sets neither command nor args",
            config.image.reference
        ));
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err("the command contains a NUL byte".to_owned());
    }
    Ok(args)
}

/// The image's variables, then the container's; a later one of the same name wins in place.
fn environment(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> =
        vec![("PATH".to_owned(), PATH_DEFAULT.to_owned()), ("HOSTNAME".to_owned(), sandbox.hostname.clone())];
    let from_image = config.image.config.env.iter().filter_map(|line| line.split_once('='));
    let from_image = from_image.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in from_image.chain(config.env.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    if config.stdio.tty { with_term(env) } else { env }
}

/// The environment of a program on a terminal.
pub fn with_term(mut env: Vec<(String, String)>) -> Vec<(String, String)> {
    let (name, value) = TERM_DEFAULT;
    if !env.iter().any(|(known, _)| known == name) {
        env.push((name.to_owned(), value.to_owned()));
    }
    env
}

fn capabilities(security: &SecurityContext) -> Result<u64, String> {
    let all = caps::all().into_iter().fold(0, |mask, capability| mask | capability.bitmask());
    if security.privileged {
        return Ok(all);
    }
    let parse = |name: &String| {
        let canonical = caps::to_canonical(&name.to_ascii_uppercase());
        let known: Result<Capability, _> = canonical.parse();
        known.map(|capability| capability.bitmask()).map_err(|_| format!("there is no capability {name:?}"))
    };
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL");
    let mut mask = if security.capabilities_drop.iter().any(|name| is_all(&name)) {
        0
    } else {
        DEFAULT_CAPABILITIES.iter().fold(0, |mask, capability| mask | capability.bitmask())
    };
    if security.capabilities_add.iter().any(|name| is_all(&name)) {
        mask = all;
    }
    for name in security.capabilities_add.iter().filter(|name| !is_all(name)) {
        mask |= parse(name)?;
    }
    for name in security.capabilities_drop.iter().filter(|name| !is_all(name)) {
        mask &= !parse(name)?;
    }
    Ok(mask)
}

fn bind_mounts(
    sandbox: &PodSandboxConfig,
    config: &ContainerConfig,
    sandbox_dir: &Path,
) -> Result<Vec<BindMount>, String> {
    let mut mounts: Vec<BindMount> = Vec::new();
    for mount in config.mounts.iter().chain(&config.termination_message) {
        check_target(&mount.container_path, config.security.privileged)?;
        mounts.push(bind_mount(mount));
    }
    let own =
        [("/etc/hostname", "hostname", true), ("/etc/resolv.conf", "resolv.conf", sandbox.dns != DnsConfig::default())];
    for (target, file, wanted) in own {
        if wanted && !mounts.iter().any(|mount| mount.target == target) {
            let read_only = config.security.read_only_root_filesystem;
            mounts.push(BindMount { source: sandbox_dir.join(file), target: target.to_owned(), read_only });
        }
    }
    mounts.sort_by_key(|mount| components(&mount.target).count());
    Ok(mounts)
}

fn bind_mount(mount: &Mount) -> BindMount {
    BindMount {
        source: mount.host_path.clone(),
        target: format!("/{}", components(&mount.container_path).collect::<Vec<_>>().join("/")),
        read_only: mount.read_only,
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// A volume over `/proc` would hide what container-init must write to and what is masked there.
fn check_target(path: &str, privileged: bool) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("mount path {path:?} {why}"));
    if !path.starts_with('/') {
        return refuse("is not absolute");
    }
    if path.contains('\0') || components(path).any(|part| part == "..") {
        return refuse("contains .. or a NUL byte");
    }
    match components(path).next() {
        None => refuse("is the root directory"),
        Some("proc") => refuse("is inside /proc"),
        Some("sys") if !privileged => refuse("is inside /sys (only a privileged container may have that)"),
        Some(_) => Ok(()),
    }
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`; SIGTERM when the image says nothing.
fn stop_signal(name: Option<&str>) -> Result<i32, String> {
    let Some(name) = name.map(str::trim).filter(|name| !name.is_empty()) else {
        return Ok(SIGTERM);
    };
    let unknown = || format!("the image's stop signal {name:?} is unknown");
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short.strip_prefix("RTMIN") {
        // glibc keeps 32 and 33 for itself, so RTMIN is 34 for every program.
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| unknown())? };
        return if (0..=30).contains(&offset) { Ok(34 + offset) } else { Err(unknown()) };
    }
    let signal: nix::sys::signal::Signal = format!("SIG{short}").parse().map_err(|_| unknown())?;
    Ok(signal as i32)
}

/// The text of `/etc/resolv.conf`.
pub fn render_resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    for (key, values) in [("search", &dns.searches), ("options", &dns.options)] {
        if !values.is_empty() {
            text.push_str(&format!("{key} {}\n", values.join(" ")));
        }
    }
    text
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
