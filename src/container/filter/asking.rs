//! Who is only asked something computes, reads and writes files of its own, and starts programs. The list is
//! podman's default (containers-common, `seccomp.json`) less what needs capabilities that are not given,
//! less keys, the kernel's log, clocks, handles of files and all that mounts.

use libc::{
    self as c, AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET,
    CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, c_long,
};
use nix::errno::Errno;

use super::assemble::{Answer, Case, Is, Rule};

/// The calls from this number on have the same number on all architectures, and programs go without those
/// that the kernel lacks (`ENOSYS`). clone(2) stands in for clone3, whose flags no filter can see.
const NEW_CALLS: c_long = 424;

/// What is answered to calls that no rule names.
pub(super) fn otherwise(number: c_long) -> Answer {
    Answer::Refuse(if number < NEW_CALLS {
        Errno::EPERM
    } else {
        Errno::ENOSYS
    })
}

pub(super) fn rules() -> [Rule; 7] {
    let rule = |calls, cases, answer| Rule { calls, cases, answer };
    [
        rule(ALLOWED, &[], Answer::Allow),
        rule(OLDER, &[], Answer::Allow),
        rule(NEWER, &[], Answer::Allow),
        rule(&[c::SYS_clone, c::SYS_unshare], &NO_NAMESPACES, Answer::Allow),
        rule(&[c::SYS_ioctl], &NO_TERMINALS, Answer::Allow),
        rule(&[c::SYS_personality], &PERSONALITIES, REFUSE),
        rule(&[c::SYS_socket], &SOCKETS, Answer::Refuse(Errno::EAFNOSUPPORT)),
    ]
}

const REFUSE: Answer = Answer::Refuse(Errno::EPERM);

/// `CLONE_NEWTIME`; in clone(2) the bit is part of a signal's number that no signal has.
pub(super) const NEWTIME: u32 = 0x80;
const NAMESPACES: u32 = (CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWUSER
    | CLONE_NEWUTS) as u32
    | NEWTIME;
const NO_NAMESPACES: [Case; 1] = [Case {
    argument: 0,
    is: Is::AnyOf(NAMESPACES),
    answer: REFUSE,
}];

/// Requests that type for the user, take over a console's output, or load what reads a line.
const NO_TERMINALS: [Case; 1] = [Case {
    argument: 1,
    is: Is::OneOf(&[
        c::TIOCSTI as u32,
        c::TIOCLINUX as u32,
        c::TIOCCONS as u32,
        c::TIOCSETD as u32,
    ]),
    answer: REFUSE,
}];

/// To ask for it (all ones), Linux, Linux on a machine of 32 bits, and both with an older name (`UNAME26`).
const PERSONALITIES: [Case; 1] = [Case {
    argument: 0,
    is: Is::OneOf(&[u32::MAX, 0, 8, 0x20000, 0x20008]),
    answer: Answer::Allow,
}];

/// The families of sockets that a program without a network of its own has use for.
pub(super) const FAMILIES: &[u32] = &[AF_UNIX as u32, AF_INET as u32, AF_INET6 as u32, AF_NETLINK as u32];
const SOCKETS: [Case; 1] = [Case {
    argument: 0,
    is: Is::OneOf(FAMILIES),
    answer: Answer::Allow,
}];

macro_rules! calls {
    ($($call:ident)*) => { &[$(c::$call),*] };
}
const ALLOWED: &[c_long] = calls! {
    SYS_accept SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_getres
    SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64
    SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync
    SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync
    SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64
    SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid
    SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid SYS_getrusage SYS_getsid
    SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr
    SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy
    SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioprio_get SYS_ioprio_set SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat
    SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise
    SYS_membarrier SYS_memfd_create SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall
    SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend
    SYS_mq_unlink SYS_mremap SYS_mseal SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock
    SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect
    SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_pselect6 SYS_pwrite64
    SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg
    SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat2 SYS_restart_syscall SYS_rseq
    SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
    SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop
    SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid
    SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setsid SYS_setsockopt
    SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack
    SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_syncfs
    SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime
    SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_wait4 SYS_waitid
    SYS_write SYS_writev
};
/// Newer than the C library's list.
const NEWER: &[c_long] = &[
    451, // cachestat
    452, // fchmodat2
    453, // map_shadow_stack
    454, // futex_wake
    455, // futex_wait
    456, // futex_requeue
    463, // setxattrat
    464, // getxattrat
    465, // listxattrat
    466, // removexattrat
];

/// Older forms, which later architectures do without, or almost.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create
    SYS_epoll_ctl_old SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat
    SYS_get_thread_area SYS_getdents SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_lchown SYS_link
    SYS_lstat SYS_mkdir SYS_mknod SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename
    SYS_renameat SYS_rmdir SYS_select SYS_set_thread_area SYS_setrlimit SYS_signalfd SYS_stat SYS_symlink
    SYS_sync_file_range SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(target_arch = "aarch64")]
const OLDER: &[c_long] = &[
    38,  // renameat: the C library's list lacks these
    84,  // sync_file_range
    163, // getrlimit
    164, // setrlimit
];
