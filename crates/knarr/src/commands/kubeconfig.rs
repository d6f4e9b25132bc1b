//! `knarr kubeconfig`: an identity for a person.

use anyhow::{Context, Result, bail};

use crate::cli::KubeconfigArgs;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Authority, AuthorityName, Identity};

/// Prints the kubeconfig.
pub fn run(args: &KubeconfigArgs) -> Result<()> {
    let pki = args.data_dir.join("pki");
    if !AuthorityName::Cluster.exists(&pki) {
        bail!("there is no cluster in {}: start one with `knarr up`", args.data_dir.display());
    }
    let authority = Authority::open(&pki, AuthorityName::Cluster)?;
    let groups: Vec<&str> = args.group.iter().map(String::as_str).collect();
    let leaf = authority
        .client(&Identity { user: &args.user, groups: &groups })
        .with_context(|| format!("cannot make a certificate for {}", args.user))?;
    let server = format!("https://{}", args.server);
    let kubeconfig = Kubeconfig { server: &server, user: &args.user, ca_pem: authority.certificate_pem(), leaf: &leaf };
    print!("{}", kubeconfig.render());
    Ok(())
}
