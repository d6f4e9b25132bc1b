//! Decides what the results of a probe mean. Pure: time comes in as the wait that was made.
//!
//! Readiness and startup begin as "no", liveness as "yes". While a readiness or startup probe
//! without initial delay has not passed yet, it also looks in between (50, 100, 200 … ms, at most its period):
//! such an extra look can only bring good news, its failure counts for nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// First wait between extra looks.
const EAGER_FIRST: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// As Events name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A probe's numbers, with Kubernetes' defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub kind: ProbeKind,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Settings {
    pub fn of(probe: &Probe, kind: ProbeKind) -> Self {
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(u64::from(count(value, default)));
        Self {
            kind,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    Passed,
    Failed(String),
}

/// What a probe says of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    CheckAfter(Duration),
    Report(Verdict),
    TellUnhealthy(String),
}

/// One probe of one run of a container.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    verdict: Verdict,
    passed: u32,
    failed: u32,
    /// The next extra wait, until the first pass.
    eager: Option<Duration>,
    since_counted: Duration,
}

impl Engine {
    /// `carried` is the verdict of before the agent started.
    pub fn new(settings: Settings, carried: Option<Verdict>) -> Self {
        let initial = match settings.kind {
            ProbeKind::Liveness => Verdict::Good,
            ProbeKind::Startup | ProbeKind::Readiness => Verdict::Bad,
        };
        let verdict = carried.unwrap_or(initial);
        let eager = (verdict == Verdict::Bad && settings.initial_delay.is_zero()).then_some(EAGER_FIRST);
        Self { settings, verdict, passed: 0, failed: 0, eager, since_counted: Duration::ZERO }
    }

    /// The container runs.
    pub fn begin(&mut self) -> Vec<Command> {
        let delay = match (self.settings.kind, self.settings.initial_delay) {
            (ProbeKind::Liveness, Duration::ZERO) => self.settings.period,
            (_, delay) => delay,
        };
        vec![Command::CheckAfter(delay)]
    }

    /// A check that was made after `waited` ended.
    pub fn on_checked(&mut self, checked: Checked, waited: Duration) -> Vec<Command> {
        self.since_counted += waited;
        match checked {
            Checked::Passed => self.on_passed(),
            Checked::Failed(why) => self.on_failed(&why),
        }
    }

    fn on_passed(&mut self) -> Vec<Command> {
        self.eager = None;
        self.since_counted = Duration::ZERO;
        self.failed = 0;
        self.passed = self.passed.saturating_add(1);
        let mut commands = Vec::new();
        if self.verdict == Verdict::Bad && self.passed >= self.settings.success_threshold {
            self.verdict = Verdict::Good;
            commands.push(Command::Report(Verdict::Good));
            if self.settings.kind == ProbeKind::Startup {
                return commands;
            }
        }
        commands.push(Command::CheckAfter(self.settings.period));
        commands
    }

    fn on_failed(&mut self, why: &str) -> Vec<Command> {
        if let Some(wait) = self.eager
            && self.since_counted < self.settings.period
        {
            let left = self.settings.period - self.since_counted;
            self.eager = Some((wait * 2).min(self.settings.period));
            return vec![Command::CheckAfter(wait.min(left))];
        }
        self.since_counted = Duration::ZERO;
        self.passed = 0;
        self.failed = self.failed.saturating_add(1);
        let mut commands = vec![Command::TellUnhealthy(why.to_owned())];
        if self.failed >= self.settings.failure_threshold {
            let condemned = self.settings.kind != ProbeKind::Readiness;
            if condemned || self.verdict == Verdict::Good {
                self.verdict = Verdict::Bad;
                commands.push(Command::Report(Verdict::Bad));
            }
            if condemned {
                return commands;
            }
        }
        let next = self.eager.unwrap_or(self.settings.period).min(self.settings.period);
        commands.push(Command::CheckAfter(next));
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(kind: ProbeKind) -> Settings {
        Settings { kind, ..Settings::of(&Probe { period_seconds: Some(1), ..Default::default() }, kind) }
    }

    /// Feeds results (`+` passed, `-` failed) and writes down what the engine says, one word each.
    fn check(mut settings: Settings, delay: u64, results: &str, expect: &str) {
        settings.initial_delay = Duration::from_secs(delay);
        let mut engine = Engine::new(settings, None);
        let mut commands = engine.begin();
        let mut said = Vec::new();
        let mut results = results.chars();
        loop {
            let mut wait = None;
            for command in &commands {
                said.push(match command {
                    Command::CheckAfter(delay) => {
                        wait = Some(*delay);
                        format!("{}", delay.as_millis())
                    }
                    Command::Report(verdict) => format!("{verdict:?}"),
                    Command::TellUnhealthy(_) => "unhealthy".into(),
                });
            }
            let (Some(wait), Some(result)) = (wait, results.next()) else { break };
            let checked = if result == '+' { Checked::Passed } else { Checked::Failed("no".into()) };
            commands = engine.on_checked(checked, wait);
        }
        assert_eq!(said.join(" "), expect);
    }

    #[test]
    fn readiness_looks_at_once_and_often_until_it_passes() {
        check(settings(ProbeKind::Readiness), 0, "---+", "0 50 100 200 Good 1000");
    }

    #[test]
    fn extra_looks_that_fail_count_for_nothing() {
        let expect = "0 50 100 200 400 250 unhealthy 1000 unhealthy 1000 Good 1000";
        check(settings(ProbeKind::Readiness), 0, "-------+", expect);
    }

    #[test]
    fn an_initial_delay_is_kept() {
        check(settings(ProbeKind::Readiness), 5, "-+", "5000 unhealthy 1000 Good 1000");
    }

    #[test]
    fn readiness_is_lost_at_the_threshold_and_comes_back() {
        check(
            settings(ProbeKind::Readiness),
            0,
            "+---+",
            "0 Good 1000 unhealthy 1000 unhealthy 1000 unhealthy Bad 1000 Good 1000",
        );
    }

    #[test]
    fn liveness_condemns_once_at_the_threshold() {
        check(
            settings(ProbeKind::Liveness),
            0,
            "+--+---",
            "1000 1000 unhealthy 1000 unhealthy 1000 1000 unhealthy 1000 unhealthy 1000 unhealthy Bad",
        );
    }

    #[test]
    fn startup_ends_when_it_passes_and_condemns_when_it_never_does() {
        check(settings(ProbeKind::Startup), 0, "-+", "0 50 Good");
        let mut strict = settings(ProbeKind::Startup);
        strict.failure_threshold = 1;
        check(strict, 2, "-", "2000 unhealthy Bad");
    }

    #[test]
    fn success_threshold_counts_in_a_row() {
        let mut twice = settings(ProbeKind::Readiness);
        twice.success_threshold = 2;
        check(twice, 1, "+-++", "1000 1000 unhealthy 1000 1000 Good 1000");
    }
}
