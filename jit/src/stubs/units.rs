//! Vector and x87 registers: loaded where a block first needs them, stored where translated code is
//! left.

use super::Emitter;
use crate::runtime::Runtime;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use std::mem::offset_of;
use x86::Cpu;
use x86::fpu::X87;

impl Emitter<'_> {
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

    pub(super) fn load_vectors(&mut self) -> u64 {
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

    pub(super) fn load_x87(&mut self) -> u64 {
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
    pub(super) fn save_units(&mut self) -> dynasmrt::DynamicLabel {
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
