//! System calls: a list of those that recording, delivering and serving need (seen in traces of the
//! whole test suite, and their kin that other kernels and C libraries take in their place). A call
//! outside of the list fails as on a kernel that does not have it. There is no way to start a
//! program, to mount, to trace, to load code into the kernel, to make a namespace.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use listed::filter;

/// No filter for this architecture: the library knows none, and the unit's filter stands.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn filter() -> Result<super::Reach, String> {
    Err("seccomp: not on this architecture".to_owned())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod listed {
    use std::collections::BTreeMap;
    use std::env::consts::ARCH;

    use nix::libc::{self, c_long};
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
        SeccompFilter, SeccompRule, TargetArch, apply_filter,
    };

    use crate::platform::planted::is_planted;
    use crate::platform::sandbox::Reach;

    /// Kills the process at a call outside of the list, so that the tests see it.
    const PLANTED_KILL: &str = "EDGEREC_PLANT_KILL_AT_CALL";

    /// Files, memory, time, threads, signals, sockets.
    #[rustfmt::skip]
    const CALLS: &[c_long] = &[
        libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
        libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2,
        libc::SYS_pwritev2, libc::SYS_openat, libc::SYS_openat2, libc::SYS_close,
        libc::SYS_close_range, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx,
        libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_lseek, libc::SYS_ftruncate,
        libc::SYS_fallocate, libc::SYS_fadvise64, libc::SYS_fsync, libc::SYS_fdatasync,
        libc::SYS_syncfs, libc::SYS_sync_file_range, libc::SYS_fcntl, libc::SYS_flock,
        libc::SYS_getdents64, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat,
        libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_readlinkat,
        libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat,
        libc::SYS_utimensat, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_getcwd,
        libc::SYS_umask, libc::SYS_copy_file_range, libc::SYS_sendfile,
        libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise,
        libc::SYS_msync, libc::SYS_mincore, libc::SYS_brk, libc::SYS_membarrier,
        libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack, libc::SYS_tgkill, libc::SYS_tkill,
        libc::SYS_kill, libc::SYS_restart_syscall,
        // Refused by the filter below: what it makes cannot be seen from outside.
        libc::SYS_clone3,
        libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq,
        libc::SYS_set_tid_address, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex,
        libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_getparam,
        libc::SYS_sched_getscheduler, libc::SYS_prctl, libc::SYS_gettid, libc::SYS_getpid,
        libc::SYS_getppid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid,
        libc::SYS_getegid, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_prlimit64,
        libc::SYS_getrusage, libc::SYS_times, libc::SYS_getrandom,
        libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime,
        libc::SYS_clock_getres, libc::SYS_gettimeofday,
        libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect,
        libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt,
        libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg,
        libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_shutdown, libc::SYS_pipe2, libc::SYS_dup,
        libc::SYS_dup3, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_ppoll, libc::SYS_pselect6,
        libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
        libc::SYS_signalfd4,
    ];

    /// The older names that only this architecture has.
    #[cfg(target_arch = "x86_64")]
    #[rustfmt::skip]
    const OLDER: &[c_long] = &[
        libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_unlink,
        libc::SYS_rename, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_link, libc::SYS_symlink,
        libc::SYS_readlink, libc::SYS_chmod, libc::SYS_chown, libc::SYS_poll, libc::SYS_select,
        libc::SYS_epoll_wait, libc::SYS_epoll_create, libc::SYS_eventfd, libc::SYS_pipe,
        libc::SYS_dup2, libc::SYS_arch_prctl, libc::SYS_time, libc::SYS_getrlimit,
        libc::SYS_getdents,
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const OLDER: &[c_long] = &[];

    /// Flags of `clone(2)` that make namespaces.
    const NAMESPACES: [i32; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    /// What a socket may be for.
    const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    /// What may be asked of a descriptor (`ioctl_tty(2)`): non-blocking, what waits, closed on exec,
    /// whether it is a terminal and how wide. C libraries have different types for these numbers.
    const REQUESTS: [u64; 6] = [FIONBIO, FIONREAD, FIOCLEX, TCGETS, TCGETS2, TIOCGWINSZ];
    const FIONBIO: u64 = 0x5421;
    const FIONREAD: u64 = 0x541B;
    const FIOCLEX: u64 = 0x5451;
    const TCGETS: u64 = 0x5401;
    const TCGETS2: u64 = 0x802C_542A;
    const TIOCGWINSZ: u64 = 0x5413;

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    pub(in crate::platform::sandbox) fn filter() -> Result<Reach, String> {
        install().map_err(|error| format!("seccomp: {error}"))
    }

    fn install() -> Result<Reach, seccompiler::Error> {
        let not_there = || SeccompAction::Errno(libc::ENOSYS as u32);
        let outside =
            if is_planted(PLANTED_KILL) { SeccompAction::KillProcess } else { not_there() };
        // On its own, so that it is refused and nothing is killed for it: C libraries then take
        // `clone`, whose flags can be looked at. First, since the list does not have `seccomp`.
        let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        apply(hidden, SeccompAction::Allow, not_there())?;
        apply(allowed()?, outside, SeccompAction::Allow)?;
        Ok(Reach::Whole)
    }

    fn apply(
        rules: Rules,
        otherwise: SeccompAction,
        matched: SeccompAction,
    ) -> Result<(), seccompiler::Error> {
        let arch = TargetArch::try_from(ARCH)?;
        let filter = SeccompFilter::new(rules, otherwise, matched, arch)?;
        let program = seccompiler::BpfProgram::try_from(filter)?;
        apply_filter(&program)
    }

    fn allowed() -> Result<Rules, seccompiler::Error> {
        let plain = CALLS.iter().chain(OLDER).map(|call| (*call, Vec::new()));
        let mut rules: Rules = plain.collect();
        let families = FAMILIES.map(|family| u64::from(family.unsigned_abs()));
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            rules.insert(call, any_of(0, &families)?);
        }
        rules.insert(libc::SYS_ioctl, any_of(1, &REQUESTS)?);
        let namespaces = NAMESPACES.iter().fold(0, |all, flag| all | flag);
        let mask = u64::from(namespaces.cast_unsigned());
        let none = Condition::new(0, Len::Qword, Op::MaskedEq(mask), 0)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![none])?]);
        Ok(rules)
    }

    /// One rule a value that the argument may have.
    fn any_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::Error> {
        let rule = |value: &u64| {
            let equal = Condition::new(argument, Len::Dword, Op::Eq, *value)?;
            Ok(SeccompRule::new(vec![equal])?)
        };
        values.iter().map(rule).collect()
    }
}
