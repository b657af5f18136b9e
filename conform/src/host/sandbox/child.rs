//! What the child does. Everything here runs between fork and death: no allocation, no locks, no
//! thread-local storage (FS belongs to the cases), no standard library that could use them.

use super::super::layout::{
    CODE, CODE_SIZE, CONTENTS, FILL, Kind, MAP, MEMORY, PAGE, PAGES, WINDOW, WINDOW_END, address_of,
};
use super::super::memory::{LINE, changed_lines};
use super::super::segments::LdtEntry;
use super::super::state::{State, legacy};
use super::entry::{Frame, signal_entry};
use super::{Lines, STACK, Shared};
use libc::{c_int, c_void, sock_filter, sock_fprog, ucontext_t};
use std::arch::asm;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// How far the set-up has come: what fails next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Step {
    /// Mapping the window.
    Window = 0,
    /// Making the LDT: modify_ldt(2) may be forbidden.
    Ldt = 1,
    /// Installing signal handlers.
    Signals = 2,
    /// Installing the seccomp filter.
    Seccomp = 3,
    /// The first trap.
    Trap = 4,
}

impl Step {
    pub(super) fn from_number(n: u32) -> Step {
        match n {
            0 => Step::Window,
            1 => Step::Ldt,
            2 => Step::Signals,
            3 => Step::Seccomp,
            _ => Step::Trap,
        }
    }
}

/// The shared memory, for the signal handler.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());

/// The signals that processor exceptions become.
const SIGNALS: [c_int; 5] =
    [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];

/// Sets the child up and executes batches until it is killed.
///
/// # Safety
/// To be called in a forked child that has one thread, with mappings as [`super::Sandbox`] makes
/// them.
pub(super) unsafe fn main(shared: *mut Shared, file: c_int, stack: *mut u8, ldt: &[LdtEntry]) -> ! {
    // SAFETY: the caller's; each step only concerns this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        SHARED.store(shared, Ordering::Relaxed);
        let step = |next: Step| (*shared).step.store(next as u32, Ordering::Relaxed);
        let set_up = map_window(file)
            && {
                step(Step::Ldt);
                clear_low_memory(shared, stack);
                write_ldt(ldt)
            }
            && {
                step(Step::Signals);
                install_handlers(stack)
            }
            && {
                step(Step::Seccomp);
                install_filter()
            };
        if set_up {
            step(Step::Trap);
            asm!("int3");
        }
        libc::_exit(1)
    }
}

/// Maps the window's pages where the cases have them.
///
/// # Safety
/// `file` is what [`Shared`] lies in, and the caller's mappings lie elsewhere.
unsafe fn map_window(file: c_int) -> bool {
    for (i, kind) in MAP.iter().enumerate() {
        let protection = match kind {
            Kind::None => libc::PROT_NONE,
            Kind::Data => libc::PROT_READ | libc::PROT_WRITE,
            Kind::ReadOnly => libc::PROT_READ,
            Kind::Code => libc::PROT_READ | libc::PROT_EXEC,
        };
        let address = (WINDOW as usize + i * PAGE) as *mut c_void;
        // Populated, so that every page fault is one of protection or of absence as the map says.
        let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
        let offset = (i * PAGE) as libc::off_t;
        // SAFETY: only succeeds where nothing is mapped.
        let got = unsafe { libc::mmap(address, PAGE, protection, flags, file, offset) };
        if got != address {
            return false;
        }
    }
    true
}

/// Unmaps everything else below 4 GiB, so that 32-bit addresses find nothing but the window.
/// (Above, addresses that cases make up do not meet what is mapped.)
///
/// # Safety
/// The process uses nothing there but the window; where `shared`, `stack` or its code lie there,
/// nothing is unmapped.
unsafe fn clear_low_memory(shared: *mut Shared, stack: *mut u8) {
    const LIMIT: u64 = 1 << 32;
    let code = signal_entry as *const () as u64;
    if [shared as u64, stack as u64, code].iter().any(|&address| address < LIMIT) {
        return;
    }
    // SAFETY: nothing that the child uses lies there.
    unsafe {
        libc::munmap(0x1_0000 as *mut c_void, WINDOW as usize - 0x1_0000);
        libc::munmap(WINDOW_END as *mut c_void, (LIMIT - WINDOW_END) as usize);
    }
}

