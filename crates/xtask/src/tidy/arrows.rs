//! Which crate may use which: the tree of `ARCHITECTURE.md` as a table that fails.

use serde_json::Value;

/// Crate, and the crates of this workspace it may depend on. Crates of one layer never import each
/// other; they meet through the API. What is not here is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    // Layer 0: pure.
    ("api", &[]),
    ("cri", &[]),
    // In the place of a crate that a library uses, and only that.
    ("base2histogram", &[]),
    // Layer 1: mechanisms.
    ("store", &[]),
    ("reconcile", &["api"]),
    // It is the `ImageService` of the seam.
    ("image", &["cri"]),
    ("wasm-runtime", &["cri", "image"]),
    ("container-runtime", &["cri", "image"]),
    // Layer 2: the parts of a cluster.
    ("apiserver", &["api", "store"]),
    ("scheduler", &["api", "reconcile"]),
    ("controllers", &["api", "reconcile"]),
    ("node", &["api", "reconcile", "cri"]),
    ("network", &["api", "reconcile", "cri"]),
    // Layer 3: the binary, the only one that puts things together.
    (
        "knarr",
        &[
            "api",
            "apiserver",
            "container-runtime",
            "controllers",
            "cri",
            "image",
            "network",
            "node",
            "reconcile",
            "scheduler",
            "store",
            "wasm-runtime",
        ],
    ),
    // For host applications; it knows the API as any client does.
    ("plugin-client", &[]),
    // Not part of the product.
    ("xtask", &[]),
    ("e2e", &["plugin-client"]),
    ("servers", &["e2e"]),
    ("sim", &["store"]),
];

/// Libraries with one door: only these crates may name them. A `*` at the end stands for the rest
/// of a name.
const DOORS: &[(&str, &[&str])] = &[
    ("openraft*", &["store"]),
    ("wasmtime*", &["wasm-runtime"]),
    ("cgroups-rs", &["container-runtime", "wasm-runtime"]),
    ("seccompiler", &["container-runtime", "wasm-runtime"]),
    ("netlink-*", &["network"]),
    ("hickory-*", &["network"]),
    ("clap*", &["knarr"]),
    ("anyhow", &["knarr", "xtask", "e2e"]),
];

/// One package of the workspace and what its manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    /// Only for tests, examples and benches.
    pub dev: bool,
    /// A crate of this workspace.
    pub ours: bool,
}

/// Reads what `cargo metadata` says.
pub fn packages(metadata: &Value) -> Vec<Package> {
    let dependency = |value: &Value| Dependency {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        dev: value["kind"] == "dev",
        ours: value["path"].is_string(),
    };
    let package = |value: &Value| Package {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        dependencies: value["dependencies"].as_array().into_iter().flatten().map(dependency).collect(),
    };
    metadata["packages"].as_array().into_iter().flatten().map(package).collect()
}

/// One sentence for each arrow that must not be.
pub fn check(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
        return vec![format!("crate {name} is not in the table of crates/xtask/src/tidy/arrows.rs")];
    };
    let forbidden = |dependency: &&Dependency| {
        if !dependency.ours {
            return !dependency.dev
                && DOORS.iter().any(|(door, users)| names(door, &dependency.name) && !users.contains(&name));
        }
        !allowed.contains(&dependency.name.as_str())
    };
    let sentence = |dependency: &Dependency| match dependency.ours {
        true => format!("crate {name} must not depend on {}: it may use {allowed:?}", dependency.name),
        false => format!("crate {name} must not depend on {}: another crate is its only door", dependency.name),
    };
    package.dependencies.iter().filter(forbidden).map(sentence).collect()
}

fn names(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Given `crate: dependencies` (a `~` before a name: for tests only; a `+`: not ours), how many
    /// faults.
    fn faults(name: &str, dependencies: &str) -> usize {
        let dependency = |word: &str| Dependency {
            name: word.trim_start_matches(['~', '+']).to_owned(),
            dev: word.starts_with('~'),
            ours: !word.contains('+'),
        };
        let dependencies = dependencies.split_whitespace().map(dependency).collect();
        check(&[Package { name: name.to_owned(), dependencies }]).len()
    }

    #[test]
    fn only_arrows_of_the_table_pass() {
        assert_eq!(faults("scheduler", "api reconcile"), 0);
        assert_eq!(faults("scheduler", "controllers"), 1);
        assert_eq!(faults("scheduler", "~store"), 1);
        assert_eq!(faults("node", "cri wasm-runtime container-runtime"), 2);
        assert_eq!(faults("surprise", ""), 1);
    }

    #[test]
    fn libraries_with_one_door_stay_behind_it() {
        assert_eq!(faults("store", "+openraft +openraft-rt-tokio"), 0);
        assert_eq!(faults("apiserver", "+openraft-rt-tokio"), 1);
        assert_eq!(faults("node", "+anyhow ~+anyhow"), 1);
    }

    #[test]
    fn every_crate_of_the_table_is_named_once_and_knows_only_named_ones() {
        for (index, (name, allowed)) in ARROWS.iter().enumerate() {
            assert!(!ARROWS[..index].iter().any(|(other, _)| other == name), "{name} twice");
            assert!(allowed.iter().all(|user| ARROWS.iter().any(|(other, _)| other == user)), "{name}: {allowed:?}");
        }
    }
}
