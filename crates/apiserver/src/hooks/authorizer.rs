//! `authorizer` in expressions: asks the roles of the cluster for the user of the request.
//!
//! Follows k8s.io/apiserver `pkg/cel/library/authz.go`. Field and label selectors are taken and not looked at: RBAC
//! does not know them.

use std::rc::Rc;
use std::sync::Arc;

use api::cel::{Answer, Foreign};

use crate::authz::{Attributes, RbacIndex};
use crate::identity::UserInfo;

/// What is being asked, as far as it was said.
#[derive(Debug, Clone, Default)]
struct Question {
    path: String,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Clone)]
pub struct Authorizer {
    index: Arc<RbacIndex>,
    user: UserInfo,
    /// What the request itself is about.
    request: Question,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Start,
    Group(Question),
    Resource(Question),
    Path(Question),
    Decided(bool),
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authorizer({}, {:?})", self.user.name, self.state)
    }
}

impl Authorizer {
    /// For the user of a request about what `about` says; its verb does not matter.
    pub fn new(index: Arc<RbacIndex>, user: UserInfo, about: &Attributes<'_>) -> Self {
        let request = Question {
            path: String::new(),
            group: about.group.to_owned(),
            resource: about.resource.to_owned(),
            subresource: about.subresource.to_owned(),
            namespace: about.namespace.to_owned(),
            name: about.name.to_owned(),
        };
        Self { index, user, request, state: State::Start }
    }

    fn with(&self, state: State) -> Answer {
        Answer::Foreign(Rc::new(Self { state, ..self.clone() }))
    }

    fn decide(&self, question: &Question, verb: &str) -> Answer {
        let attributes = Attributes {
            verb,
            group: &question.group,
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: &question.path,
        };
        self.with(State::Decided(self.index.allows(&self.user, &attributes)))
    }
}

impl Foreign for Authorizer {
    fn type_name(&self) -> &'static str {
        match self.state {
            State::Start => "kubernetes.authorization.Authorizer",
            State::Group(_) => "kubernetes.authorization.GroupCheck",
            State::Resource(_) => "kubernetes.authorization.ResourceCheck",
            State::Path(_) => "kubernetes.authorization.PathCheck",
            State::Decided(_) => "kubernetes.authorization.Decision",
        }
    }

    fn member(&self, name: &str) -> Option<Answer> {
        match (&self.state, name) {
            (State::Start, "requestResource") => Some(self.with(State::Resource(self.request.clone()))),
            _ => None,
        }
    }

    fn call(&self, name: &str, args: &[&str]) -> Option<Answer> {
        Some(match (&self.state, name, args) {
            (State::Start, "path", [path]) => {
                self.with(State::Path(Question { path: (*path).to_owned(), ..Question::default() }))
            }
            (State::Start, "group", [group]) => {
                self.with(State::Group(Question { group: (*group).to_owned(), ..Question::default() }))
            }
            (State::Start, "serviceAccount", [namespace, name]) => {
                let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
                let user = UserInfo::authenticated(format!("system:serviceaccount:{namespace}:{name}"), groups);
                Answer::Foreign(Rc::new(Self { user, ..self.clone() }))
            }
            (State::Group(question), "resource", [resource]) => {
                self.with(State::Resource(Question { resource: (*resource).to_owned(), ..question.clone() }))
            }
            (State::Resource(question), "subresource", [subresource]) => {
                self.with(State::Resource(Question { subresource: (*subresource).to_owned(), ..question.clone() }))
            }
            (State::Resource(question), "namespace", [namespace]) => {
                self.with(State::Resource(Question { namespace: (*namespace).to_owned(), ..question.clone() }))
            }
            (State::Resource(question), "name", [name]) => {
                self.with(State::Resource(Question { name: (*name).to_owned(), ..question.clone() }))
            }
            (State::Resource(question), "fieldSelector" | "labelSelector", [_]) => {
                self.with(State::Resource(question.clone()))
            }
            (State::Resource(question) | State::Path(question), "check", [verb]) => self.decide(question, verb),
            (State::Decided(allowed), "allowed", []) => Answer::Bool(*allowed),
            (State::Decided(_), "errored", []) => Answer::Bool(false),
            (State::Decided(_), "reason" | "error", []) => Answer::Text(String::new()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MASTERS;

    #[test]
    fn questions() {
        let about = Attributes { group: "apps", resource: "deployments", namespace: "n", ..Attributes::default() };
        let authorizer = |groups: &[&str]| {
            let user = UserInfo::authenticated("u", groups.iter().copied());
            Authorizer::new(Arc::new(RbacIndex::default()), user, &about)
        };
        let allowed = |authorizer: &Authorizer| {
            let Some(Answer::Foreign(resource)) = authorizer.member("requestResource") else { panic!("a member") };
            let Some(Answer::Foreign(decision)) = resource.call("check", &["create"]) else { panic!("a decision") };
            matches!(decision.call("allowed", &[]), Some(Answer::Bool(true)))
        };
        assert!(allowed(&authorizer(&[MASTERS])) && !allowed(&authorizer(&[])));
        assert!(
            authorizer(&[]).call("resource", &["pods"]).is_none() && authorizer(&[]).call("allowed", &[]).is_none()
        );
    }
}