/// `struct user_desc` (arch/x86/include/uapi/asm/ldt.h).
#[repr(C)]
struct UserDesc {
    entry_number: u32,
    base: u32,
    limit: u32,
    flags: u32,
}

/// Gives this process the LDT.
///
/// # Safety
/// No segment register holds a selector of the LDT.
unsafe fn write_ldt(ldt: &[LdtEntry]) -> bool {
    for (i, entry) in ldt.iter().enumerate() {
        let flags = u32::from(entry.wide)
            | u32::from(entry.contents) << 1
            | u32::from(entry.read_or_execute_only) << 3
            | u32::from(!entry.present) << 5;
        let entry =
            UserDesc { entry_number: i as u32, base: entry.base, limit: entry.limit, flags };
        let size = size_of::<UserDesc>();
        // SAFETY: function 0x11 writes an entry from a valid struct.
        if unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, &entry, size) } != 0 {
            return false;
        }
    }
    true
}

/// Takes [`SIGNALS`] to the entry stub, and blocks all others.
///
/// # Safety
/// `stack` has [`STACK`] bytes that nothing else uses, and [`SHARED`] is set before the first
/// signal.
unsafe fn install_handlers(stack: *mut u8) -> bool {
    // SAFETY: valid structs; the stack is as large as said.
    unsafe {
        let stack = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: STACK };
        let mut ok = libc::sigaltstack(&stack, ptr::null_mut()) == 0;
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = signal_entry as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut set);
        for signal in SIGNALS {
            ok &= libc::sigaction(signal, &action, ptr::null_mut()) == 0;
            libc::sigdelset(&mut set, signal);
        }
        ok && libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut()) == 0
    }
}

