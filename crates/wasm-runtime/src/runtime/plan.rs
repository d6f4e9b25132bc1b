//! From a container's configuration to what its host is told. Pure: no files, no clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cri::{ContainerConfig, DnsConfig, ImageKind, NetworkAttachment, PodSandboxConfig, Protocol, Resources};

use crate::artifact::{Description, Workload};
use crate::protocol::{Chain, Egress, Grants, HttpRoute, Limits, Preopen, Reuse, Sockets, StartContainer};

const ALLOWED_HOSTS: &str = "knarr.dev/allowed-hosts";
const ALLOW_SOCKETS: &str = "knarr.dev/allow-sockets";
const REQUEST_TIMEOUT: &str = "knarr.dev/request-timeout";
/// `cache,sessions=prod-sessions`: what a guest opens, and the bucket where it is not of that name.
const BUCKETS: &str = "knarr.dev/buckets";
/// Where in the guest the mount is whose files are configuration.
const CONFIG_DIR: &str = "knarr.dev/config-dir";
const CALLS_AT_ONCE: &str = "knarr.dev/calls-at-once";
const CALLS_PER_SECOND: &str = "knarr.dev/calls-per-second";
/// Requests that one instance serves, one after the other and at a time, and how many seconds it waits for more.
const REQUESTS_PER_INSTANCE: &str = "knarr.dev/requests-per-instance";
const REQUESTS_PER_INSTANCE_AT_ONCE: &str = "knarr.dev/requests-per-instance-at-once";
const INSTANCE_IDLE_TIMEOUT: &str = "knarr.dev/instance-idle-timeout";
/// `true`: nothing runs by itself, only exports are called.
const INVOKE_ONLY: &str = "knarr.dev/invoke-only";
/// Requests that are calls of exports, as JSON; only together with the former.
const HTTP_ROUTES: &str = "knarr.dev/http-routes";
/// Interfaces and packages, separated by commas; the component may import no others.
const ALLOWED_IMPORTS: &str = "knarr.dev/allowed-imports";
/// Set by the agent for pods of a Spin RuntimeClass.
const RUNTIME_CLASS: &str = "knarr.dev/runtime-class";
const SPIN_LISTEN: &str = "SPIN_HTTP_LISTEN_ADDR";

const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 30_000;
const REQUESTS_AT_ONCE: usize = 256;
/// For `wasi:http/service`, as `wasmtime serve` has it.
const REUSE_DEFAULT: Reuse = Reuse { requests: 128, at_once: 16, idle_ms: 1_000 };
const INSTANCE_IDLE_MS_MAX: u64 = 60_000;
const CONNECTIONS: usize = 4096;
const HTTP_PORT_DEFAULT: u16 = 8080;
const HTTP_PORT_SPIN: u16 = 80;
const DNS_PORT: u16 = 53;
const NDOTS_DEFAULT: usize = 1;
const CLUSTER_DOMAIN_DEFAULT: &str = "cluster.local";

/// What to send, and what to open for it.
#[derive(Debug, PartialEq, Eq)]
pub struct StartPlan {
    pub spec: StartContainer,
    /// One per `spec.preopens`.
    pub sources: Vec<Source>,
}

/// The host side of a preopened directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Directory(PathBuf),
    /// Single files that are mounted into one guest directory: name and host path. WASI knows only
    /// directories, so they are linked into one of their own.
    Files(Vec<(String, PathBuf)>),
}

