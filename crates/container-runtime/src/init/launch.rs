//! The last step of container-init: find the program in the container, become its user, execute.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid, chdir, execve, fchown, getcwd};

use super::privileges::give_up;
use super::user::{Identity, resolve};
use super::{Attempt, Never, Setup, refuse};
use crate::protocol::InitFailure;
use crate::spec::ProcessSpec;
use crate::sys;

/// A shell's answers, which Docker gives as well.
const EXIT_NOT_EXECUTABLE: i32 = 126;
const EXIT_NOT_FOUND: i32 = 127;

/// Becomes the program. Returns only with the reason why not.
pub fn launch(process: &ProcessSpec, filter: Option<&[u8]>) -> Setup<Never> {
    let identity = resolve(&process.user)?;
    enter_working_dir(&process.working_dir)?;
    let env = environment(process, &identity);
    let program = find(&process.args[0], path_variable(&env))?;
    let path = c_string(&program)?;
    let args: Vec<CString> = process.args.iter().map(|arg| c_string(arg)).collect::<Setup<_>>()?;
    let env: Vec<CString> =
        env.iter().map(|(name, value)| c_string(&format!("{name}={value}"))).collect::<Setup<_>>()?;
    own_streams(&identity);
    // Knarr lives without huge pages; what a program does is its own affair.
    sys::prctl(libc::PR_SET_THP_DISABLE, 0).attempt(|| "allow huge pages".to_owned())?;
    give_up(process, filter, &identity)?;
    // A change of user clears this; the container's program must not outlive its shim.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .attempt(|| "tie itself to the shim".to_owned())?;
    let error = match execve(&path, &args, &env) {
        Ok(never) => infallible(never),
        Err(error) => error,
    };
    Err(cannot_execute(&process.args[0], error))
}

fn infallible(never: Infallible) -> Errno {
    match never {}
}

fn c_string(text: &str) -> Setup<CString> {
    CString::new(text).attempt(|| format!("pass {text:?} to the program"))
}

/// A directory that is not reachable from the root is somebody else's (CVE-2024-21626).
fn enter_working_dir(dir: &str) -> Setup<()> {
    chdir(dir).attempt(|| format!("enter the working directory {dir}"))?;
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => refuse(format!("the working directory {dir} is outside the container")),
    }
}

fn environment(process: &ProcessSpec, identity: &Identity) -> Vec<(String, String)> {
    let mut env = process.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), identity.home.clone()));
    }
    env
}

fn path_variable(env: &[(String, String)]) -> &str {
    env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value)
}

/// A program that reopens `/dev/stdout` needs to own the pipe behind it.
fn own_streams(identity: &Identity) {
    let owner = (Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)));
    // `/dev/null` as stdin is not ours to give away; the pipes are.
    let _ = fchown(std::io::stdout(), owner.0, owner.1);
    let _ = fchown(std::io::stderr(), owner.0, owner.1);
}

/// Looks for a program as execvp(3) does, but in the container's PATH and with Docker's words.
fn find(name: &str, path: &str) -> Setup<String> {
    if name.contains('/') {
        return match fs::metadata(name) {
            Err(error) => Err(failure(EXIT_NOT_FOUND, name, &format!("stat {name}: {}", plain(&error)))),
            Ok(_) => Ok(name.to_owned()),
        };
    }
    let mut seen_but_not_executable = false;
    for dir in path.split(':') {
        let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
        match fs::metadata(&candidate) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => seen_but_not_executable = true,
            Err(_) => {}
        }
    }
    if seen_but_not_executable {
        return Err(failure(EXIT_NOT_EXECUTABLE, name, "permission denied"));
    }
    Err(failure(EXIT_NOT_FOUND, name, "executable file not found in $PATH"))
}

fn cannot_execute(name: &str, error: Errno) -> InitFailure {
    let code = match error {
        Errno::ENOENT => EXIT_NOT_FOUND,
        _ => EXIT_NOT_EXECUTABLE,
    };
    let why = match error {
        Errno::ENOENT => "no such file or directory (is its interpreter or loader in the image?)".to_owned(),
        Errno::EACCES => "permission denied".to_owned(),
        Errno::ENOEXEC => "exec format error (built for another architecture, or a script without #!)".to_owned(),
        other => other.desc().to_lowercase(),
    };
    failure(code, name, &why)
}

fn failure(exit_code: i32, name: &str, why: &str) -> InitFailure {
    InitFailure { exit_code, message: format!("exec: {name:?}: {why}") }
}

fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, path: &str, expect: Result<&str, (i32, &str)>) {
        let got = find(name, path).map_err(|failure| (failure.exit_code, failure.message));
        assert_eq!(got.as_deref().map_err(|(code, why)| (*code, why.as_str())), expect);
    }

    #[test]
    fn programs_are_found_as_a_shell_would() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        fs::write(dir.path().join("tool"), "x").unwrap();
        fs::write(dir.path().join("notes"), "x").unwrap();
        fs::set_permissions(dir.path().join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let tool = format!("{path}/tool");
        check("tool", &format!("/nowhere:{path}"), Ok(&tool));
        check(&tool, "", Ok(&tool));
        check("notes", path, Err((126, "exec: \"notes\": permission denied")));
        check("foo", path, Err((127, "exec: \"foo\": executable file not found in $PATH")));
        check("/no/foo", path, Err((127, "exec: \"/no/foo\": stat /no/foo: no such file or directory")));
    }
}
