//! The filters, run by an interpreter of the instructions that they use.

use libc::{self as c, seccomp_data};
use nix::errno::Errno;

use super::assemble::ARCHITECTURE;
use super::*;

const NO_NUMBERS: [u64; 6] = [0; 6];

/// What `program` returns for a call.
fn run(program: &[sock_filter], architecture: u32, number: c_long, arguments: [u64; 6]) -> u32 {
    let data = seccomp_data {
        nr: number as i32,
        arch: architecture,
        instruction_pointer: 0,
        args: arguments,
    };
    let words = [
        [data.nr as u32, data.arch, 0, 0].as_slice(),
        &data.args.map(|a| [a as u32, (a >> 32) as u32]).concat(),
    ]
    .concat();
    let (mut at, mut loaded) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        let jump = |holds: bool| at + 1 + usize::from(if holds { jt } else { jf });
        at = match u32::from(code) {
            0x20 => {
                loaded = words[k as usize / 4];
                at + 1
            }
            0x15 => jump(loaded == k),
            0x35 => jump(loaded >= k),
            0x45 => jump(loaded & k != 0),
            0x54 => {
                loaded &= k;
                at + 1
            }
            0x06 => return k,
            code => panic!("instruction {code:#x}"),
        };
    }
}

fn refused(errno: Errno) -> u32 {
    c::SECCOMP_RET_ERRNO | errno as u32
}

const ALLOWED: u32 = c::SECCOMP_RET_ALLOW;
const HANDED_OVER: u32 = c::SECCOMP_RET_USER_NOTIF;

/// The arguments of a call, at their places.
fn with<const N: usize>(given: [(usize, u64); N]) -> [u64; 6] {
    given.into_iter().fold(NO_NUMBERS, |mut all, (place, value)| {
        all[place] = value;
        all
    })
}

fn assert_answers(program: &[sock_filter], rows: &[(c_long, [u64; 6], u32)]) {
    for (number, arguments, expected) in rows {
        let answer = run(program, ARCHITECTURE, *number, *arguments);
        assert_eq!(
            answer, *expected,
            "call {number} with {arguments:x?}: {answer:#x}"
        );
    }
}

#[test]
fn who_is_asked_has_the_calls_of_the_list() {
    let (refuse, lacking) = (refused(Errno::EPERM), refused(Errno::ENOSYS));
    let argument = |place, value| with([(place, value)]);
    assert_answers(
        &asking(),
        &[
            (c::SYS_read, NO_NUMBERS, ALLOWED),
            (c::SYS_execve, NO_NUMBERS, ALLOWED),
            (c::SYS_openat2, NO_NUMBERS, ALLOWED),
            (c::SYS_mount, NO_NUMBERS, refuse),
            (c::SYS_umount2, NO_NUMBERS, refuse),
            (c::SYS_pivot_root, NO_NUMBERS, refuse),
            (c::SYS_chroot, NO_NUMBERS, refuse),
            (c::SYS_setns, NO_NUMBERS, refuse),
            (c::SYS_keyctl, NO_NUMBERS, refuse),
            (c::SYS_add_key, NO_NUMBERS, refuse),
            (c::SYS_request_key, NO_NUMBERS, refuse),
            (c::SYS_bpf, NO_NUMBERS, refuse),
            (c::SYS_ptrace, NO_NUMBERS, refuse),
            (c::SYS_open_by_handle_at, NO_NUMBERS, refuse),
            (c::SYS_syslog, NO_NUMBERS, refuse),
            (c::SYS_reboot, NO_NUMBERS, refuse),
            (c::SYS_clone3, NO_NUMBERS, lacking),
            (c::SYS_fsopen, NO_NUMBERS, lacking),
            (c::SYS_io_uring_setup, NO_NUMBERS, lacking),
            (c::SYS_pidfd_getfd, NO_NUMBERS, lacking),
            (2000, NO_NUMBERS, lacking),
            (c::SYS_clone, argument(0, c::SIGCHLD as u64), ALLOWED),
            (c::SYS_clone, argument(0, c::CLONE_NEWUSER as u64), refuse),
            (
                c::SYS_clone,
                argument(0, (c::CLONE_NEWNS | c::SIGCHLD) as u64),
                refuse,
            ),
            (c::SYS_unshare, argument(0, c::CLONE_FS as u64), ALLOWED),
            (c::SYS_unshare, argument(0, c::CLONE_NEWUSER as u64), refuse),
            (
                c::SYS_unshare,
                argument(0, (c::CLONE_FS | c::CLONE_NEWPID) as u64),
                refuse,
            ),
            (c::SYS_ioctl, argument(1, c::TCGETS), ALLOWED),
            (c::SYS_ioctl, argument(1, c::TIOCSTI), refuse),
            // The kernel looks at 32 bits of it alone.
            (c::SYS_ioctl, argument(1, c::TIOCSTI | 1 << 32), refuse),
            (c::SYS_ioctl, argument(1, c::TIOCLINUX), refuse),
            (c::SYS_personality, argument(0, 0xffff_ffff), ALLOWED),
            (c::SYS_personality, argument(0, 0x0040_0000), refuse),
            (c::SYS_socket, argument(0, c::AF_INET6 as u64), ALLOWED),
            (
                c::SYS_socket,
                argument(0, c::AF_PACKET as u64),
                refused(Errno::EAFNOSUPPORT),
            ),
            (
                c::SYS_socket,
                argument(0, c::AF_VSOCK as u64),
                refused(Errno::EAFNOSUPPORT),
            ),
        ],
    );
}

