//! How a command ended, in the words of the error channel: a `Status`, as
//! `k8s.io/apimachinery/pkg/util/remotecommand` has it.

use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    /// It could not be run, or was lost.
    Failed(String),
}

impl Outcome {
    /// For protocols from version 4 on.
    pub fn status(&self) -> Value {
        match self {
            Self::Exited(0) => json!({ "metadata": {}, "status": "Success" }),
            Self::Exited(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failed(why) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {why}"),
                "details": { "causes": [{ "message": why }] },
            }),
        }
    }

    /// For older protocols, which know only that something went wrong: a text, or nothing.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!("command terminated with non-zero exit code: exit status {code}")),
            Self::Failed(why) => Some(why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_causes() {
        assert_eq!(Outcome::Exited(0).status()["status"], "Success");
        let status = Outcome::Exited(7).status();
        assert_eq!(
            (&status["reason"], &status["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("7"))
        );
        assert_eq!(Outcome::Exited(0).text(), None);
        assert_eq!(Outcome::Failed("gone".into()).status()["message"], "Internal error occurred: gone");
    }
}
