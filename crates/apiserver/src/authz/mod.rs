//! Role-based access control: who may do what, from the stored roles and bindings.
//!
//! Owns: the rule language, the index and its upkeep; what narrows it for nodes. May not know: HTTP answers.

mod index;
pub mod node_grants;
pub mod node_reach;
pub mod reviews;
mod rule;
mod upkeep;

pub use index::RbacIndex;
pub use rule::{Attributes, Rule, rules_of};
pub use upkeep::{RbacHandle, spawn_rbac_upkeep};

use api::status::{Status, Subject};

use crate::identity::{MASTERS, UserInfo};

/// May this user do this? 403 in Kubernetes' words if not.
pub fn authorize(index: &RbacIndex, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), Status> {
    if user.in_group(MASTERS) || index.allows(user, attributes) {
        return Ok(());
    }
    Err(refusal(user, attributes))
}

fn refusal(user: &UserInfo, attributes: &Attributes<'_>) -> Status {
    let Attributes { verb, group, namespace, name, path, .. } = attributes;
    if attributes.resource.is_empty() {
        let why = format!("User {:?} cannot {verb} path {path:?}", user.name);
        return Status::forbidden(&Subject { group: "", resource: "", name: "" }, &why);
    }
    let resource = attributes.full_resource();
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let why = format!("User {:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}", user.name);
    Status::forbidden(&Subject { group, resource: attributes.resource, name }, &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_kubernetes_words() {
        let user = UserInfo::authenticated("jane", Vec::<String>::new());
        let list = Attributes { verb: "list", resource: "pods", namespace: "default", ..Attributes::default() };
        assert_eq!(
            authorize(&RbacIndex::default(), &user, &list).unwrap_err().message,
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \
             \"default\""
        );
        let get = Attributes {
            verb: "get",
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            ..Attributes::default()
        };
        assert_eq!(
            authorize(&RbacIndex::default(), &user, &get).unwrap_err().message,
            "deployments.apps \"web\" is forbidden: User \"jane\" cannot get resource \"deployments/scale\" in API \
             group \"apps\" at the cluster scope"
        );
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::default() };
        assert_eq!(
            authorize(&RbacIndex::default(), &user, &path).unwrap_err().message,
            "forbidden: User \"jane\" cannot get path \"/metrics\""
        );
        let master = UserInfo::authenticated("root", [MASTERS]);
        assert!(authorize(&RbacIndex::default(), &master, &path).is_ok());
    }
}