#[test]
fn who_installs_has_all_calls_but_those_of_the_list() {
    let (refuse, lacking) = (refused(Errno::EPERM), refused(Errno::ENOSYS));
    let argument = |place, value| with([(place, value)]);
    let session = u64::from(c::KEY_SPEC_SESSION_KEYRING as u32);
    let user = u64::from(c::KEY_SPEC_USER_KEYRING as u32);
    let same = [
        (c::SYS_read, NO_NUMBERS, ALLOWED),
        (c::SYS_mknodat, NO_NUMBERS, ALLOWED),
        (c::SYS_chroot, NO_NUMBERS, ALLOWED),
        (c::SYS_setns, NO_NUMBERS, ALLOWED),
        (c::SYS_pivot_root, NO_NUMBERS, ALLOWED),
        (c::SYS_name_to_handle_at, NO_NUMBERS, ALLOWED),
        (c::SYS_mount, NO_NUMBERS, HANDED_OVER),
        (c::SYS_umount2, NO_NUMBERS, HANDED_OVER),
        (c::SYS_fsopen, NO_NUMBERS, HANDED_OVER),
        (c::SYS_move_mount, NO_NUMBERS, HANDED_OVER),
        (c::SYS_mount_setattr, NO_NUMBERS, HANDED_OVER),
        (c::SYS_open_tree, argument(2, 0x8_0000), ALLOWED),
        (c::SYS_open_tree, argument(2, 0x8_0001), HANDED_OVER),
        (c::SYS_open_tree, argument(2, 2), HANDED_OVER),
        (c::SYS_fspick, NO_NUMBERS, HANDED_OVER),
        (467, NO_NUMBERS, lacking),
        (468, NO_NUMBERS, ALLOWED),
        (c::SYS_clone3, NO_NUMBERS, lacking),
        (c::SYS_io_uring_enter, NO_NUMBERS, lacking),
        (c::SYS_quotactl, NO_NUMBERS, refuse),
        (c::SYS_clock_settime, NO_NUMBERS, refuse),
        (c::SYS_bpf, NO_NUMBERS, HANDED_OVER),
        (c::SYS_open_by_handle_at, NO_NUMBERS, HANDED_OVER),
        (c::SYS_request_key, NO_NUMBERS, refuse),
        (c::SYS_keyctl, argument(0, c::KEYCTL_READ.into()), HANDED_OVER),
        (c::SYS_add_key, argument(4, user), HANDED_OVER),
        (c::SYS_ioctl, argument(1, 0x125f), ALLOWED),
        (c::SYS_ioctl, argument(1, 0x8010_b70b), refuse),
        (c::SYS_ioctl, argument(1, 0x8010_b70c), refuse),
        (c::SYS_ioctl, argument(1, 0x0010_000c), refuse),
        (c::SYS_ioctl, argument(1, 0xc038_b70c), refuse),
        (c::SYS_ioctl, argument(1, 0x4c0c), ALLOWED),
        (c::SYS_ioctl, argument(1, 0xc138_fd03), ALLOWED),
        (c::SYS_ioctl, argument(1, 0xc048_4e41), refuse),
        (c::SYS_ioctl, argument(1, c::TIOCSTI | 1 << 32), HANDED_OVER),
        (c::SYS_ioctl, argument(1, c::TIOCLINUX), HANDED_OVER),
        (
            c::SYS_clone,
            argument(0, (c::CLONE_NEWNS | c::CLONE_NEWPID) as u64),
            ALLOWED,
        ),
        (c::SYS_unshare, argument(0, c::CLONE_NEWNS as u64), ALLOWED),
        (c::SYS_unshare, argument(0, c::CLONE_NEWUSER as u64), refuse),
        (
            c::SYS_clone,
            argument(0, (c::CLONE_NEWNS | c::CLONE_NEWNET) as u64),
            refuse,
        ),
        (c::SYS_socket, argument(0, c::AF_NETLINK as u64), ALLOWED),
        (
            c::SYS_socket,
            argument(0, c::AF_VSOCK as u64),
            refused(Errno::EAFNOSUPPORT),
        ),
    ];
    let (plain, luks) = (
        installing(false, Broker::Present),
        installing(true, Broker::Present),
    );
    assert_answers(&plain, &same);
    assert_answers(&luks, &same);
    let differing = [
        (c::SYS_ioctl, argument(1, 0xc138_fd0c), refuse, ALLOWED),
        (c::SYS_add_key, argument(4, session), HANDED_OVER, ALLOWED),
        (
            c::SYS_keyctl,
            argument(0, c::KEYCTL_UNLINK.into()),
            HANDED_OVER,
            ALLOWED,
        ),
        (
            c::SYS_socket,
            argument(0, c::AF_ALG as u64),
            refused(Errno::EAFNOSUPPORT),
            ALLOWED,
        ),
    ];
    for (number, arguments, without, with_luks) in differing {
        assert_answers(&plain, &[(number, arguments, without)]);
        assert_answers(&luks, &[(number, arguments, with_luks)]);
    }
}

