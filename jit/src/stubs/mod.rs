//! Code that every block uses: entry, exits, helper calls.

mod units;

use crate::addresses::Addresses;
use crate::arena::Arena;
use crate::helper;
use crate::regs::PINNED;
use crate::runtime::{Leave, Low, Runtime};
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm, x64::X64Relocation};
use std::mem::offset_of;
use x86::Cpu;

/// Offset of CS's base.
const CODE_BASE: i32 =
    (offset_of!(Cpu, seg) + size_of::<x86::Segment>() + offset_of!(x86::Segment, base)) as i32;

/// The stubs' addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stubs {
    /// `extern "sysv64" fn(code)`: loads the guest's registers and jumps to `code`.
    pub(crate) enter: u64,
    /// Called with a site number in R11: see [`helper::execute`]. Flags are saved already.
    pub(crate) helper: u64,
    /// Leaves through the link in R11, with flags in EFLAGS.
    pub(crate) leave_link: u64,
    /// Leaves through the link in R11, flags saved already.
    pub(crate) leave_link_saved: u64,
    /// Leaves at RIP in R11, flags saved already.
    pub(crate) leave_poll: u64,
    /// A near return to R11, that of site R10, did not end where its call was made.
    pub(crate) return_miss: u64,
    /// The same where RIP is not the linear address: see `emit/segment.rs`.
    pub(crate) return_miss_based: u64,
    /// Called to load the guest's vector registers and MXCSR; keeps everything else.
    pub(crate) load_vectors: u64,
    /// Called to load the guest's x87 state; keeps everything else.
    pub(crate) load_x87: u64,
}

/// What the host offers to the stubs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    avx: bool,
    /// AVX-512 with 64-bit opmask moves.
    pub(crate) avx512: bool,
    pub(crate) bmi2: bool,
}

impl Host {
    pub(crate) fn detect() -> Host {
        Host {
            avx: std::is_x86_feature_detected!("avx"),
            avx512: std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512bw"),
            bmi2: std::is_x86_feature_detected!("bmi2"),
        }
    }
}

/// Where a return may have missed.
#[derive(Clone, Copy)]
enum Miss {
    /// Anywhere; the stub for the other case is at this offset.
    Any { based: u64 },
    /// In a code segment with a base or a limit.
    Based,
}

struct Emitter<'a> {
    ops: VecAssembler<X64Relocation>,
    low: &'a Low,
    cpu: i32,
    exit_request: i32,
    host: Host,
}

/// Emits the stubs at the arena's beginning.
pub(crate) fn emit(
    arena: &mut Arena,
    low: &Low,
    addresses: &Addresses,
    host: Host,
) -> Option<Stubs> {
    let base = arena.next().hot;
    let (cpu, exit_request) = (addresses.cpu, addresses.exit_request);
    let mut e = Emitter { ops: VecAssembler::new(base as usize), low, cpu, exit_request, host };
    let load_vectors = base + e.load_vectors();
    let load_x87 = base + e.load_x87();
    let save = e.save_units();
    let leave = e.leave(save);
    let return_miss_based = e.return_miss(leave, Miss::Based);
    let stubs = Stubs {
        enter: base + e.enter(),
        helper: base + e.helper(save, leave),
        leave_link: base + e.exit(Leave::Link, true, leave),
        leave_link_saved: base + e.exit(Leave::Link, false, leave),
        leave_poll: base + e.exit(Leave::Poll, false, leave),
        return_miss: base + e.return_miss(leave, Miss::Any { based: return_miss_based }),
        return_miss_based: base + return_miss_based,
        load_vectors,
        load_x87,
    };
    let code = e.ops.finalize().ok()?;
    let at = arena.append(&code, &[])?;
    debug_assert_eq!(at.hot, base);
    arena.keep();
    Some(stubs)
}

