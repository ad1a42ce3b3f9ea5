//! From rules to a program of classic BPF, which the kernel runs before each call (`linux/filter.h`).
//!
//! The numbers of the calls fall into ranges that are answered alike. The program looks for the call's range,
//! from the highest; in it, it may look at arguments, and then it returns.

use std::mem::offset_of;

use libc::{c_long, seccomp_data, sock_filter};
use nix::errno::Errno;

/// `AUDIT_ARCH_…` of the architecture that this program is built for (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;

/// From here on numbers are x32's (`__X32_SYSCALL_BIT`); other architectures never come so far.
const FOREIGN_NUMBERS: u32 = 0x4000_0000;

/// The upper bits of a request's size (`_IOC_SIZE` of `asm-generic/ioctl.h`).
const AT_LEAST_16_BYTES: u32 = 0x3ff0_0000;

/// Whether somebody hears and answers the calls that a filter hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    Present,
    /// What mounts is allowed, and what would be told of is refused without a word.
    Missing,
}

/// What is answered to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Refuse(Errno),
    /// No honest image makes it: it's refused, and told of.
    Tell,
    /// The broker decides, and does it.
    Decide,
}

/// What is answered to some calls.
pub(super) struct Rule {
    pub calls: &'static [c_long],
    /// The first that holds decides.
    pub cases: &'static [Case],
    /// What is answered where none holds.
    pub answer: Answer,
}

/// What is answered where an argument is like this. Only its lower half is looked at: it is all that the
/// kernel looks at in the arguments that are named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// Counted from 0.
    pub argument: usize,
    pub is: Is,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    OneOf(&'static [u32]),
    /// At least one of these bits is set.
    AnyOf(u32),
    /// Requests of ioctl(2) with one of these numbers, whatever their type, for at least 16 bytes.
    Numbered(&'static [u32]),
}

/// What is answered to one call.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Decision {
    cases: &'static [Case],
    answer: Answer,
}

/// The program for `rules`, and for all other calls `otherwise`.
pub(super) fn program(
    rules: &[Rule],
    otherwise: impl Fn(c_long) -> Answer,
    broker: Broker,
) -> Vec<sock_filter> {
    let mut program = vec![load(offset_of!(seccomp_data, arch))];
    program.extend(unless(libc::BPF_JEQ, ARCHITECTURE, &[answer(REFUSE, broker)]));
    program.push(load(offset_of!(seccomp_data, nr)));
    program.extend(when(libc::BPF_JGE, FOREIGN_NUMBERS, &[answer(REFUSE, broker)]));
    for (first, decision) in ranges(rules, otherwise).into_iter().rev() {
        let decided = decided(decision, broker);
        // The lowest range is what is left: nothing comes behind it.
        program.extend(if first == 0 {
            decided
        } else {
            when(libc::BPF_JGE, first, &decided)
        });
    }
    program
}

const REFUSE: Answer = Answer::Refuse(Errno::EPERM);

/// The numbers that are answered alike, by the first of them, in their order; the last range has no end.
fn ranges(rules: &[Rule], otherwise: impl Fn(c_long) -> Answer) -> Vec<(u32, Decision)> {
    let highest = rules
        .iter()
        .flat_map(|rule| rule.calls)
        .max()
        .copied()
        .unwrap_or(0);
    let mut ranges: Vec<(u32, Decision)> = Vec::new();
    for number in 0..=highest + 1 {
        let rule = rules.iter().find(|rule| rule.calls.contains(&number));
        let decision = rule.map_or(
            Decision {
                cases: &[],
                answer: otherwise(number),
            },
            |rule| Decision {
                cases: rule.cases,
                answer: rule.answer,
            },
        );
        if ranges.last().is_none_or(|(_, last)| *last != decision) {
            ranges.push((number as u32, decision));
        }
    }
    ranges
}

/// Looks at the arguments as far as it matters, and returns.
fn decided(decision: Decision, broker: Broker) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for case in decision.cases {
        // Both architectures are little-endian: the lower half comes first.
        code.push(load(
            offset_of!(seccomp_data, args) + case.argument * size_of::<u64>(),
        ));
        let then = [answer(case.answer, broker)];
        match case.is {
            Is::OneOf(values) => values
                .iter()
                .for_each(|value| code.extend(when(libc::BPF_JEQ, *value, &then))),
            Is::AnyOf(bits) => code.extend(when(libc::BPF_JSET, bits, &then)),
            Is::Numbered(numbers) => {
                let mut of_number = vec![instruction(
                    libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
                    [0, 0],
                    0xff,
                )];
                for number in numbers {
                    of_number.extend(when(libc::BPF_JEQ, *number, &then));
                }
                code.extend(when(libc::BPF_JSET, AT_LEAST_16_BYTES, &of_number));
            }
        }
    }
    code.push(answer(decision.answer, broker));
    code
}

/// Loads four bytes of what the kernel says of the call.
fn load(offset: usize) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, [0, 0], offset as u32)
}

/// `then`, if what was loaded compares like this with `value`.
fn when(comparison: u32, value: u32, then: &[sock_filter]) -> Vec<sock_filter> {
    jump(comparison, [0, then.len() as u8], value, then)
}

/// `then`, if it doesn't.
fn unless(comparison: u32, value: u32, then: &[sock_filter]) -> Vec<sock_filter> {
    jump(comparison, [then.len() as u8, 0], value, then)
}

fn jump(comparison: u32, over: [u8; 2], value: u32, then: &[sock_filter]) -> Vec<sock_filter> {
    assert!(then.len() <= usize::from(u8::MAX), "a jump reaches no further");
    let jump = instruction(libc::BPF_JMP | libc::BPF_K | comparison, over, value);
    [&[jump], then].concat()
}

fn answer(answer: Answer, broker: Broker) -> sock_filter {
    let refuse = |errno: Errno| libc::SECCOMP_RET_ERRNO | errno as u32;
    let value = match (answer, broker) {
        (Answer::Allow, _) | (Answer::Decide, Broker::Missing) => libc::SECCOMP_RET_ALLOW,
        (Answer::Refuse(errno), _) => refuse(errno),
        (Answer::Tell, Broker::Missing) => refuse(Errno::EPERM),
        (Answer::Tell | Answer::Decide, Broker::Present) => libc::SECCOMP_RET_USER_NOTIF,
    };
    instruction(libc::BPF_RET | libc::BPF_K, [0, 0], value)
}

/// `jumps`: how many instructions are left out where a comparison holds, and where it doesn't.
fn instruction(code: u32, jumps: [u8; 2], value: u32) -> sock_filter {
    let [jt, jf] = jumps;
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k: value,
    }
}