/// `is_file` tells which mounts are single files.
pub fn start(
    id: &str,
    sandbox: &PodSandboxConfig,
    container: &ContainerConfig,
    description: &Description,
    is_file: impl Fn(&Path) -> bool,
) -> StartPlan {
    let (argv0, digest, root) = match &container.image.kind {
        ImageKind::Wasm { argv0, digest, root, .. } => (argv0.clone(), digest.clone(), root.as_deref()),
        ImageKind::Rootfs { .. } => (String::new(), String::new(), None),
    };
    let (preopens, sources): (Vec<Preopen>, Vec<Source>) = mounts(container, root, is_file).into_iter().unzip();
    let env = env(container);
    let invoke_only = annotation(sandbox, container, INVOKE_ONLY) == Some("true");
    let routes = if invoke_only { routes(sandbox, container) } else { Vec::new() };
    let serves_http = if invoke_only { !routes.is_empty() } else { description.workload().serves_http() };
    let spec = StartContainer {
        id: id.to_owned(),
        digest,
        description: description.clone(),
        args: args(argv0, container),
        working_dir: container.working_dir.clone().or_else(|| container.image.config.working_dir.clone()),
        grants: grants(sandbox, container, &preopens),
        preopens,
        stays: false,
        listen: serves_http.then(|| listen(sandbox, container, &env)),
        invoke_only,
        routes,
        env,
        limits: limits(sandbox, container, description.workload()),
        egress: egress(sandbox, container),
        chain: Chain::default(),
    };
    StartPlan { spec, sources }
}

/// The first word of a command names the program, which here is the image itself.
fn args(argv0: String, container: &ContainerConfig) -> Vec<String> {
    let image = &container.image.config;
    let (command, args) = match (container.command.is_empty(), container.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &container.args),
        (false, _) => (&container.command, &container.args),
    };
    std::iter::once(argv0).chain(command.iter().skip(1).cloned()).chain(args.iter().cloned()).collect()
}

/// The image's variables, overridden by the pod's, in that order.
fn env(container: &ContainerConfig) -> Vec<(String, String)> {
    let image = container.image.config.env.iter().filter_map(|pair| pair.split_once('='));
    let image = image.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in image.chain(container.env.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => env.push((name, value)),
        }
    }
    env
}

fn mounts(container: &ContainerConfig, root: Option<&Path>, is_file: impl Fn(&Path) -> bool) -> Vec<(Preopen, Source)> {
    let mut directories = Vec::new();
    if let Some(root) = root {
        let preopen = Preopen { guest_path: "/".to_owned(), read_only: true };
        directories.push((preopen, Source::Directory(root.to_owned())));
    }
    let mut files: BTreeMap<(String, bool), Vec<(String, PathBuf)>> = BTreeMap::new();
    for mount in container.mounts.iter().chain(&container.termination_message) {
        let guest_path = mount.container_path.clone();
        if !is_file(&mount.host_path) {
            let preopen = Preopen { guest_path, read_only: mount.read_only };
            directories.push((preopen, Source::Directory(mount.host_path.clone())));
        } else if let Some((parent, name)) = guest_path.rsplit_once('/') {
            let parent = if parent.is_empty() { "/" } else { parent };
            let group = files.entry((parent.to_owned(), mount.read_only)).or_default();
            group.push((name.to_owned(), mount.host_path.clone()));
        }
    }
    for ((guest_path, read_only), files) in files {
        // A directory mounted at the same place wins: its content is what the pod asked for there.
        if directories.iter().all(|(preopen, _)| preopen.guest_path != guest_path) {
            directories.push((Preopen { guest_path, read_only }, Source::Files(files)));
        }
    }
    directories
}

fn annotation<'a>(sandbox: &'a PodSandboxConfig, container: &'a ContainerConfig, name: &str) -> Option<&'a str> {
    container.annotations.get(name).or_else(|| sandbox.annotations.get(name)).map(String::as_str)
}

fn listen(sandbox: &PodSandboxConfig, container: &ContainerConfig, env: &[(String, String)]) -> SocketAddr {
    let ip = match &sandbox.network {
        NetworkAttachment::Shared { ip } => *ip,
        // The pod's own namespace (or the machine): localhost has to answer too.
        NetworkAttachment::Namespace { .. } | NetworkAttachment::Host { .. } => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let declared = container.ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.container_port);
    let spin = env.iter().find(|(name, _)| name == SPIN_LISTEN);
    let spin = spin.and_then(|(_, address)| address.rsplit_once(':')?.1.parse().ok());
    let class = annotation(sandbox, container, RUNTIME_CLASS).filter(|class| class.contains("spin"));
    let port = declared.or(spin).or(class.map(|_| HTTP_PORT_SPIN)).unwrap_or(HTTP_PORT_DEFAULT);
    SocketAddr::new(ip, port)
}

