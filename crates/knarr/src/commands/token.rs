//! `knarr token …`: what lets a machine join as a server or as a node.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::access::Access;
use crate::cli::{Output, TokenCommand};
use crate::join_token::{JoinToken, NAMESPACE, SECRET_TYPE, Usage};
use crate::pki::fingerprint;

const NAME_PREFIX: &str = "join-token-";

pub async fn run(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { ttl, node, access } => {
            let usage = if node { Usage::Node } else { Usage::Server };
            create(usage, ttl, &Access::load(&access).await?).await
        }
        TokenCommand::Ls { output, access } => list(output, Access::load(&access).await?.client()?).await,
        TokenCommand::Delete { id, access } => delete(&id, Access::load(&access).await?.client()?).await,
    }
}

fn secrets(client: Client) -> Api<Secret> {
    Api::namespaced(client, NAMESPACE)
}

/// Tokens that are no use any more go on this occasion.
async fn create(usage: Usage, ttl: Duration, access: &Access) -> Result<()> {
    let authority = access.config.root_cert.as_ref().and_then(|chain| chain.first());
    let authority = authority.context("the kubeconfig names no certificate authority")?;
    let ttl = SignedDuration::try_from(ttl).context("the time is too long")?;
    let now = Timestamp::now();
    let expires = now.checked_add(ttl).context("the time is too long")?;
    let token = JoinToken::new(fingerprint(authority), rand::random(), rand::random());
    let api = secrets(access.client()?);
    let object = serde_json::from_value(token.secret(usage, expires)).context("a Secret that does not decode")?;
    api.create(&PostParams::default(), &object).await.context("cannot keep the token in the cluster")?;
    println!("{token}");
    for old in tokens(&api).await?.iter().filter(|token| token.expires.is_none_or(|at| at <= now)) {
        api.delete(&format!("{NAME_PREFIX}{}", old.id), &DeleteParams::default())
            .await
            .with_context(|| format!("cannot delete the expired token {}", old.id))?;
    }
    Ok(())
}

struct Token {
    id: String,
    /// None when it is damaged.
    expires: Option<Timestamp>,
    usage: &'static str,
}

async fn tokens(api: &Api<Secret>) -> Result<Vec<Token>> {
    let found = api.list(&ListParams::default()).await.context("cannot list the tokens")?.items;
    let of_secret = |secret: &Secret| {
        let id = secret.name_any().strip_prefix(NAME_PREFIX)?.to_owned();
        let field = |name: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(name));
            data.map(|text| String::from_utf8_lossy(&text.0).into_owned()).unwrap_or_default()
        };
        let usage = Usage::of(&field("usage")).map_or("nothing", Usage::as_str);
        let expires = field("expiration").parse().ok();
        (secret.type_.as_deref() == Some(SECRET_TYPE)).then_some(Token { id, expires, usage })
    };
    Ok(found.iter().filter_map(of_secret).collect())
}

async fn list(output: Output, client: Client) -> Result<()> {
    let tokens = tokens(&secrets(client)).await?;
    let expires = |token: &Token| token.expires.map_or_else(|| "damaged".to_owned(), |at| at.to_string());
    match output {
        Output::Json => {
            let list: Vec<_> =
                tokens.iter().map(|t| json!({ "id": t.id, "for": t.usage, "expires": expires(t) })).collect();
            println!("{}", serde_json::to_string_pretty(&list)?);
        }
        Output::Text => {
            println!("{:<10}{:<8}EXPIRES", "ID", "FOR");
            for token in &tokens {
                println!("{:<10}{:<8}{}", token.id, token.usage, expires(token));
            }
        }
    }
    Ok(())
}

async fn delete(id: &str, client: Client) -> Result<()> {
    let api = secrets(client);
    if !tokens(&api).await?.iter().any(|token| token.id == id) {
        bail!("there is no token {id}: `knarr token ls` shows them");
    }
    let name = format!("{NAME_PREFIX}{id}");
    api.delete(&name, &DeleteParams::default()).await.with_context(|| format!("cannot delete token {id}"))?;
    Ok(())
}
