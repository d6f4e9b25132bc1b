//! `/healthz`, `/livez`, `/readyz` and `/version`: what anybody may ask.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::core::Core;
use crate::wire::respond;

const PROBES: [&str; 3] = ["healthz", "livez", "readyz"];

/// Paths that need no identity.
pub fn is_public(path: &str) -> bool {
    let first = path.trim_matches('/').split('/').next().unwrap_or("");
    path == "/version" || PROBES.contains(&first)
}

pub fn answer(core: &Core, path: &str, query: &str) -> Option<Response> {
    if path == "/version" {
        return Some(version(core));
    }
    let mut segments = path.trim_matches('/').split('/');
    let probe = segments.next().filter(|first| PROBES.contains(first))?;
    let checks = checks(core, probe);
    let one = segments.next();
    let asked: Vec<&(&str, bool)> = checks.iter().filter(|(name, _)| one.is_none_or(|one| one == *name)).collect();
    if asked.is_empty() {
        return Some(respond::typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "no such check\n"));
    }
    let healthy = asked.iter().all(|(_, ok)| *ok);
    let verbose = query.split('&').any(|p| p == "verbose" || p.starts_with("verbose="));
    let text = if verbose || !healthy {
        let mut text = String::new();
        for (name, ok) in asked {
            let (sign, word) = if *ok { ('+', "ok") } else { ('-', "failed") };
            text.push_str(&format!("[{sign}]{name} {word}\n"));
        }
        text + &format!("{probe} check {}\n", if healthy { "passed" } else { "failed" })
    } else {
        "ok".to_owned()
    };
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    Some(respond::typed(code, "text/plain; charset=utf-8", text))
}

fn checks(core: &Core, probe: &str) -> Vec<(&'static str, bool)> {
    let mut checks = vec![("ping", true)];
    if probe == "readyz" {
        checks.push(("store", core.store.members().leader.is_some()));
        checks.push(("shutdown", !core.config.shutdown.is_cancelled()));
    }
    checks
}

fn version(core: &Core) -> Response {
    let version = &core.config.version;
    let mut numbers = version.git_version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    respond::value(&json!({
        "major": major, "minor": minor, "gitVersion": version.git_version, "gitCommit": version.git_commit,
        "gitTreeState": "clean", "buildDate": version.build_date, "goVersion": "none (Rust)",
        "compiler": "rustc", "platform": format!("linux/{}", go_architecture()),
    }))
}

/// The machine's architecture in Go's words, which clients expect.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_paths() {
        for (path, expect) in [
            ("/version", true),
            ("/readyz", true),
            ("/readyz/store", true),
            ("/healthz", true),
            ("/versions", false),
            ("/api", false),
            ("/", false),
        ] {
            assert_eq!(is_public(path), expect, "{path}");
        }
    }
}