/// The container's own, else the pod's.
pub fn cpu_limit(container: &Resources, pod: &Resources) -> Option<u64> {
    container.cpu_limit_millis.or(pod.cpu_limit_millis).filter(|millis| *millis > 0)
}

/// The container's own, else the pod's.
pub fn memory_limit(container: &Resources, pod: &Resources) -> u64 {
    let memory = container.memory_limit_bytes.or(pod.memory_limit_bytes);
    memory.filter(|bytes| *bytes > 0).unwrap_or(MEMORY_BYTES_DEFAULT)
}

fn limits(sandbox: &PodSandboxConfig, container: &ContainerConfig, workload: Workload) -> Limits {
    Limits {
        memory_bytes: memory_limit(&container.resources, &sandbox.resources),
        cpu_millis: cpu_limit(&container.resources, &sandbox.resources),
        request_timeout_ms: milliseconds(sandbox, container, REQUEST_TIMEOUT).unwrap_or(REQUEST_TIMEOUT_MS_DEFAULT),
        requests_at_once: number(sandbox, container, CALLS_AT_ONCE).unwrap_or(REQUESTS_AT_ONCE),
        connections: CONNECTIONS,
        calls_per_second: number(sandbox, container, CALLS_PER_SECOND),
        reuse: reuse(sandbox, container, workload),
    }
}

/// A component of 0.2 is made for one request and gets no other unless the pod says that it bears it; it has one at a
/// time in any case.
fn reuse(sandbox: &PodSandboxConfig, container: &ContainerConfig, workload: Workload) -> Option<Reuse> {
    let default = match workload {
        Workload::HttpService => REUSE_DEFAULT,
        Workload::HttpProxy => Reuse { requests: 1, at_once: 1, ..REUSE_DEFAULT },
        Workload::AsyncCommand | Workload::Command | Workload::Start | Workload::Plugin => return None,
    };
    let requests = number(sandbox, container, REQUESTS_PER_INSTANCE).unwrap_or(default.requests);
    let at_once = number(sandbox, container, REQUESTS_PER_INSTANCE_AT_ONCE).unwrap_or(default.at_once);
    let at_once = if workload == Workload::HttpService { at_once } else { 1 };
    let idle_ms = milliseconds(sandbox, container, INSTANCE_IDLE_TIMEOUT).unwrap_or(default.idle_ms);
    let idle_ms = idle_ms.min(INSTANCE_IDLE_MS_MAX);
    (requests > 1).then_some(Reuse { requests, at_once, idle_ms })
}

/// Who wrote something else than routes has none.
fn routes(sandbox: &PodSandboxConfig, container: &ContainerConfig) -> Vec<HttpRoute> {
    let text = annotation(sandbox, container, HTTP_ROUTES).unwrap_or("[]");
    serde_json::from_str(text).unwrap_or_default()
}

/// An annotation that is a number of seconds above zero.
fn milliseconds(sandbox: &PodSandboxConfig, container: &ContainerConfig, name: &str) -> Option<u64> {
    let seconds = annotation(sandbox, container, name)?.trim().trim_end_matches('s').parse::<f64>().ok()?;
    (seconds > 0.0 && seconds.is_finite()).then(|| (seconds * 1000.0).ceil() as u64)
}

/// An annotation that is a whole number above zero.
fn number<T: std::str::FromStr + PartialOrd + From<u8>>(
    sandbox: &PodSandboxConfig,
    container: &ContainerConfig,
    name: &str,
) -> Option<T> {
    let number = annotation(sandbox, container, name)?.trim().parse::<T>().ok()?;
    (number > T::from(0)).then_some(number)
}

