//! `knarr member …`: who the servers of a cluster are.

use anyhow::{Context, Result};
use http::{Method, Request};
use kube::Client;

use crate::access::{Access, told};
use crate::cli::{MemberCommand, Output};
use crate::cluster::wire::{MEMBERS, MemberList};

pub async fn run(command: MemberCommand) -> Result<()> {
    match command {
        MemberCommand::Ls { output, access } => {
            let list = list(&Access::load(&access).await?.client()?).await?;
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&list)?),
                Output::Text => print!("{}", render(&list)),
            }
            Ok(())
        }
        MemberCommand::Remove { id, access } => {
            ask(&Access::load(&access).await?.client()?, Method::DELETE, &format!("{MEMBERS}/{id}"))
                .await
                .with_context(|| format!("cannot remove member {id}"))?;
            println!("member {id} is removed");
            Ok(())
        }
        MemberCommand::Lead { id, access } => {
            ask(&Access::load(&access).await?.client()?, Method::POST, &format!("{MEMBERS}/{id}/lead"))
                .await
                .with_context(|| format!("cannot make member {id} lead"))?;
            println!("member {id} leads");
            Ok(())
        }
    }
}

/// The servers as the one that is asked sees them.
pub async fn list(client: &Client) -> Result<MemberList> {
    let text = ask(client, Method::GET, MEMBERS).await.context("cannot list the members")?;
    serde_json::from_str(&text).context("the server did not answer a list of members")
}

async fn ask(client: &Client, method: Method, path: &str) -> Result<String> {
    let request = Request::builder().method(method).uri(path).body(Vec::new()).context("a path of ours is no URI")?;
    client.request_text(request).await.map_err(told)
}

fn render(list: &MemberList) -> String {
    let mut text = format!("{:<6}{:<9}{:<9}{:<12}ADDRESSES\n", "ID", "ROLE", "LEADS", "LOG END");
    for member in &list.members {
        let leads = if list.leader == Some(member.id) { "yes" } else { "" };
        let log_end = member.log_end.map_or_else(String::new, |end| end.to_string());
        let addresses = if member.addresses.is_empty() { "none".to_owned() } else { member.addresses.join(", ") };
        text.push_str(&format!("{:<6}{:<9}{leads:<9}{log_end:<12}{addresses}\n", member.id, member.role.as_str()));
    }
    if !list.alarm.is_empty() {
        text.push_str(&format!("\nALARM: {}\n", list.alarm));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::{MemberEntry, MemberRole};

    #[test]
    fn a_table_and_the_alarm() {
        let entry = |id, role, log_end| MemberEntry { id, addresses: vec![format!("10.0.0.{id}:6444")], role, log_end };
        let mut list = MemberList {
            me: 1,
            leader: Some(1),
            term: 3,
            alarm: String::new(),
            syncs: 0,
            members: vec![entry(1, MemberRole::Voter, Some(42)), entry(4, MemberRole::Learner, None)],
        };
        let expect = "ID    ROLE     LEADS    LOG END     ADDRESSES\n\
                      1     voter    yes      42          10.0.0.1:6444\n\
                      4     learner                       10.0.0.4:6444\n";
        assert_eq!(render(&list), expect);
        list.alarm = "they differ".to_owned();
        assert!(render(&list).ends_with("\nALARM: they differ\n"));
    }
}
