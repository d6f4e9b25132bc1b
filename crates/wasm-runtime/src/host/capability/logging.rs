//! `wasi:logging`: lines in the container's own log, with their level and context.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance};

use super::{Capability, Interface};
use crate::host::guest::ComponentState;
use crate::host::logs::Stream;

const CONTEXT_CHARS_MAX: usize = 128;

pub const LOGGING: Capability = Capability {
    package: "wasi:logging",
    // wasmCloud's tools leave the version out.
    versions: &["0.1.0-draft", ""],
    interfaces: &[Interface { name: "logging", define }],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only guests make them")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// Where people look for what went wrong.
    fn stream(self) -> Stream {
        match self {
            Self::Trace | Self::Debug | Self::Info => Stream::Stdout,
            Self::Warn | Self::Error | Self::Critical => Stream::Stderr,
        }
    }
}

fn define(instance: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    instance.func_wrap(
        "log",
        |store: StoreContextMut<'_, ComponentState>, (level, context, message): (Level, String, String)| {
            store.data().granted().log.writer(level.stream()).push(line(level, &context, &message).as_bytes());
            Ok(())
        },
    )
}

/// `LEVEL context: message`. The message may have several lines; the context is one word or a few.
fn line(level: Level, context: &str, message: &str) -> String {
    let context: String = context.chars().filter(|c| !c.is_control()).take(CONTEXT_CHARS_MAX).collect();
    let separator = if context.is_empty() { "" } else { ": " };
    format!("{} {context}{separator}{message}\n", level.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_level_and_context() {
        let check = |level: Level, context: &str, message: &str, expect: &str| {
            assert_eq!(line(level, context, message), expect);
        };
        check(Level::Info, "db", "open", "INFO db: open\n");
        check(Level::Critical, "", "a\nb", "CRITICAL a\nb\n");
        check(Level::Warn, "x\ny", "m", "WARN xy: m\n");
        assert!(line(Level::Debug, &"c".repeat(500), "m").len() < 150);
    }
}
