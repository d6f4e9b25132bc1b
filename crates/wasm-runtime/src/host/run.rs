//! Running a container's program to its end, whatever kind it is.
//!
//! Commands and `_start` modules run once. HTTP programs serve until stopped. Plugins wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::host::container::Container;
use crate::host::executor::Executor;
use crate::host::guest::{self, Guest};
use crate::host::logs::Stream;
use crate::host::meter::Metered;
use crate::host::program::Program;
use crate::host::{http, outcome};
use crate::protocol::Outcome;

/// Drives the container until it has ended and records how.
pub async fn run(container: Arc<Container>, listener: Option<TcpListener>, executor: Executor) {
    let outcome = match (&container.program.as_ref(), listener) {
        (_, listener) if container.spec.invoke_only => called(&container, listener, executor).await,
        (Program::Http { .. }, listener) if listener.is_some() || container.spec.chain.own.is_some() => {
            http::serve(Arc::clone(&container), listener, executor).await
        }
        (Program::Http { .. } | Program::Plugin { .. }, _) => wait_for_stop(&container).await,
        (Program::Module { module }, _) if module.module().get_export("_start").is_none() => {
            wait_for_stop(&container).await
        }
        _ => run_once(&container, &executor).await,
    };
    container.ended(outcome);
}

/// Answers calls, and requests that are calls, until it is stopped.
async fn called(container: &Arc<Container>, listener: Option<TcpListener>, executor: Executor) -> Outcome {
    let Some(listener) = listener else { return wait_for_stop(container).await };
    let serving = http::serve(Arc::clone(container), Some(listener), executor);
    let (served, waited) = futures::future::join(serving, wait_for_stop(container)).await;
    if served.exit_code == 0 { waited } else { served }
}

async fn wait_for_stop(container: &Container) -> Outcome {
    container.stop.drain.cancelled().await;
    container.callers.close();
    tokio::select! {
        () = container.callers.wait() => outcome::completed(),
        () = container.stop.kill.cancelled() => outcome::killed(),
    }
}

async fn run_once(container: &Arc<Container>, executor: &Executor) -> Outcome {
    let running = executor.running();
    let usage = Arc::clone(&container.usage);
    let guest = Arc::clone(container);
    // On a thread for guests: one that spins between two ticks must not delay the stop signal.
    let mut task = tokio_util::task::AbortOnDropHandle::new(executor.spawn(Metered::new(usage, async move {
        let _running = running;
        command(&guest).await
    })));
    tokio::select! {
        ended = &mut task => ended.unwrap_or_else(|error| outcome::of_error(&wasmtime::format_err!("{error}"), false)),
        () = container.stop.kill.cancelled() => {
            task.abort();
            let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
            outcome::killed()
        }
    }
}

async fn command(container: &Container) -> Outcome {
    let engine = container.program.engine();
    let (result, refused) = match container.program.as_ref() {
        Program::Command { run, .. } => match guest::component(engine, container, None) {
            Ok(mut guest) => {
                let result = async {
                    run.instantiate_async(&mut guest.store).await?.wasi_cli_run().call_run(&mut guest.store).await
                };
                (result.await, guest.was_refused_memory())
            }
            Err(error) => (Err(error), false),
        },
        Program::AsyncCommand { run, .. } => match guest::component(engine, container, None) {
            Ok(mut guest) => {
                let result = async {
                    let command = run.instantiate_async(&mut guest.store).await?;
                    guest.store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await?
                };
                (result.await, guest.was_refused_memory())
            }
            Err(error) => (Err(error), false),
        },
        Program::Module { module } => match guest::module(engine, container, None) {
            Ok(mut guest) => (start(module, &mut guest).await.map(Ok), guest.was_refused_memory()),
            Err(error) => (Err(error), false),
        },
        Program::Http { .. } | Program::Plugin { .. } => (Ok(Ok(())), false),
    };
    judge(container, result, refused)
}

async fn start(
    module: &wasmtime::InstancePre<guest::ModuleState>,
    guest: &mut Guest<guest::ModuleState>,
) -> wasmtime::Result<()> {
    let instance = module.instantiate_async(&mut guest.store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut guest.store, "_start")?;
    start.call_async(&mut guest.store, ()).await
}

fn judge(container: &Container, result: wasmtime::Result<Result<(), ()>>, refused: bool) -> Outcome {
    match result {
        Ok(Ok(())) => outcome::completed(),
        Ok(Err(())) => outcome::exited(1),
        Err(error) => {
            let outcome = outcome::of_error(&error, refused);
            if !outcome.message.is_empty() {
                container.usage.count_trap(outcome.reason);
                container.log.say(Stream::Stderr, &outcome::log_text(&error));
            }
            outcome
        }
    }
}
