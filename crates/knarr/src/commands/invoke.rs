//! `knarr invoke`: one call of a function's export, written in WAVE.

use anyhow::{Context, Result, bail};
use http::{Request, header};
use serde_json::Value;

use crate::access::Access;
use crate::cli::{InvokeArgs, Output};

const WAVE: &str = "application/wave";
const JSON: &str = "application/json";

pub async fn run(args: InvokeArgs) -> Result<()> {
    let mut access = Access::load(&args.access).await?;
    // A call that ran out of time has run: only who called may decide to call again.
    access.config.default_retry = false;
    let client = access.client()?;
    let namespace = args.namespace.as_deref().unwrap_or(client.default_namespace());
    let accept = if args.output == Output::Json { JSON } else { WAVE };
    let path = format!("/apis/knarr.dev/v1alpha1/namespaces/{namespace}/functions/{}/invoke", args.function);
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, WAVE)
        .header(header::ACCEPT, accept)
        .body(args.call.clone().into_bytes())
        .with_context(|| format!("{namespace}/{} is no name of a function", args.function))?;
    let answer = match client.request_text(request).await {
        Ok(answer) => answer,
        Err(kube::Error::Api(status)) => bail!("{}", explain(&status.message, status.code, &args.function)),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot reach {}", access.config.cluster_url));
        }
    };
    println!("{}", answer.trim_end());
    if is_error(&answer, args.output) {
        bail!("`{}` gave an error of its own, as its type allows", args.call);
    }
    Ok(())
}

/// The server's words, and what to type next where that helps.
fn explain(message: &str, code: u16, function: &str) -> String {
    match code {
        503 => format!("{message}\nSee `kubectl describe function {function}`"),
        _ => message.to_owned(),
    }
}

/// Whether the answer is what the function itself calls an error. In WAVE only results begin with a bare `err`.
fn is_error(answer: &str, form: Output) -> bool {
    match form {
        Output::Json => serde_json::from_str::<Value>(answer).is_ok_and(|answer| answer.get("error").is_some()),
        Output::Text => answer.trim() == "err" || answer.trim_start().starts_with("err("),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_function_are_told_from_results() {
        let check = |answer: &str, form: Output, expect: bool| assert_eq!(is_error(answer, form), expect, "{answer}");
        check("err(\"no rope\")", Output::Text, true);
        check("err", Output::Text, true);
        check("ok(3)", Output::Text, false);
        check("error-code", Output::Text, false);
        check("%err(3)", Output::Text, false);
        check("\"err(3)\"", Output::Text, false);
        check("{\"error\":\"no rope\"}", Output::Json, true);
        check("{\"result\":{\"error\":1}}", Output::Json, false);
    }

    #[test]
    fn a_function_that_does_not_serve_is_to_be_looked_at() {
        assert!(explain("no pod", 503, "shop").ends_with("`kubectl describe function shop`"));
        assert_eq!(explain("no export", 404, "shop"), "no export");
    }
}
