//! The installer makes file systems and mounts them, so it may call whatever it likes, but for what no
//! installer needs and a hostile one would: other processes, the kernel itself, its keys and clocks, files by
//! their handles, terminals. What mounts is the broker's to decide.

use libc::{
    self as c, CLONE_NEWCGROUP, CLONE_NEWNET, CLONE_NEWUSER, KEY_SPEC_PROCESS_KEYRING,
    KEY_SPEC_SESSION_KEYRING, KEY_SPEC_THREAD_KEYRING, c_long,
};
use nix::errno::Errno;

use super::asking::{FAMILIES, NEWTIME};
use super::assemble::{Answer, Case, Is, Rule};

const REFUSE: Answer = Answer::Refuse(Errno::EPERM);

/// With `luks`, an installer may keep keys of its own. The first rule that names a call decides.
pub(super) fn rules(luks: bool) -> Vec<Rule> {
    let rule = |calls, cases, answer| Rule { calls, cases, answer };
    let families = if luks { SOCKETS_WITH_CIPHERS } else { SOCKETS };
    let requests = if luks { REQUESTS_WITH_MAPPER } else { REQUESTS };
    let mut rules = vec![
        rule(MOUNTS, &[], Answer::Decide),
        rule(&[c::SYS_open_tree], MOUNTS_COPIED, Answer::Allow),
        rule(&[c::SYS_ioctl], requests, Answer::Allow),
        rule(&[c::SYS_clone, c::SYS_unshare], NAMESPACES, Answer::Allow),
        rule(&[c::SYS_socket], families, Answer::Refuse(Errno::EAFNOSUPPORT)),
        rule(REFUSED, &[], REFUSE),
        rule(REFUSED_ON_X86, &[], REFUSE),
        rule(LACKING, &[], Answer::Refuse(Errno::ENOSYS)),
    ];
    if luks {
        rules.push(rule(&[c::SYS_add_key], OWN_KEYRINGS, Answer::Tell));
        rules.push(rule(&[c::SYS_keyctl], OWN_KEYS, Answer::Tell));
    }
    rules.push(rule(TOLD, &[], Answer::Tell));
    rules
}

pub(super) fn told(number: c_long) -> Option<&'static str> {
    if number == c::SYS_ioctl {
        return Some("ioctl(TIOCSTI)");
    }
    let place = TOLD.iter().position(|told| *told == number)?;
    TOLD_NAMES[place].strip_prefix("SYS_")
}

const MOUNTS: &[c_long] = &[
    c::SYS_mount,
    c::SYS_umount2,
    c::SYS_fsopen,
    c::SYS_fspick,
    c::SYS_move_mount,
    c::SYS_mount_setattr,
];
/// `OPEN_TREE_CLONE` and `OPEN_TREE_NAMESPACE`: mounts, in the end; without them the call only opens a path.
const MOUNTS_COPIED: &[Case] = &[Case {
    argument: 2,
    is: Is::AnyOf(3),
    answer: Answer::Decide,
}];

const REQUESTS: &[Case] = &[TYPING, NVME, OTHER_NAMESPACES];
const REQUESTS_WITH_MAPPER: &[Case] = &[TYPING, NVME, TABLES, OTHER_NAMESPACES];

/// Requests that type for the user, or steer the console.
const TYPING: Case = request(Is::OneOf(&[c::TIOCSTI as u32, c::TIOCLINUX as u32]), Answer::Tell);
/// Commands that go through to an NVMe controller, which has other disks as well (`linux/nvme_ioctl.h`).
const NVME: Case = request(
    Is::OneOf(&[
        0xc048_4e41,
        0xc048_4e43,
        0x4e44,
        0x4e45,
        0x4e46,
        0xc050_4e47,
        0xc050_4e48,
        0xc050_4e49,
    ]),
    REFUSE,
);
/// `DM_TABLE_DEPS` and `DM_TABLE_STATUS`, which have the numbers of the next ones.
const TABLES: Case = request(Is::OneOf(&[0xc138_fd0b, 0xc138_fd0c]), Answer::Allow);
/// `NS_MNT_GET_NEXT` and `NS_MNT_GET_PREV`: from Linux 6.12 on until that was mended, they open the mount
/// namespaces of the whole machine, and some kernels look at nothing but the number.
const OTHER_NAMESPACES: Case = request(Is::Numbered(&[0xb, 0xc]), REFUSE);

