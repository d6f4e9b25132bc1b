//! The command line: every command, flag and example text. What they do is in `commands/`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where everything is kept unless said otherwise.
pub const DATA_DIR: &str = "/var/lib/knarr";

#[derive(Debug, Parser)]
#[command(
    name = "knarr",
    version = env!("CARGO_PKG_VERSION"),
    about = "A Kubernetes-API cluster in one binary: pods are WebAssembly sandboxes first, Linux containers when they have to be",
    arg_required_else_help = true
)]
pub struct Cli {
    /// More log lines on standard error (-v, -vv, -vvv); KNARR_LOG sets a filter
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a one-node cluster in the foreground: control plane and node
    #[command(
        after_help = "Example:\n  sudo knarr up\n  export KUBECONFIG=/var/lib/knarr/admin.kubeconfig\n  kubectl get nodes"
    )]
    Up(UpArgs),
    /// Run a cluster, push the example images, apply the examples, call them and print the answers
    #[command(after_help = "Example:\n  sudo knarr demo --exit")]
    Demo(DemoArgs),
    /// Build, push, pull and list images and Wasm artifacts
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print a kubeconfig for a user, signed by this cluster's authority (needs the data directory)
    #[command(after_help = "Example:\n  sudo knarr kubeconfig --user jane --group dev > jane.kubeconfig")]
    Kubeconfig(KubeconfigArgs),
    /// Show whether the cluster is well: server, nodes, pods that are not ready and why
    #[command(after_help = "Example:\n  sudo knarr status")]
    Status(StatusArgs),
    /// Measure a cluster: start, idle cost, pod starts, requests per second, many pods, API writes
    #[command(
        after_help = "Examples:\n  sudo knarr bench\n  sudo knarr bench up idle -o json\n  knarr bench api --kubeconfig admin.kubeconfig"
    )]
    Bench(BenchArgs),
    /// Print the completion script for a shell
    #[command(after_help = "Example:\n  knarr completion bash > /etc/bash_completion.d/knarr")]
    Completion { shell: Shell },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where state, images, certificates and logs are kept
    #[arg(long, default_value = DATA_DIR, env = "KNARR_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Address of the API server and of the embedded registry
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Address of the node's own endpoint (logs)
    #[arg(long, default_value = "127.0.0.1:10250", value_name = "IP:PORT")]
    pub node_listen: SocketAddr,
    /// Where the administrator's kubeconfig is written [default: <data-dir>/admin.kubeconfig]
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long)]
    pub node_name: Option<String>,
    /// Leave the workloads running when this process stops
    #[arg(long)]
    pub keep_workloads: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub up: UpArgs,
    /// Stop after the answers: exit 0 when every example answered, 1 otherwise
    #[arg(long)]
    pub exit: bool,
}

/// Which cluster a client command talks to.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// The kubeconfig to use [default: $KUBECONFIG, then /var/lib/knarr/admin.kubeconfig]
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Pack a .wasm file, a static program or a directory into an image and push it to the cluster
    #[command(
        after_help = "Examples:\n  knarr image build app.wasm --tag hello:v1\n  knarr image build rootfs/ --tag tools:v1 --entrypoint /bin/tool"
    )]
    Build {
        /// A .wasm file, a static Linux program, or a directory that becomes the root file system
        path: PathBuf,
        /// Name and tag in the embedded registry, such as hello:v1
        #[arg(long, short)]
        tag: String,
        /// Command of a Linux image; repeat for arguments
        #[arg(long)]
        entrypoint: Vec<String>,
        /// Make a wasi/wasm image with tar layers instead of a Wasm artifact
        #[arg(long)]
        compat: bool,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Push an OCI layout directory to the embedded registry
    #[command(after_help = "Example:\n  knarr image push ./layout --tag hello:v1")]
    Push {
        /// A directory in OCI image layout (skopeo copy … oci:DIR:TAG)
        path: PathBuf,
        #[arg(long, short)]
        tag: String,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Copy an image from another registry into the embedded one
    #[command(after_help = "Example:\n  knarr image pull quay.io/team/app:v1 --tag app:v1")]
    Pull {
        /// The image in the other registry
        reference: String,
        /// Name in the embedded registry [default: repository and tag of the reference]
        #[arg(long, short)]
        tag: Option<String>,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// List the images of the embedded registry
    #[command(after_help = "Example:\n  knarr image ls -o json")]
    Ls {
        #[arg(long, short, default_value = "text")]
        output: Output,
        #[command(flatten)]
        access: AccessArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub struct KubeconfigArgs {
    #[arg(long, default_value = DATA_DIR, env = "KNARR_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Address of the API server
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "IP:PORT")]
    pub server: SocketAddr,
    /// User name (the certificate's CN)
    #[arg(long)]
    pub user: String,
    /// Groups (the certificate's O); what they may do is decided by RBAC
    #[arg(long)]
    pub group: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    #[arg(long, short, default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What to measure [default: everything]
    pub measurements: Vec<BenchName>,
    /// Measure this running cluster instead of one started for it
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Where data directories of clusters started for it are made; its disk is part of what is measured
    #[arg(long, default_value = "/var/lib")]
    pub dir: PathBuf,
    /// Starts of each kind of pod
    #[arg(long, default_value_t = 10, value_parser = at_least_one)]
    pub runs: usize,
    /// Pods of `scale`
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    pub pods: usize,
    /// Length of each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// How long an idle cluster is watched
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_seconds: u64,
    /// The wasmtime program to compare with [default: the one on the PATH]
    #[arg(long)]
    pub wasmtime: Option<PathBuf>,
    #[arg(long, short, default_value = "text")]
    pub output: Output,
    /// Be the load client of a benchmark
    #[arg(long, hide = true, value_name = "URL")]
    pub load_client: Option<String>,
    #[arg(long, hide = true, default_value_t = 1)]
    pub connections: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// What `knarr bench` can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchName {
    /// Process start to node Ready
    Up,
    /// Memory and CPU of a cluster that does nothing
    Idle,
    /// Apply to the first answer, Wasm and container
    Start,
    /// Requests per second of a Wasm pod
    Rps,
    /// Many Wasm pods at once
    Scale,
    /// ConfigMap writes and reads
    Api,
}

impl BenchName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Start => "start",
            Self::Rps => "rps",
            Self::Scale => "scale",
            Self::Api => "api",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} shows no example");
            }
            command.get_subcommands().for_each(|sub| walk(sub, &path));
        }
        super::Cli::command().get_subcommands().for_each(|sub| walk(sub, "knarr"));
    }
}
