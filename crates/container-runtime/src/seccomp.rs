//! The default seccomp profile, compiled to BPF. Pure; the agent caches one program per set of
//! capabilities, because compiling is the slow part of starting a container elsewhere.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::seccomp_table::{ALWAYS, WITH_CAPABILITY};

/// Size of `struct sock_filter`.
pub const INSTRUCTION_BYTES: usize = 8;
/// `CLONE_NEW*` for cgroup, uts, ipc, user, pid, net and mount namespaces.
const CLONE_NEW_NAMESPACES: u64 = 0x7e02_0000;
/// personality(2): query, Linux, 32-bit addresses kept out, and both with no randomisation.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Families that reach kernel code no container needs: crypto sockets (CVE-2026-31431), hypervisor.
const REFUSED_FAMILIES: [u64; 2] = [libc::AF_ALG as u64, libc::AF_VSOCK as u64];
/// From this number on a call is younger than the table: "not there" lets a libc fall back to an
/// older one, where "forbidden" would not. It also covers the x32 numbers.
const FIRST_UNKNOWN_CALL: u32 = 468;

/// The program for a process with these capabilities (bit n is capability n): the bytes of an array
/// of `struct sock_filter`.
pub fn compile(capabilities: u64) -> Result<Vec<u8>, seccompiler::Error> {
    let has = |capability: caps::Capability| capabilities & capability.bitmask() != 0;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().flat_map(|group| group.iter()).map(|call| (*call, Vec::new())).collect();
    for (capability, calls) in WITH_CAPABILITY {
        if has(*capability) {
            rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
    }
    let namespaces = has(caps::Capability::CAP_SYS_ADMIN);
    rules.insert(libc::SYS_clone, if namespaces { Vec::new() } else { vec![clone_without_namespaces()?] });
    rules.insert(libc::SYS_socket, vec![socket_of_allowed_family()?]);
    let personalities = PERSONALITIES
        .iter()
        .map(|persona| SeccompRule::new(vec![SeccompCondition::new(0, Len::Qword, Op::Eq, *persona)?]));
    rules.insert(libc::SYS_personality, personalities.collect::<Result<_, _>>()?);

    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(not_there().into_iter().chain(program).flat_map(|instruction| encode(&instruction)).collect())
}

fn clone_without_namespaces() -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, Len::Qword, Op::MaskedEq(CLONE_NEW_NAMESPACES), 0)?])
}

fn socket_of_allowed_family() -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = REFUSED_FAMILIES.iter().map(|family| SeccompCondition::new(0, Len::Dword, Op::Ne, *family));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// Before the program proper: calls that answer ENOSYS. seccompiler knows two actions only, so
/// these four instructions are written by hand (see linux/filter.h for the codes).
fn not_there() -> [sock_filter; 4] {
    const LOAD_CALL_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, offset 0 of seccomp_data
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    [
        sock_filter { code: LOAD_CALL_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 1, jf: 0, k: FIRST_UNKNOWN_CALL },
        sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: libc::SYS_clone3 as u32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: not_there },
    ]
}

fn encode(instruction: &sock_filter) -> [u8; INSTRUCTION_BYTES] {
    let [code_low, code_high] = instruction.code.to_ne_bytes();
    let [k0, k1, k2, k3] = instruction.k.to_ne_bytes();
    [code_low, code_high, instruction.jt, instruction.jf, k0, k1, k2, k3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers: a small BPF machine for the instructions that occur.
    fn run(program: &[u8], call: i64, first_argument: u64) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&(call as u32).to_le_bytes());
        let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        data[16..24].copy_from_slice(&first_argument.to_le_bytes());
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let word = &program[at * INSTRUCTION_BYTES..][..INSTRUCTION_BYTES];
            let (jt, jf) = (usize::from(word[2]), usize::from(word[3]));
            let k = u32::from_ne_bytes(word[4..].try_into().unwrap());
            let jump = |yes: bool| if yes { jt } else { jf };
            at += 1;
            match u16::from_ne_bytes([word[0], word[1]]) {
                0x20 => accumulator = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
                0x54 => accumulator &= k,
                0x15 => at += jump(accumulator == k),
                0x25 => at += jump(accumulator > k),
                0x35 => at += jump(accumulator >= k),
                0x05 => at += k as usize,
                0x06 => return k,
                other => panic!("instruction {other:#x} at {at}"),
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const FORBIDDEN: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn the_default_profile() {
        let program = compile(0).unwrap();
        for (call, argument, expect) in [
            (libc::SYS_read, 0, ALLOW),
            (libc::SYS_execve, 0, ALLOW),
            (libc::SYS_futex, 0, ALLOW),
            (libc::SYS_clone, libc::CLONE_VM as u64 | libc::CLONE_THREAD as u64, ALLOW),
            (libc::SYS_clone, libc::CLONE_NEWUSER as u64, FORBIDDEN),
            (libc::SYS_clone, libc::CLONE_NEWNS as u64 | libc::CLONE_VM as u64, FORBIDDEN),
            (libc::SYS_clone3, 0, NOT_THERE),
            (FIRST_UNKNOWN_CALL.into(), 0, NOT_THERE),
            (0x4000_0001, 0, NOT_THERE),
            (libc::SYS_socket, libc::AF_INET as u64, ALLOW),
            (libc::SYS_socket, libc::AF_ALG as u64, FORBIDDEN),
            (libc::SYS_socket, libc::AF_VSOCK as u64, FORBIDDEN),
            (libc::SYS_personality, 0x2_0000, ALLOW),
            (libc::SYS_personality, 0x4_0000, FORBIDDEN),
            (libc::SYS_mount, 0, FORBIDDEN),
            (libc::SYS_unshare, 0, FORBIDDEN),
            (libc::SYS_fsopen, 0, FORBIDDEN),
            (libc::SYS_io_uring_setup, 0, FORBIDDEN),
            (libc::SYS_keyctl, 0, FORBIDDEN),
            (libc::SYS_userfaultfd, 0, FORBIDDEN),
            (libc::SYS_bpf, 0, FORBIDDEN),
            (libc::SYS_chroot, 0, FORBIDDEN),
        ] {
            assert_eq!(run(&program, call, argument), expect, "call {call} with {argument:#x}");
        }
    }

    #[test]
    fn capabilities_open_their_calls() {
        let program = compile(caps::Capability::CAP_SYS_ADMIN.bitmask()).unwrap();
        for (call, argument, expect) in [
            (libc::SYS_mount, 0, ALLOW),
            (libc::SYS_clone, libc::CLONE_NEWNS as u64, ALLOW),
            (libc::SYS_reboot, 0, FORBIDDEN),
            (libc::SYS_io_uring_setup, 0, FORBIDDEN),
        ] {
            assert_eq!(run(&program, call, argument), expect, "call {call}");
        }
    }
}