/// Leaves rt_sigreturn, futex and exit_group; anything else, and any 32-bit system call, kills.
///
/// # Safety
/// The process makes no other calls from here on, not by its allocator or by a panic either.
unsafe fn install_filter() -> bool {
    /// `AUDIT_ARCH_X86_64` (include/uapi/linux/audit.h).
    const ARCH: u32 = 0xC000_003E;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // Offsets in struct seccomp_data: 0 is the number, 4 the architecture.
    let mut filter = [
        line(LOAD, 0, 0, 4),
        line(EQUAL, 0, 4, ARCH),
        line(LOAD, 0, 0, 0),
        line(EQUAL, 3, 0, libc::SYS_rt_sigreturn as u32),
        line(EQUAL, 2, 0, libc::SYS_futex as u32),
        line(EQUAL, 1, 0, libc::SYS_exit_group as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a valid program.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Registers of the signal frame by hardware number.
const GREGS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Bits of `uc_flags`: extended state, SS saved, SS restored strictly
/// (arch/x86/include/uapi/asm/ucontext.h).
const UC_FLAGS: u64 = 1 | 2 | 4;
/// Offset of XSTATE_BV in an XSAVE area.
const XSTATE_BV: usize = 512;
/// State components besides x87 and SSE, with their sizes (SDM vol. 1, section 13.5): AVX, and the
/// three of AVX-512.
pub(super) const COMPONENTS: [(u32, usize); 4] = [(2, 256), (5, 64), (6, 512), (7, 1024)];
/// Flags that sigreturn does not restore, and that the entry stub loads.
const NT_AND_ID: u64 = x86::flags::NT | x86::flags::ID;

/// Called by the entry stub on every exception: notes the outcome of the active job, waits for
/// work, and leaves the next job's registers in the signal frame and in `frame`.
///
/// # Safety
/// Only as the signal handler of the child.
#[unsafe(no_mangle)]
unsafe extern "C" fn ringshift_conform_signal(
    _signal: c_int,
    _info: *mut libc::siginfo_t,
    context: *mut ucontext_t,
    frame: *mut Frame,
) {
    // SAFETY: the kernel's and the stub's pointers are valid; the parent touches the jobs only
    // while the child waits.
    unsafe {
        let shared = SHARED.load(Ordering::Relaxed);
        if (*shared).active != 0 {
            finish(shared, context, frame);
            (*shared).active = 0;
            (*shared).index += 1;
        }
        loop {
            // First of all: the parent writes the rest of the batch before this.
            let asked = (*shared).asked.load(Ordering::Acquire);
            if (*shared).done.load(Ordering::Relaxed) != asked {
                if (*shared).index < (*shared).count {
                    break;
                }
                (*shared).done.store(asked, Ordering::Release);
                futex(&(*shared).done, libc::FUTEX_WAKE, 1);
            }
            futex(&(*shared).asked, libc::FUTEX_WAIT, asked);
        }
        begin(shared, context, frame);
        (*shared).active = 1;
    }
}

/// futex(2), without errno.
///
/// # Safety
/// `operation` is `FUTEX_WAIT` or `FUTEX_WAKE`: others take further arguments.
unsafe fn futex(word: &AtomicU32, operation: c_int, value: u32) {
    // SAFETY: a valid word.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") libc::SYS_futex => _,
            in("rdi") word.as_ptr(),
            in("rsi") i64::from(operation),
            in("rdx") u64::from(value),
            in("r10") 0,
            out("rcx") _,
            out("r11") _,
        );
    }
}

/// Notes the outcome of the active job and makes the window as it was before.
///
/// # Safety
/// As for [`ringshift_conform_signal`], with a job active.
unsafe fn finish(shared: *mut Shared, context: *mut ucontext_t, frame: *const Frame) {
    // SAFETY: see `ringshift_conform_signal`.
    unsafe {
        let job = &raw mut (*shared).jobs[(*shared).index as usize];
        let gregs = &(*context).uc_mcontext.gregs;
        let after = &mut (*job).after;
        for (slot, &r) in after.gpr.iter_mut().zip(&GREGS) {
            *slot = gregs[r as usize] as u64;
        }
        after.rip = gregs[libc::REG_RIP as usize] as u64;
        after.rflags = gregs[libc::REG_EFL as usize] as u64;
        let packed = gregs[libc::REG_CSGSFS as usize] as u64;
        let f = &*frame;
        after.selectors = [f.es, packed as u16, (packed >> 48) as u16, f.ds, f.fs, f.gs];
        after.fs_base = f.fs_base;
        after.gs_base = f.gs_base;
        let area = (*context).uc_mcontext.fpregs.cast::<u8>();
        ptr::copy_nonoverlapping(area, after.legacy.as_mut_ptr(), 512);
        let present = ptr::read_unaligned(area.add(XSTATE_BV).cast::<u64>());
        for (slot, (number, size)) in COMPONENTS.iter().enumerate() {
            let offset = (*shared).extended[slot] as usize;
            let to = extended(after, slot);
            if offset != 0 && present >> number & 1 != 0 {
                ptr::copy_nonoverlapping(area.add(offset), to, *size);
            } else {
                ptr::write_bytes(to, 0, *size);
            }
        }
        (*job).vector = gregs[libc::REG_TRAPNO as usize] as u32;
        (*job).error = gregs[libc::REG_ERR as usize] as u32;
        (*job).address = gregs[libc::REG_CR2 as usize] as u64;
        take_memory(&mut (*shared).window, &(*shared).base, &mut (*job).memory_after);
        // Back to INT3.
        let at = (*job).code_offset as usize;
        let len = (*job).code.len().min(PAGES * PAGE - at);
        ptr::write_bytes((&raw mut (*shared).window).cast::<u8>().add(at), FILL, len);
    }
}

/// Notes the lines that are not as in the base, and makes them so again.
fn take_memory(window: &mut [u8; PAGES * PAGE], base: &[u8; MEMORY], out: &mut Lines) {
    out.count = 0;
    for (i, &page) in CONTENTS.iter().enumerate() {
        let base = &base[i * PAGE..(i + 1) * PAGE];
        let now = &mut window[page * PAGE..(page + 1) * PAGE];
        changed_lines(i * PAGE / LINE, base, now, |line| {
            out.lines[out.count as usize] = line;
            out.count += 1;
        });
        if base != now {
            now.copy_from_slice(base);
        }
    }
}

/// Offset in the window of a line of memory.
fn offset_of_line(number: u32) -> usize {
    (address_of(number as usize * LINE) - WINDOW) as usize
}

/// Puts the next job into the window, the signal frame and `frame`.
///
/// # Safety
/// As for [`ringshift_conform_signal`], with the batch not yet done.
unsafe fn begin(shared: *mut Shared, context: *mut ucontext_t, frame: *mut Frame) {
    // SAFETY: see `ringshift_conform_signal`.
    unsafe {
        let job = &raw mut (*shared).jobs[(*shared).index as usize];
        let window = (&raw mut (*shared).window).cast::<u8>();
        let memory = &(*job).memory_before;
        for line in memory.lines.iter().take(memory.count as usize) {
            let at = offset_of_line(line.number);
            ptr::copy_nonoverlapping(line.bytes.as_ptr(), window.add(at), LINE);
        }
        // The code pages end the instruction's room.
        let at = (*job).code_offset as usize;
        let len = (*job).code.len().min((CODE + CODE_SIZE).saturating_sub(at));
        ptr::copy_nonoverlapping((&raw const (*job).code).cast::<u8>(), window.add(at), len);

        let before = &(*job).before;
        let gregs = &mut (*context).uc_mcontext.gregs;
        for (value, &r) in before.gpr.iter().zip(&GREGS) {
            gregs[r as usize] = *value as i64;
        }
        gregs[libc::REG_RIP as usize] = before.rip as i64;
        gregs[libc::REG_EFL as usize] = before.rflags as i64;
        let [es, cs, ss, ds, fs, gs] = before.selectors;
        gregs[libc::REG_CSGSFS as usize] = (u64::from(cs) | u64::from(ss) << 48) as i64;
        (*context).uc_flags = UC_FLAGS;
        *frame = Frame {
            ds,
            es,
            fs,
            gs,
            fs_base: before.fs_base,
            gs_base: before.gs_base,
            flags: before.rflags & NT_AND_ID,
        };
        let area = (*context).uc_mcontext.fpregs.cast::<u8>();
        ptr::copy_nonoverlapping(before.legacy.as_ptr(), area, legacy::END);
        let mut present = 3;
        for (slot, (number, size)) in COMPONENTS.iter().enumerate() {
            let offset = (*shared).extended[slot] as usize;
            if offset != 0 {
                let from = extended(&mut (*job).before, slot);
                ptr::copy_nonoverlapping(from, area.add(offset), *size);
                present |= 1 << number;
            }
        }
        let word = area.add(XSTATE_BV).cast::<u64>();
        ptr::write_unaligned(word, ptr::read_unaligned(word) | present);
    }
}

/// Where a state holds the component in `slot` of [`COMPONENTS`].
fn extended(state: &mut State, slot: usize) -> *mut u8 {
    match slot {
        0 => state.ymm_high.as_mut_ptr().cast(),
        1 => state.opmask.as_mut_ptr().cast(),
        2 => state.zmm_high.as_mut_ptr().cast(),
        _ => state.zmm_rest.as_mut_ptr().cast(),
    }
}