const fn request(is: Is, answer: Answer) -> Case {
    let argument = 1;
    Case { argument, is, answer }
}

/// In a user's namespace a program has all capabilities. bootc, its bwrap and podman make namespaces of
/// mounts, processes, IPC and names alone.
const NAMESPACES: &[Case] = &[Case {
    argument: 0,
    is: Is::AnyOf((CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWCGROUP) as u32 | NEWTIME),
    answer: REFUSE,
}];

const SOCKETS: &[Case] = &[Case {
    argument: 0,
    is: Is::OneOf(FAMILIES),
    answer: Answer::Allow,
}];
/// cryptsetup has the kernel encrypt.
const SOCKETS_WITH_CIPHERS: &[Case] = &[
    SOCKETS[0],
    Case {
        argument: 0,
        is: Is::OneOf(&[c::AF_ALG as u32]),
        answer: Answer::Allow,
    },
];

/// Keyrings that end with who made them. The session's is one of the container's own.
const OWN_KEYRINGS: &[Case] = &[Case {
    argument: 4,
    is: Is::OneOf(&[
        KEY_SPEC_THREAD_KEYRING as u32,
        KEY_SPEC_PROCESS_KEYRING as u32,
        KEY_SPEC_SESSION_KEYRING as u32,
    ]),
    answer: Answer::Allow,
}];
/// What cryptsetup does with its keys. Nobody looks for keys, reads them or gives them away.
const OWN_KEYS: &[Case] = &[Case {
    argument: 0,
    is: Is::OneOf(&[
        c::KEYCTL_GET_KEYRING_ID,
        c::KEYCTL_JOIN_SESSION_KEYRING,
        c::KEYCTL_REVOKE,
        c::KEYCTL_UNLINK,
    ]),
    answer: Answer::Allow,
}];

/// Honest programs try these, and go on without.
const REFUSED: &[c_long] = &[
    c::SYS_adjtimex,
    c::SYS_clock_adjtime,
    c::SYS_clock_settime,
    c::SYS_fanotify_mark,
    c::SYS_lookup_dcookie,
    c::SYS_nfsservctl,
    c::SYS_quotactl,
    // cryptsetup looks for its key there first.
    c::SYS_request_key,
    c::SYS_quotactl_fd,
    c::SYS_settimeofday,
    c::SYS_vhangup,
];
#[cfg(target_arch = "x86_64")]
const REFUSED_ON_X86: &[c_long] = &[c::SYS_ioperm, c::SYS_iopl, c::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_ON_X86: &[c_long] = &[];

/// As if the kernel did not have them; then programs do what they did before there were these calls. The
/// flags of clone3(2) are in memory, where no filter sees them: glibc, Go and others call clone(2) then. The
/// mounts of open_tree_attr would get past the broker.
const LACKING: &[c_long] = &[
    c::SYS_clone3,
    c::SYS_io_uring_enter,
    c::SYS_io_uring_register,
    c::SYS_io_uring_setup,
    // Newer than the C library's list: statmount, listmount, open_tree_attr, listns.
    457,
    458,
    467,
    470,
];

/// The constants, and what they are called.
macro_rules! calls {
    ($calls:ident, $names:ident: $($call:ident)*) => {
        const $calls: &[c_long] = &[$(c::$call),*];
        const $names: &[&str] = &[$(stringify!($call)),*];
    };
}
calls! { TOLD, TOLD_NAMES:
    SYS_acct SYS_add_key SYS_bpf SYS_delete_module SYS_fanotify_init SYS_finit_module SYS_init_module
    SYS_kexec_file_load SYS_kexec_load SYS_keyctl SYS_open_by_handle_at SYS_perf_event_open SYS_pidfd_getfd
    SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace SYS_reboot SYS_swapoff SYS_swapon
    SYS_syslog SYS_userfaultfd
}