#[test]
fn without_a_broker_mounts_are_allowed_and_attacks_refused() {
    assert_answers(
        &installing(false, Broker::Missing),
        &[
            (c::SYS_mount, NO_NUMBERS, ALLOWED),
            (c::SYS_open_tree, with([(2, 1)]), ALLOWED),
            (c::SYS_fspick, NO_NUMBERS, ALLOWED),
            (c::SYS_bpf, NO_NUMBERS, refused(Errno::EPERM)),
            (c::SYS_ioctl, with([(1, c::TIOCSTI)]), refused(Errno::EPERM)),
        ],
    );
}

#[test]
fn nothing_is_allowed_by_another_architectures_numbers() {
    const I386: u32 = 0x4000_0003;
    for program in [asking(), installing(true, Broker::Present)] {
        for (architecture, number) in [
            (I386, c::SYS_read),
            (0, 0),
            (ARCHITECTURE, c::SYS_read | 0x4000_0000),
        ] {
            let answer = run(&program, architecture, number, NO_NUMBERS);
            assert_eq!(answer, refused(Errno::EPERM), "{architecture:#x}, {number:#x}");
        }
        assert_eq!(run(&program, ARCHITECTURE, -1, NO_NUMBERS), refused(Errno::EPERM));
    }
}

#[test]
fn what_is_told_has_a_name() {
    assert_eq!(told(c::SYS_kexec_file_load), Some("kexec_file_load"));
    assert_eq!(told(c::SYS_ioctl), Some("ioctl(TIOCSTI)"));
    assert_eq!(told(c::SYS_mount), None);
}

#[test]
fn the_kernel_takes_and_obeys_both() {
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::chroot;
    for (program, may_chroot) in [
        (asking(), Err(Errno::EPERM)),
        (installing(false, Broker::Missing), Ok(())),
    ] {
        let obeyed = std::thread::spawn(move || {
            crate::sys::seccomp::install(&program).unwrap();
            (
                unshare(CloneFlags::CLONE_NEWUSER),
                unshare(CloneFlags::CLONE_FS),
                chroot("/"),
            )
        });
        assert_eq!(obeyed.join().unwrap(), (Err(Errno::EPERM), Ok(()), may_chroot));
    }
}
