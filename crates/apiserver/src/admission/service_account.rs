//! Every pod runs as a service account: `default` when it names none.

use api::status::Status;
use serde_json::Value;

use super::{Operation, Plugin, Review};

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods") {
            return Ok(());
        }
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let named = |field: &str| spec.get(field).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
        let account = named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or("default".to_owned());
        spec.insert("serviceAccount".to_owned(), account.clone().into());
        spec.insert("serviceAccountName".to_owned(), account.into());
        Ok(())
    }
}
