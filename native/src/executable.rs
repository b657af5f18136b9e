//! What executable memory needs that is mapped twice: a file behind it, and a way to take notice of
//! new code.

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::arch::asm;

/// `MFD_EXEC` (Linux 6.3; include/uapi/linux/memfd.h).
const MFD_EXEC: u32 = 0x10;

/// A file in memory of `size` bytes that can be mapped executable. Pages are allocated when first
/// written.
///
/// # Errors
/// The kernel's, where memfds are forbidden or the size is.
pub fn file(name: &str, size: usize) -> rustix::io::Result<OwnedFd> {
    let exec = MemfdFlags::CLOEXEC | MemfdFlags::from_bits_retain(MFD_EXEC);
    // Kernels before 6.3 do not know MFD_EXEC and need none.
    let file = memfd_create(name, exec).or_else(|_| memfd_create(name, MemfdFlags::CLOEXEC))?;
    ftruncate(&file, size as u64)?;
    Ok(file)
}

/// Executes a serializing instruction, as is required between writing code through one address
/// and executing it through another (SDM vol. 3A, section 9.1.3). IRET is the one that neither
/// needs privilege nor exits from a virtual machine.
pub fn serialize() {
    // SAFETY: returns to the next instruction with the same selectors, stack and flags.
    unsafe {
        asm!(
            "mov {t}, rsp",
            "mov {u:e}, ss",
            "push {u}",
            "push {t}",
            "pushfq",
            "mov {u:e}, cs",
            "push {u}",
            "lea {u}, [rip + 2f]",
            "push {u}",
            "iretq",
            "2:",
            t = out(reg) _,
            u = out(reg) _,
        );
    }
}
