//! The host's kernel: devices, settings, and limits on this process.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;

use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};

/// The state of /dev/kvm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmDevice {
    /// There is none.
    Absent,
    /// This process may not open it.
    Denied,
    /// This process may open it.
    Usable,
}

/// The host's kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release.
    pub release: String,
    /// The state of /dev/kvm.
    pub kvm: KvmDevice,
    /// Whether the kernel has the modify_ldt system call, if that is knowable.
    pub modify_ldt: Option<bool>,
    /// Whether a memfd can be made.
    pub memfd: bool,
    /// vm.memfd_noexec: 0 leaves memfds executable, 2 refuses such.
    pub memfd_noexec: Option<u64>,
    /// vm.max_map_count: mappings a process may have.
    pub max_map_count: Option<u64>,
    /// vm.overcommit_memory: 0 heuristic, 1 always, 2 never.
    pub overcommit_memory: Option<u64>,
    /// vm.mmap_min_addr: the lowest address a process may map.
    pub mmap_min_addr: Option<u64>,
    /// Memory of the host, and what of it is available, in bytes.
    pub memory: Option<(u64, u64)>,
}

/// Resource limits of this process; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// RLIMIT_AS: address space, in bytes.
    pub address_space: Option<u64>,
    /// RLIMIT_NPROC: threads of this user.
    pub threads: Option<u64>,
    /// RLIMIT_NOFILE: open files.
    pub files: Option<u64>,
}

impl Kernel {
    pub(super) fn detect() -> Self {
        let setting =
            |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            release: release.trim().to_owned(),
            kvm: kvm(),
            modify_ldt: has_modify_ldt(),
            memfd: rustix::fs::memfd_create("ringshift-check", MemfdFlags::CLOEXEC).is_ok(),
            memfd_noexec: setting("vm/memfd_noexec"),
            max_map_count: setting("vm/max_map_count"),
            overcommit_memory: setting("vm/overcommit_memory"),
            mmap_min_addr: setting("vm/mmap_min_addr"),
            memory: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text)),
        }
    }
}

impl Limits {
    pub(super) fn detect() -> Self {
        Self {
            address_space: getrlimit(Resource::As).current,
            threads: getrlimit(Resource::Nproc).current,
            files: getrlimit(Resource::Nofile).current,
        }
    }
}

fn kvm() -> KvmDevice {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => KvmDevice::Usable,
        // A device node without a driver behind it is as good as none.
        Err(error) => match error.kind() {
            ErrorKind::PermissionDenied => KvmDevice::Denied,
            _ => KvmDevice::Absent,
        },
    }
}

/// The system call can only be tried through unsafe code, but a kernel lists
/// the ones it has among its symbols.
fn has_modify_ldt() -> Option<bool> {
    let symbols = fs::read_to_string("/proc/kallsyms").ok()?;
    // A kernel without a symbol table, or a filtered one, says nothing.
    symbols.contains("__x64_sys_mmap").then(|| symbols.contains("__x64_sys_modify_ldt"))
}

/// MemTotal and MemAvailable in bytes.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:        8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n";
        assert_eq!(memory(text), Some((8_192_000, 4_096_000)));
        assert_eq!(memory("MemTotal: 8000 kB\n"), None);
    }

    #[test]
    fn this_kernel_is_read() {
        let kernel = Kernel::detect();
        assert!(kernel.release.starts_with(|first: char| first.is_ascii_digit()));
        assert!(kernel.max_map_count.is_some_and(|count| count > 0));
        assert!(kernel.memory.is_some_and(|(total, available)| total >= available));
    }
}
