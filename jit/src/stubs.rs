//! Code that every block uses: entry, exits, helper calls, loading and saving vector state.

use crate::arena::Arena;
use crate::helper;
use crate::regs::PINNED;
use crate::runtime::{Leave, Low, Runtime};
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm, x64::X64Relocation};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use std::mem::offset_of;
use x86::Cpu;
use x86::fpu::X87;

/// Offset of CS's base.
const CODE_BASE: i32 =
    (offset_of!(Cpu, seg) + size_of::<x86::Segment>() + offset_of!(x86::Segment, base)) as i32;

/// Absolute addresses that translated code uses, all below 2 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) cpu: i32,
    pub(crate) exit_request: i32,
    /// The first-level TLB's tables by [`softmmu::Rights`].
    pub(crate) tlb: [i32; 3],
    pub(crate) budget: i32,
    pub(crate) flags: i32,
    pub(crate) vector_loaded: i32,
    pub(crate) x87_loaded: i32,
    pub(crate) x87_fop: i32,
    pub(crate) x87_fip: i32,
    pub(crate) x87_fdp: i32,
    pub(crate) interrupt_waits: i32,
    pub(crate) indirect: i32,
    pub(crate) code_tag: i32,
    pub(crate) stack_base: i32,
    pub(crate) stack_limit: i32,
    /// Words for the current instruction.
    pub(crate) temporary: i32,
    pub(crate) second_temporary: i32,
    pub(crate) pointers: i32,
}

