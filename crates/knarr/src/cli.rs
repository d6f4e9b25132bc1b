//! The command line: every command, flag and example text. What they do is in `commands/`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

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
    /// Run one server of a cluster of several: control plane and, unless told otherwise, a node
    #[command(
        after_help = "Examples:\n  sudo knarr server --listen 10.0.0.1:6443\n  sudo knarr token create > token\n  knarr server --listen 10.0.0.2:6443 --join https://10.0.0.1:6443 --token-file token --no-node"
    )]
    Server(ServerArgs),
    /// Run one node of a cluster whose servers are elsewhere: this machine runs pods and nothing else
    #[command(
        after_help = "Examples:\n  sudo knarr token create --node > token      # on a server\n  sudo knarr agent --server https://10.0.0.1:6443 --token-file token\n  sudo knarr agent                             # once joined"
    )]
    Agent(AgentArgs),
    /// Make and list the tokens by which machines join as servers or nodes
    #[command(subcommand)]
    Token(TokenCommand),
    /// List the servers of the cluster, remove one, let another lead
    #[command(subcommand)]
    Member(MemberCommand),
    /// Write the whole state of the cluster into one file, while it works
    #[command(after_help = "Example:\n  sudo knarr backup monday.knarr")]
    Backup(BackupArgs),
    /// Make an empty data directory the first server of a cluster that was backed up
    #[command(after_help = "Example:\n  sudo knarr restore monday.knarr --data-dir /var/lib/knarr")]
    Restore(RestoreArgs),
    /// The keys that seal the state on this machine's disk
    #[command(subcommand)]
    Key(KeyCommand),
    /// Run a cluster, push the example images, apply the examples, call them and print the answers
    #[command(after_help = "Example:\n  sudo knarr demo --exit")]
    Demo(DemoArgs),
    /// Run a .wasm file, a static Linux program or an image, and print where it answers
    ///
    /// What serves HTTP becomes a Deployment and a Service. A Wasm command runs once: its output is shown, and its end
    /// is the end of this command.
    #[command(
        after_help = "Examples:\n  knarr run hello hello.wasm\n  knarr run web registry.local/examples/hello-http:v1 --port 8080 --replicas 3\n  knarr run job tool.wasm --env LEVEL=3 -- --verbose input.txt"
    )]
    Run(RunArgs),
    /// Build, run and watch a project: every change is built, pushed and running a moment later
    ///
    /// A directory with a Cargo.toml is built by cargo for wasm32-wasip2, one with a package.json by `npm run build`, with
    /// a go.mod by go for wasip1, with a pyproject.toml by componentize-py; others by --build. What it made in the
    /// cluster goes with it, unless --keep is given.
    #[command(after_help = "Examples:\n  knarr dev ./hello\n  knarr dev ./app --build 'make app' --wasm out/app.wasm")]
    Dev(DevArgs),
    /// Call a typed export of a function; values are written in WAVE, as for `wasmtime run --invoke`
    #[command(
        after_help = "Examples:\n  knarr invoke calc 'add(1, 2)'\n  knarr invoke shop 'orders.place({item: \"rope\", count: 2})' -o json"
    )]
    Invoke(InvokeArgs),
    /// Build, push, pull and list images and Wasm artifacts
    #[command(subcommand)]
    Image(ImageCommand),
    /// Print a kubeconfig for a user, signed by this cluster's authority (needs the data directory)
    #[command(after_help = "Example:\n  sudo knarr kubeconfig --user jane --group dev > jane.kubeconfig")]
    Kubeconfig(KubeconfigArgs),
    /// Show whether the cluster is well: server, nodes, pods that are not ready and why
    #[command(after_help = "Example:\n  sudo knarr status")]
    Status(StatusArgs),
    /// Measure a cluster: start, idle cost, pod starts, requests per second, API writes, several servers
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
    /// Address of the node and of its own endpoint (logs, exec) [default: the address of --listen, port 10250]
    #[arg(long, value_name = "IP:PORT")]
    pub node_listen: Option<SocketAddr>,
    /// Where the administrator's kubeconfig is written [default: <data-dir>/admin.kubeconfig]
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long)]
    pub node_name: Option<String>,
    /// How many pods this node may have [default: 1000, or as many as its range has addresses for]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pods: Option<u64>,
    /// The file with the keys that seal the state on the disk [default: <data-dir>/pki/store.keys]
    #[arg(long, value_name = "FILE")]
    pub store_keys: Option<PathBuf>,
    /// Write who asked the API what, and whether it was allowed, to this file: one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Which requests that are: an audit.k8s.io/v1 Policy [default: all]
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    pub audit_policy: Option<PathBuf>,
    /// Believe proxies with a client certificate of these authorities (PEM) which user they name in headers
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of those certificates, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    pub requestheader_allowed_names: Vec<String>,
    /// Whose JSON Web Tokens the API takes, and where nobody needs to say who he is: an apiserver.config.k8s.io/v1
    /// AuthenticationConfiguration, read again when it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// What Pod Security asks of namespaces without labels, and whom it leaves alone: an apiserver.config.k8s.io/v1
    /// AdmissionConfiguration, read again when it changes
    #[arg(long, value_name = "FILE")]
    pub admission_config: Option<PathBuf>,
    /// Leave the workloads running when this process stops
    #[arg(long)]
    pub keep_workloads: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub up: UpArgs,
    /// Where other servers reach this one [default: the address of --listen, the next port]
    #[arg(long, value_name = "IP:PORT")]
    pub peer_listen: Option<SocketAddr>,
    /// A server of the cluster to join; without it a cluster is founded. Ignored once joined
    #[arg(long, value_name = "URL")]
    pub join: Option<String>,
    /// A file with the token to join with (`knarr token create`)
    #[arg(long, value_name = "FILE", requires = "join")]
    pub token_file: Option<PathBuf>,
    /// Join in the place of this member, which is gone for good
    #[arg(long, value_name = "ID", requires = "join")]
    pub replace: Option<u64>,
    /// Where another member is now, when the cluster cannot know it; repeat for several
    #[arg(long, value_name = "ID=IP:PORT", value_parser = peer)]
    pub peer: Vec<(u64, SocketAddr)>,
    /// Run no workloads on this machine
    #[arg(long)]
    pub no_node: bool,
}

