//! What the agent tells users about a pod: Events in the kubelet's words. Pure.

use std::time::Duration;

/// `type` of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// An Event about a pod or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
    /// Set for `involvedObject.fieldPath`.
    pub container: Option<String>,
}

impl PodEvent {
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Normal, reason, message: message.into(), container: None }
    }

    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, reason, message: message.into(), container: None }
    }

    #[must_use]
    pub fn of(mut self, container: &str) -> Self {
        self.container = Some(container.to_owned());
        self
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `1.5s`, `250ms`.
pub fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let millis = duration.subsec_millis();
    let tail = if millis == 0 {
        format!("{seconds}s")
    } else {
        format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0'))
    };
    match (minutes / 60, minutes % 60) {
        (0, 0) => tail,
        (0, minutes) => format!("{minutes}m{tail}"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_go() {
        let check = |millis, expect: &str| assert_eq!(go_duration(Duration::from_millis(millis)), expect);
        check(250, "250ms");
        check(10_000, "10s");
        check(1_500, "1.5s");
        check(80_000, "1m20s");
        check(300_000, "5m0s");
        check(3_600_000, "1h0m0s");
    }
}