impl Addresses {
    /// The context's slot of a general-purpose register.
    pub(crate) fn gpr(&self, number: u8) -> i32 {
        self.cpu + (offset_of!(Cpu, gpr) + 8 * usize::from(number)) as i32
    }
    /// The visible selector of a segment register.
    pub(crate) fn selector(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, selector) as i32
    }
    /// IA32_KERNEL_GS_BASE.
    pub(crate) fn kernel_gs_base(&self) -> i32 {
        self.cpu + offset_of!(Cpu, kernel_gs_base) as i32
    }
    /// The x87 control word.
    pub(crate) fn x87_control(&self) -> i32 {
        self.cpu + (offset_of!(Cpu, x87) + offset_of!(X87, fcw)) as i32
    }
    /// RFLAGS; its arithmetic flags are stale while translated code runs.
    pub(crate) fn rflags(&self) -> i32 {
        self.cpu + offset_of!(Cpu, rflags) as i32
    }
    /// The hidden base of a segment register.
    pub(crate) fn segment_base(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, base) as i32
    }
    /// The hidden limit of a segment register.
    pub(crate) fn segment_limit(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, limit) as i32
    }
    /// The hidden access rights of a segment register.
    pub(crate) fn segment_access(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, access) as i32
    }
    fn segment(&self, number: u8) -> i32 {
        let segment = offset_of!(Cpu, seg) + usize::from(number) * size_of::<x86::Segment>();
        self.cpu + segment as i32
    }
}

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

    fn vector(&self, n: u8) -> i32 {
        self.cpu + (offset_of!(Cpu, vector) + 64 * usize::from(n)) as i32
    }

    /// Loads or stores all vector registers, and the opmask registers where there are any.
    fn move_vectors(&mut self, load: bool) {
        if self.host.avx512 {
            for n in 0..32 {
                let codes =
                    (Code::EVEX_Vmovups_zmm_k1z_zmmm512, Code::EVEX_Vmovups_zmmm512_k1z_zmm);
                self.move_avx512(codes, Register::ZMM0 + u32::from(n), self.vector(n), load);
            }
            for n in 0..8 {
                let slot = self.cpu + (offset_of!(Cpu, opmask) + 8 * n as usize) as i32;
                let codes = (Code::VEX_Kmovq_kr_km64, Code::VEX_Kmovq_m64_kr);
                self.move_avx512(codes, Register::K0 + n, slot, load);
            }
            return;
        }
        for n in 0..16u8 {
            let slot = self.vector(n);
            match (self.host.avx, load) {
                (true, true) => dynasm!(self.ops ; .arch x64 ; vmovups Ry(n), [slot]),
                (true, false) => dynasm!(self.ops ; .arch x64 ; vmovups [slot], Ry(n)),
                (false, true) => dynasm!(self.ops ; .arch x64 ; movups Rx(n), [slot]),
                (false, false) => dynasm!(self.ops ; .arch x64 ; movups [slot], Rx(n)),
            }
        }
    }

    /// Loads or stores a register of AVX-512, for which dynasm has no encodings. `codes`: of the
    /// load and of the store.
    fn move_avx512(&mut self, codes: (Code, Code), register: Register, slot: i32, load: bool) {
        let memory = MemoryOperand::with_displ(slot as u64, 8);
        let insn = if load {
            Instruction::with2(codes.0, register, memory)
        } else {
            Instruction::with2(codes.1, memory, register)
        };
        let mut encoder = Encoder::new(64);
        if insn.is_ok_and(|insn| encoder.encode(&insn, 0).is_ok()) {
            self.ops.extend(&encoder.take_buffer());
        }
    }

    fn load_vectors(&mut self) -> u64 {
        let start = self.start();
        let mxcsr = self.cpu + offset_of!(Cpu, mxcsr) as i32;
        let host_mxcsr = self.runtime(offset_of!(Runtime, host_mxcsr));
        let loaded = self.runtime(offset_of!(Runtime, vector_loaded));
        dynasm!(self.ops
            ; .arch x64
            ; stmxcsr [host_mxcsr]
            ; ldmxcsr [mxcsr]
            ; mov DWORD [loaded], 1
        );
        self.move_vectors(true);
        dynasm!(self.ops ; .arch x64 ; ret);
        start
    }

    fn load_x87(&mut self) -> u64 {
        let start = self.start();
        let area = self.cpu + offset_of!(Cpu, x87) as i32;
        let header = area + offset_of!(X87, xstate_bv) as i32;
        let loaded = self.runtime(offset_of!(Runtime, x87_loaded));
        let (fop, fip, fdp) = self.x87_pointers();
        dynasm!(self.ops
            ; .arch x64
            ; movzx r10d, WORD [fop.0]
            ; mov [fop.1], r10d
            ; mov r10, [fip.0]
            ; mov [fip.1], r10
            ; mov r10, [fdp.0]
            ; mov [fdp.1], r10
            ; mov r10, rax
            ; mov r11, rdx
            ; mov eax, 1
            ; mov edx, 0
            ; mov DWORD [loaded], eax
            // XSAVE may have found the initial state and said so, and software changed it since.
            ; mov QWORD [header], 1
            ; xrstor64 [area]
            ; mov rax, r10
            ; mov rdx, r11
            ; ret
        );
        start
    }

    /// Where FOP, FIP and FDP are: in the context, and while x87 state is loaded.
    fn x87_pointers(&self) -> ((i32, i32), (i32, i32), (i32, i32)) {
        let context = |offset| self.cpu + (offset_of!(Cpu, x87) + offset) as i32;
        let fop = (context(offset_of!(X87, fop)), self.runtime(offset_of!(Runtime, x87_fop)));
        let fip = (context(offset_of!(X87, fip)), self.runtime(offset_of!(Runtime, x87_fip)));
        let fdp = (context(offset_of!(X87, fdp)), self.runtime(offset_of!(Runtime, x87_fdp)));
        (fop, fip, fdp)
    }

    /// Stores loaded vector and x87 state to the context. Called when registers are spilled:
    /// destroys RAX, RDX and flags.
    fn save_units(&mut self) -> dynasmrt::DynamicLabel {
        let label = self.ops.new_dynamic_label();
        self.start();
        let vector_loaded = self.runtime(offset_of!(Runtime, vector_loaded));
        let x87_loaded = self.runtime(offset_of!(Runtime, x87_loaded));
        let mxcsr = self.cpu + offset_of!(Cpu, mxcsr) as i32;
        let host_mxcsr = self.runtime(offset_of!(Runtime, host_mxcsr));
        dynasm!(self.ops
            ; .arch x64
            ; =>label
            ; cmp DWORD [vector_loaded], 0
            ; jz >x87
            ; stmxcsr [mxcsr]
            ; ldmxcsr [host_mxcsr]
            ; mov DWORD [vector_loaded], 0
        );
        self.move_vectors(false);
        if self.host.avx {
            dynasm!(self.ops ; .arch x64 ; vzeroupper);
        }
        let area = self.cpu + offset_of!(Cpu, x87) as i32;
        let (fop, fip, fdp) = self.x87_pointers();
        dynasm!(self.ops
            ; .arch x64
            ; x87:
            ; cmp DWORD [x87_loaded], 0
            ; jz >done
            ; mov DWORD [x87_loaded], 0
            ; mov eax, 1
            ; xor edx, edx
            ; xsave64 [area]
            // Addresses of host code are not for the guest.
            ; mov eax, [fop.1]
            ; mov [fop.0], ax
            ; mov rax, [fip.1]
            ; mov [fip.0], rax
            ; mov rax, [fdp.1]
            ; mov [fdp.0], rax
            ; fninit
            ; done:
            ; ret
        );
        label
    }
}

#[derive(Clone, Copy)]
struct Exits {
    spill: dynasmrt::DynamicLabel,
    spilled: dynasmrt::DynamicLabel,
}