impl Emitter<'_> {
    fn start(&mut self) -> u64 {
        dynasm!(self.ops ; .arch x64 ; .align 16);
        self.ops.offset().0 as u64
    }

    fn gpr(&self, number: u8) -> i32 {
        self.cpu + (offset_of!(Cpu, gpr) + 8 * usize::from(number)) as i32
    }

    fn runtime(&self, offset: usize) -> i32 {
        self.low.field(offset)
    }

    fn spill(&mut self) {
        for (guest, host) in PINNED {
            let slot = self.gpr(guest);
            dynasm!(self.ops ; .arch x64 ; mov [slot], Rq(host));
        }
    }

    fn reload(&mut self) {
        for (guest, host) in PINNED {
            let slot = self.gpr(guest);
            dynasm!(self.ops ; .arch x64 ; mov Rq(host), [slot]);
        }
    }

    fn enter(&mut self) -> u64 {
        let start = self.start();
        let host_rsp = self.runtime(offset_of!(Runtime, host_rsp));
        let code_rsp = self.runtime(offset_of!(Runtime, code_rsp));
        dynasm!(self.ops
            ; .arch x64
            ; push rbx
            ; push rbp
            ; push r12
            ; push r13
            ; push r14
            ; push r15
            ; mov r10, rdi
            ; mov [host_rsp], rsp
            ; mov rsp, [code_rsp]
        );
        self.reload();
        dynasm!(self.ops ; .arch x64 ; jmp r10);
        start
    }

    /// Back to the caller of [`Stubs::enter`]: the guest's state is in the context already, or is
    /// spilled here at the first of the two labels.
    fn leave(&mut self, save: dynasmrt::DynamicLabel) -> Exits {
        let exits =
            Exits { spill: self.ops.new_dynamic_label(), spilled: self.ops.new_dynamic_label() };
        let host_rsp = self.runtime(offset_of!(Runtime, host_rsp));
        let code_rsp = self.runtime(offset_of!(Runtime, code_rsp));
        self.start();
        dynasm!(self.ops ; .arch x64 ; =>exits.spill);
        self.spill();
        dynasm!(self.ops
            ; .arch x64
            ; call =>save
            ; =>exits.spilled
            ; mov [code_rsp], rsp
            ; mov rsp, [host_rsp]
            ; pop r15
            ; pop r14
            ; pop r13
            ; pop r12
            ; pop rbp
            ; pop rbx
            ; ret
        );
        exits
    }

    fn exit(&mut self, reason: Leave, save_flags: bool, exits: Exits) -> u64 {
        let start = self.start();
        let leave = self.runtime(offset_of!(Runtime, leave));
        let argument = self.runtime(offset_of!(Runtime, argument));
        let flags = self.runtime(offset_of!(Runtime, flags));
        if save_flags {
            dynasm!(self.ops
                ; .arch x64
                ; mov r10, rax
                ; lahf
                ; seto al
                ; mov [flags], ax
                ; mov rax, r10
            );
        }
        dynasm!(self.ops
            ; .arch x64
            ; mov DWORD [leave], reason as i32
            ; mov [argument], r11
            ; jmp =>exits.spill
        );
        start
    }

    fn helper(&mut self, save: dynasmrt::DynamicLabel, exits: Exits) -> u64 {
        let start = self.start();
        self.spill();
        let host_rsp = self.runtime(offset_of!(Runtime, host_rsp));
        let runtime = self.runtime(0);
        let argument = self.runtime(offset_of!(Runtime, argument));
        let base = self.low.stack_base();
        let function = helper::execute as *const () as i64;
        dynasm!(self.ops
            ; .arch x64
            ; call =>save
            ; mov rbx, rsp
            ; mov rsp, [host_rsp]
            ; sub rsp, 8
            ; mov edi, r11d
            ; mov esi, runtime
            ; mov rax, QWORD function
            ; call rax
            ; mov rsp, rbx
            ; test eax, eax
            ; jnz >away
        );
        self.reload();
        dynasm!(self.ops
            ; .arch x64
            ; ret
            ; away:
            // The return address is of no use any more.
            ; lea rsp, [rsp + 8]
            ; cmp eax, helper::JUMP as i32
            ; jb =>exits.spilled
            ; je >jump
            ; mov esp, base
            ; jump:
        );
        self.reload();
        dynasm!(self.ops ; .arch x64 ; jmp QWORD [argument]);
        start
    }

    /// Looks the target in R11 up; the stack pointer may have left the stack. One of the two, to
    /// which returns go that no call expects, asks which kind of segment is in force.
    fn return_miss(&mut self, exits: Exits, kind: Miss) -> u64 {
        let start = self.start();
        let based = matches!(kind, Miss::Based);
        let table = self.runtime(offset_of!(Runtime, indirect));
        let leave = self.runtime(offset_of!(Runtime, leave));
        let argument = self.runtime(offset_of!(Runtime, argument));
        let site = self.runtime(offset_of!(Runtime, return_site));
        let base = self.low.stack_base();
        dynasm!(self.ops
            ; .arch x64
            ; mov [site], r10d
            ; cmp rsp, base
            ; jbe >inside
            ; mov esp, base
            ; inside:
        );
        if let Miss::Any { based } = kind {
            let number = self.runtime(offset_of!(Runtime, code_tag)) + 4;
            dynasm!(self.ops
                ; .arch x64
                ; cmp DWORD [number], 0
                ; je >flat
            );
            self.jump_back(based);
            dynasm!(self.ops ; .arch x64 ; flat:);
        }
        if based {
            let code_base = self.cpu + CODE_BASE;
            let code_tag = self.runtime(offset_of!(Runtime, code_tag));
            dynasm!(self.ops
                ; .arch x64
                ; mov r10d, [code_base]
                ; add r10d, r11d
                ; or r11, [code_tag]
                ; movzx r10d, r10w
            );
        } else {
            dynasm!(self.ops ; .arch x64 ; movzx r10d, r11w);
        }
        let request = self.exit_request;
        dynasm!(self.ops
            ; .arch x64
            // Blocks that end in a return do not poll.
            ; cmp DWORD [request], 0
            ; jne >miss
            ; shl r10d, 4
            ; add r10, [table]
            ; cmp r11, [r10]
            ; jne >miss
            ; jmp QWORD [r10 + 8]
            ; miss:
        );
        if based {
            dynasm!(self.ops ; .arch x64 ; mov r11d, r11d);
        }
        dynasm!(self.ops
            ; .arch x64
            ; mov DWORD [leave], Leave::Return as i32
            ; mov [argument], r11
            ; jmp =>exits.spill
        );
        start
    }

    /// A jump to the stub at this offset.
    fn jump_back(&mut self, stub: u64) {
        let end = self.ops.offset().0 as i64 + 5;
        self.ops.push(0xE9);
        self.ops.push_i32((stub as i64 - end) as i32);
    }
}

#[derive(Clone, Copy)]
struct Exits {
    spill: dynasmrt::DynamicLabel,
    spilled: dynasmrt::DynamicLabel,
}
