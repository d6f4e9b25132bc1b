//! Everything that is registered, compiled, in the order in which it is asked. An immutable value.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::admission::mutation::MutatingPolicy;
use api::admission::policy::{Binding, Policy};
use serde_json::Value;

use super::GROUP;
use super::webhooks::Webhook;
use crate::reach::Dialer;

/// A policy and what binds it.
pub struct Bound<P> {
    pub policy: Arc<P>,
    pub bindings: Vec<Arc<Binding>>,
}

#[derive(Default)]
pub struct Registered {
    /// By name; those that nothing binds are not here.
    pub policies: Vec<Bound<Policy>>,
    pub mutations: Vec<Bound<MutatingPolicy>>,
    /// By the names of their configurations, and as these list them.
    pub mutating: Vec<Arc<Webhook>>,
    pub validating: Vec<Arc<Webhook>>,
}

impl Registered {
    /// Nobody has a say in anything.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.mutations.is_empty() && self.mutating.is_empty() && self.validating.is_empty()
    }
}

/// One registration.
#[derive(Clone)]
enum Compiled {
    Policy(Arc<Policy>),
    Binding(Arc<Binding>),
    Mutation(Arc<MutatingPolicy>),
    MutationBinding(Arc<Binding>),
    Mutating(Vec<Arc<Webhook>>),
    Validating(Vec<Arc<Webhook>>),
}

/// All registrations by key. What did not change keeps its connections.
#[derive(Default)]
pub struct Registrations {
    compiled: BTreeMap<String, Compiled>,
}

/// The resource that a key is of.
fn resource(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("/registry/")?.strip_prefix(GROUP)?.strip_prefix('/')?;
    rest.split_once('/').map(|(resource, _)| resource)
}

impl Registrations {
    pub fn put(&mut self, key: &[u8], object: &Value, dialer: &Dialer) {
        let key = String::from_utf8_lossy(key).into_owned();
        let hooks = |mutating: bool| -> Vec<Arc<Webhook>> {
            let list = object.get("webhooks").and_then(Value::as_array).into_iter().flatten();
            list.map(|hook| Arc::new(Webhook::compile(object, hook, mutating, dialer))).collect()
        };
        let compiled = match resource(&key) {
            Some("validatingadmissionpolicies") => Compiled::Policy(Arc::new(Policy::compile(object))),
            Some("validatingadmissionpolicybindings") => Compiled::Binding(Arc::new(Binding::read(object))),
            Some("mutatingadmissionpolicies") => Compiled::Mutation(Arc::new(MutatingPolicy::compile(object))),
            Some("mutatingadmissionpolicybindings") => Compiled::MutationBinding(Arc::new(Binding::read(object))),
            Some("mutatingwebhookconfigurations") => Compiled::Mutating(hooks(true)),
            Some("validatingwebhookconfigurations") => Compiled::Validating(hooks(false)),
            _ => return,
        };
        self.compiled.insert(key, compiled);
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.compiled.remove(&*String::from_utf8_lossy(key));
    }

    pub fn registered(&self) -> Registered {
        let mut all = Registered::default();
        let mut bindings: [BTreeMap<&str, Vec<Arc<Binding>>>; 2] = Default::default();
        for compiled in self.compiled.values() {
            let (of, binding) = match compiled {
                Compiled::Binding(binding) => (0, binding),
                Compiled::MutationBinding(binding) => (1, binding),
                Compiled::Mutating(hooks) => {
                    all.mutating.extend(hooks.iter().cloned());
                    continue;
                }
                Compiled::Validating(hooks) => {
                    all.validating.extend(hooks.iter().cloned());
                    continue;
                }
                Compiled::Policy(_) | Compiled::Mutation(_) => continue,
            };
            bindings[of].entry(&binding.policy).or_default().push(Arc::clone(binding));
        }
        let [mut of_policies, mut of_mutations] = bindings;
        for compiled in self.compiled.values() {
            match compiled {
                Compiled::Policy(policy) => {
                    let bindings = of_policies.remove(policy.name.as_str());
                    all.policies.extend(bindings.map(|bindings| Bound { policy: Arc::clone(policy), bindings }));
                }
                Compiled::Mutation(policy) => {
                    let bindings = of_mutations.remove(policy.name.as_str());
                    all.mutations.extend(bindings.map(|bindings| Bound { policy: Arc::clone(policy), bindings }));
                }
                _ => {}
            }
        }
        all
    }
}