/// Imports of the component that it was not granted. Without a list it may have all that the node offers.
pub fn refused_imports(sandbox: &PodSandboxConfig, container: &ContainerConfig, imports: &[String]) -> Vec<String> {
    let allowed = annotation(sandbox, container, ALLOWED_IMPORTS).unwrap_or_default();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let unversioned = |name: &str| name.split('@').next().unwrap_or(name).to_owned();
    let is_allowed = |import: &str| {
        let name = unversioned(import);
        let package = name.split('/').next().unwrap_or(&name);
        allowed.iter().any(|one| *one == import || unversioned(one) == name || *one == package)
    };
    let refused = |import: &&String| !allowed.is_empty() && !is_allowed(import);
    imports.iter().filter(refused).cloned().collect()
}

fn egress(sandbox: &PodSandboxConfig, container: &ContainerConfig) -> Egress {
    let own_localhost = matches!(sandbox.network, NetworkAttachment::Namespace { .. });
    let allowed = annotation(sandbox, container, ALLOWED_HOSTS).unwrap_or_default();
    let allowed = allowed.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty());
    let sockets = match annotation(sandbox, container, ALLOW_SOCKETS) {
        Some("true") => Sockets::All,
        _ if own_localhost => Sockets::Localhost,
        _ => Sockets::Denied,
    };
    let dns = &sandbox.dns;
    Egress {
        nameservers: dns.servers.iter().filter_map(|server| nameserver(server)).collect(),
        searches: dns.searches.clone(),
        ndots: dns
            .options
            .iter()
            .find_map(|option| option.strip_prefix("ndots:")?.parse().ok())
            .unwrap_or(NDOTS_DEFAULT),
        cluster_domain: cluster_domain(dns),
        allowed_hosts: allowed.collect(),
        own_localhost,
        source: own_address(&sandbox.network),
        judged: false,
        sockets,
    }
}

/// Other pods of its host have other ones.
fn own_address(network: &NetworkAttachment) -> Option<IpAddr> {
    match network {
        NetworkAttachment::Shared { ip } => Some(*ip),
        NetworkAttachment::Namespace { .. } | NetworkAttachment::Host { .. } => None,
    }
}

/// What the guest may open as a `wasi:keyvalue` store, and the bucket of the pod's namespace that it gets.
pub fn buckets(sandbox: &PodSandboxConfig, container: &ContainerConfig) -> Vec<(String, String)> {
    let granted = annotation(sandbox, container, BUCKETS).unwrap_or_default();
    let granted = granted.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (opened_as, bucket) = part.split_once('=').unwrap_or((part, part));
        (opened_as.trim().to_owned(), bucket.trim().to_owned())
    });
    granted.collect()
}

fn grants(sandbox: &PodSandboxConfig, container: &ContainerConfig, preopens: &[Preopen]) -> Grants {
    let dir = annotation(sandbox, container, CONFIG_DIR).map(|dir| dir.trim().trim_end_matches('/'));
    let is_dir = |preopen: &Preopen| dir.is_some_and(|dir| preopen.guest_path.trim_end_matches('/') == dir);
    Grants {
        stores: buckets(sandbox, container).into_iter().map(|(opened_as, _)| opened_as).collect(),
        config_dir: preopens.iter().position(is_dir),
    }
}

fn nameserver(text: &str) -> Option<SocketAddr> {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    bare.ok().or_else(|| text.parse().ok())
}

/// The search list of a cluster pod is `<ns>.svc.<domain> svc.<domain> <domain>`.
fn cluster_domain(dns: &DnsConfig) -> String {
    let domain = dns.searches.iter().find_map(|search| search.strip_prefix("svc."));
    domain.unwrap_or(CLUSTER_DOMAIN_DEFAULT).trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
