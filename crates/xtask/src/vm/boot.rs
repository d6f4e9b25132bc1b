//! Runs the machine, shows what it says, and believes it only if it says that all went well.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::parts::Parts;

/// The emulated processor is ten to twenty times slower than the real one.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);
const MEMORY: &str = "1536M";
/// How the guest says its result: `init.sh` prints it last, with the number of failed programs.
const RESULT: &str = "GUEST RESULT ";
/// A kernel that panics ends the machine at once, since it may not reboot.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 quiet";

pub fn run(parts: &Parts, image: &Path) -> Result<()> {
    let mut command = parts.emulator();
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", MEMORY])
        .args(["-append", KERNEL_ARGUMENTS])
        .arg("-kernel")
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(image);
    let before = Instant::now();
    let mut machine =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the emulator")?;
    let serial = machine.stdout.take().expect("its output is a pipe");
    let said = listen(serial, before + TIME_LIMIT);
    end(&mut machine)?;
    eprintln!("the machine ran for {:.0?}", before.elapsed());
    match said? {
        Some(0) => Ok(()),
        Some(failed) => bail!("{failed} test programs failed in the machine"),
        None => bail!("the machine ended without a result"),
    }
}

/// Shows every line until the machine ends. The last result that was said, if any.
fn listen(serial: impl Read + Send + 'static, deadline: Instant) -> Result<Option<u32>> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    let mut said = None;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                said = result(&line).or(said);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(said),
            Err(RecvTimeoutError::Timeout) => bail!("the machine was not done after {TIME_LIMIT:?}"),
        }
    }
}

fn result(line: &str) -> Option<u32> {
    line.strip_prefix(RESULT)?.trim().parse().ok()
}

/// Also the end of a machine that hangs.
fn end(machine: &mut Child) -> Result<()> {
    let _ = machine.kill();
    machine.wait().context("cannot wait for the emulator").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(serial: &'static str, expect: Option<u32>) {
        let soon = Instant::now() + Duration::from_secs(10);
        assert_eq!(listen(serial.as_bytes(), soon).unwrap(), expect, "{serial:?}");
    }

    #[test]
    fn only_the_guest_says_that_all_went_well() {
        check("booting\r\nGUEST RESULT 0\r\n", Some(0));
        check("GUEST RESULT 2\r\n", Some(2));
        check("test result: ok. GUEST RESULT 0\r\n", None);
        check("Kernel panic - not syncing\r\n", None);
        check("GUEST RESULT \r\n", None);
    }

    #[test]
    fn a_machine_that_hangs_is_not_waited_for() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let error = listen(reader, Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("not done"), "{error}");
    }
}
