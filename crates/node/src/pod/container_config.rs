//! Turns a container of a pod into what a runtime is told. Pure but for what `Inputs` brings.

use std::path::PathBuf;

use cri::{
    ContainerConfig, ContainerPort, DnsConfig, Mount, NetworkAttachment, PodSandboxConfig, Protocol, SeccompProfile,
    SecurityContext, Stdio,
};
use k8s_openapi::api::core::v1::{self as core, Container};

use super::action::CreateContainer;
use super::backoff::Failure;
use super::resources;
use super::spec::PodView;
use crate::env::expand;

/// What the caller looked up for the container.
pub struct Inputs {
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub log_path: PathBuf,
    pub termination_message: Mount,
}

/// The configuration of one attempt of a container.
pub fn container_config(
    pod: PodView<'_>,
    container: &Container,
    create: &CreateContainer,
    inputs: Inputs,
) -> Result<ContainerConfig, Failure> {
    let value_of = |name: &str| inputs.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, value_of)).collect()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: create.attempt,
        image: (*create.image).clone(),
        command,
        args,
        working_dir: container.working_dir.clone(),
        mounts: inputs.mounts,
        ports: ports(container),
        resources: resources::of_container(pod, container),
        security: security(pod, container)?,
        log_path: inputs.log_path,
        termination_message: Some(inputs.termination_message),
        stdio: Stdio {
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
        },
        process_namespace_of: create.process_namespace_of.clone(),
        annotations: pod.pod.metadata.annotations.clone().unwrap_or_default(),
        env: inputs.env,
    })
}

fn ports(container: &Container) -> Vec<ContainerPort> {
    let port = |port: &core::ContainerPort| {
        Some(ContainerPort {
            name: port.name.clone(),
            container_port: u16::try_from(port.container_port).ok()?,
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
        })
    };
    container.ports.iter().flatten().filter_map(port).collect()
}

fn security(pod: PodView<'_>, container: &Container) -> Result<SecurityContext, Failure> {
    let shared = pod.spec().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |value: Option<i64>| -> Result<Option<u32>, Failure> {
        let bad =
            |value| Failure::new("CreateContainerConfigError", format!("user or group id {value} is out of range"));
        value.map(|value| u32::try_from(value).map_err(|_| bad(value))).transpose()
    };
    let run_as_user = id(own.run_as_user.or(shared.run_as_user))?;
    let must_not_be_root = own.run_as_non_root.or(shared.run_as_non_root) == Some(true);
    if must_not_be_root && run_as_user == Some(0) {
        let why = "container's runAsUser breaks non-root policy";
        return Err(Failure::new("CreateContainerConfigError", why));
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let groups = shared.supplemental_groups.iter().flatten().copied().chain(shared.fs_group);
    let groups: Result<Vec<Option<u32>>, Failure> = groups.map(|group| id(Some(group))).collect();
    let profile = own.seccomp_profile.or(shared.seccomp_profile);
    Ok(SecurityContext {
        run_as_user,
        run_as_group: id(own.run_as_group.or(shared.run_as_group))?,
        supplemental_groups: groups?.into_iter().flatten().collect(),
        capabilities_add: capabilities.add.unwrap_or_default(),
        capabilities_drop: capabilities.drop.unwrap_or_default(),
        privileged: own.privileged.unwrap_or(false),
        read_only_root_filesystem: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: match profile.as_ref().map(|profile| profile.type_.as_str()) {
            Some("Unconfined") => SeccompProfile::Unconfined,
            _ => SeccompProfile::RuntimeDefault,
        },
    })
}

/// The cluster's part of name resolution.
pub struct ClusterDns<'a> {
    pub server: String,
    pub domain: &'a str,
    /// What the node itself uses.
    pub host: DnsConfig,
}

/// `resolv.conf` of the pod's containers, by `dnsPolicy` and `dnsConfig`.
pub fn dns_config(pod: PodView<'_>, cluster: ClusterDns<'_>) -> DnsConfig {
    let spec = pod.spec();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        "Default" => cluster.host,
        "ClusterFirst" if pod.host_network() => cluster.host,
        _ => {
            let (namespace, domain) = (pod.namespace(), cluster.domain);
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            searches.extend(cluster.host.searches);
            DnsConfig { servers: vec![cluster.server], searches, options: vec!["ndots:5".into()] }
        }
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        dns.servers.extend(own.nameservers.iter().flatten().cloned());
        dns.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|known| known.split(':').next() != Some(name.as_str()));
            dns.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    dns
}

/// Reads the text of a `resolv.conf`.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

/// The sandbox of a pod.
pub fn sandbox_config(
    pod: PodView<'_>,
    network: NetworkAttachment,
    dns: DnsConfig,
    isolation: cri::Isolation,
) -> PodSandboxConfig {
    let spec = pod.spec();
    PodSandboxConfig {
        pod_uid: pod.uid().to_owned(),
        name: pod.name().to_owned(),
        namespace: pod.namespace().to_owned(),
        hostname: hostname(pod),
        network,
        dns,
        cgroup_parent: format!("knarr/pods/{}", pod.uid()),
        resources: resources::of_pod(pod),
        isolation,
        share_process_namespace: spec.and_then(|spec| spec.share_process_namespace).unwrap_or(false),
        annotations: pod.pod.metadata.annotations.clone().unwrap_or_default(),
    }
}

/// `spec.hostname` or the pod's name, at most 63 bytes.
pub fn hostname(pod: PodView<'_>) -> String {
    let name = pod.spec().and_then(|spec| spec.hostname.as_deref()).unwrap_or_else(|| pod.name());
    let short: String = name.chars().take(63).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The managed `/etc/hosts` of a pod.
pub fn hosts_file(pod: PodView<'_>, ip: std::net::IpAddr, domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let host = hostname(pod);
    match pod.spec().and_then(|spec| spec.subdomain.as_deref()) {
        Some(subdomain) => {
            let namespace = pod.namespace();
            text.push_str(&format!("{ip}\t{host}.{subdomain}.{namespace}.svc.{domain}\t{host}\n"));
        }
        None => text.push_str(&format!("{ip}\t{host}\n")),
    }
    for alias in pod.spec().and_then(|spec| spec.host_aliases.as_ref()).into_iter().flatten() {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}