#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// A server of the cluster; repeat for several. Not needed once joined: the node learns who they are
    #[arg(long, value_name = "URL")]
    pub server: Vec<String>,
    /// A file with the token to join with (`knarr token create --node`, or a bootstrap token). Not needed once joined
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate of the cluster's authority (PEM), for a bootstrap token
    #[arg(long, value_name = "FILE", requires = "token_file")]
    pub ca_file: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long)]
    pub node_name: Option<String>,
    /// How many pods this node may have [default: 1000, or as many as its range has addresses for]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pods: Option<u64>,
    /// Where servers and other nodes reach this one [default: the address from which the server is reached]
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Port of the node's own endpoint (logs, exec)
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
    /// Where images, logs and this node's certificates are kept
    #[arg(long, default_value = DATA_DIR, env = "KNARR_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Leave the workloads running when this process stops
    #[arg(long)]
    pub keep_workloads: bool,
}

fn peer(text: &str) -> Result<(u64, SocketAddr), String> {
    let (id, address) = text.split_once('=').ok_or("a member is given as ID=IP:PORT")?;
    let id = id.parse().map_err(|_| format!("{id:?} is no member id"))?;
    let address = address.parse().map_err(|_| format!("{address:?} is no IP:PORT"))?;
    Ok((id, address))
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; whoever has it can become a server (or, with --node, a node), so keep it secret
    #[command(after_help = "Examples:\n  knarr token create --ttl 15m > token\n  knarr token create --node > token")]
    Create {
        /// Good for nodes only, which write nothing but what is their own
        #[arg(long)]
        node: bool,
        /// How long machines can join with it: a number and s, m, h or d
        #[arg(long, default_value = "1h", value_parser = duration)]
        ttl: Duration,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// List the tokens: their ids and when they expire
    #[command(after_help = "Example:\n  knarr token ls -o json")]
    Ls {
        #[arg(long, short, default_value = "text")]
        output: Output,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Make a token useless
    #[command(after_help = "Example:\n  knarr token delete 1a2b3c4d")]
    Delete {
        /// The id, as `knarr token ls` shows it
        id: String,
        #[command(flatten)]
        access: AccessArgs,
    },
}

/// `90s`, `15m`, `1h`, `2d`
fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().map_or(0, char::len_utf8);
    let (number, unit) = text.split_at(text.len() - unit);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err("a time is a number and s, m, h or d, such as 15m".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    if number == 0 { Err("it must be longer".to_owned()) } else { Ok(Duration::from_secs(u64::from(number) * seconds)) }
}

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// List the servers as one of them sees them
    #[command(after_help = "Example:\n  knarr member ls -o json")]
    Ls {
        #[arg(long, short, default_value = "text")]
        output: Output,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Remove a server for good; stop its process and delete its data directory afterwards
    #[command(after_help = "Example:\n  knarr member remove 3")]
    Remove {
        /// The id, as `knarr member ls` shows it
        id: u64,
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Let another server lead
    #[command(after_help = "Example:\n  knarr member lead 2")]
    Lead {
        /// The id, as `knarr member ls` shows it
        id: u64,
        #[command(flatten)]
        access: AccessArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// The file to write; it must not exist
    pub file: PathBuf,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// A file that `knarr backup` wrote
    pub file: PathBuf,
    /// The data directory to make; no cluster may be in it
    #[arg(long, default_value = DATA_DIR, env = "KNARR_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The file with the keys of the state [default: <data-dir>/pki/store.keys]
    #[arg(long, value_name = "FILE")]
    pub store_keys: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    #[arg(long, default_value = DATA_DIR, env = "KNARR_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The file with the keys [default: <data-dir>/pki/store.keys]
    #[arg(long, value_name = "FILE")]
    pub store_keys: Option<PathBuf>,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Add a key that writes from the next start of this machine's server on
    #[command(after_help = "Example:\n  sudo knarr key rotate && sudo systemctl restart knarr")]
    Rotate {
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// List the keys, and which of them something on the disk still needs
    #[command(after_help = "Example:\n  sudo knarr key ls")]
    Ls {
        #[command(flatten)]
        keys: KeyArgs,
    },
    /// Remove the keys that nothing on the disk needs any more
    #[command(after_help = "Example:\n  sudo knarr key prune")]
    Prune {
        #[command(flatten)]
        keys: KeyArgs,
    },
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

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Name of the Deployment and the Service
    pub name: String,
    /// A .wasm file, a static Linux program, or an image
    pub program: String,
    #[command(flatten)]
    pub options: RunOptions,
    #[command(flatten)]
    pub access: AccessArgs,
}

/// How a program is to run.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// Where the program listens [default: 8080 for Wasm that serves HTTP]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    #[arg(long, default_value_t = 1)]
    pub replicas: u32,
    /// A variable of its environment; repeat for several
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Most memory it may have, such as 64Mi
    #[arg(long)]
    pub memory: Option<String>,
    /// Arguments of the program
    #[arg(last = true)]
    pub args: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is given as NAME=VALUE".to_owned()),
    }
}

#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// The project
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Name of the Deployment and the Service [default: the directory's name]
    #[arg(long)]
    pub name: Option<String>,
    /// The shell command that builds it, run in the directory
    #[arg(long, value_name = "COMMAND", requires = "wasm")]
    pub build: Option<String>,
    /// What the build makes, relative to the directory
    #[arg(long, value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Leave it running at the end
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub options: RunOptions,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Clone, Args)]
pub struct InvokeArgs {
    /// The function's name
    pub function: String,
    /// EXPORT(ARGUMENTS); an export of an interface is INTERFACE.EXPORT where its name alone is not clear
    pub call: String,
    /// The function's namespace [default: that of the kubeconfig]
    #[arg(long, short)]
    pub namespace: Option<String>,
    #[arg(long, short, default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub access: AccessArgs,
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
    /// Starts of each kind of pod; leaders killed by `failover`
    #[arg(long, default_value_t = 10, value_parser = at_least_one)]
    pub runs: usize,
    /// Pods of `scale`
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    pub pods: usize,
    /// Images that the pods of `scale` are of, each compiled for itself
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub images: usize,
    /// Length of each load
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// How long an idle cluster is watched
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_seconds: u64,
    /// The wasmtime program to compare with [default: the one on the PATH]
    #[arg(long)]
    pub wasmtime: Option<PathBuf>,
    /// The etcd program to compare with [default: the one on the PATH]
    #[arg(long)]
    pub etcd: Option<PathBuf>,
    /// The kube-apiserver program that `api` compares with, which needs etcd [default: the one on the PATH]
    #[arg(long)]
    pub kube_apiserver: Option<PathBuf>,
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
    /// Writes per second of three servers, beside three of etcd
    Servers,
    /// Time without writes after the leading of three servers is killed
    Failover,
    /// Memory and restart with 100,000 objects
    Objects,
    /// Memory and CPU of a cluster that does nothing
    Idle,
    /// Apply to the first answer, Wasm and container
    Start,
    /// Requests per second of a Wasm pod
    Rps,
    /// Calls per second of a function's export
    Invoke,
    /// Many Wasm pods at once
    Scale,
    /// Creates, reads, lists and watches of the API server
    Api,
}

impl BenchName {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Servers => "servers",
            Self::Failover => "failover",
            Self::Objects => "objects",
            Self::Idle => "idle",
            Self::Start => "start",
            Self::Rps => "rps",
            Self::Invoke => "invoke",
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
    fn values() {
        use super::{duration, peer};
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(duration(text).map(|d| d.as_secs()), Ok(seconds), "{text}");
        }
        for bad in ["", "s", "0m", "5", "1.5h", "-1s", "1é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(peer("3=10.0.0.3:6444"), Ok((3, "10.0.0.3:6444".parse().unwrap())));
        for bad in ["", "3", "3=", "x=10.0.0.3:6444", "3=10.0.0.3"] {
            assert!(peer(bad).is_err(), "{bad}");
        }
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
