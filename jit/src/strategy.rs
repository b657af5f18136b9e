//! How each instruction is emitted: the one table of strategies.

use crate::emit::Unit;
use crate::key::Key;
use decoder::{Code, Mnemonic};
use iced_x86::{EncodingKind, Instruction};
use interp::engine::block::Op;
use std::sync::OnceLock;

/// Emits an instruction by hand. False where it cannot, having emitted nothing: then the helper
/// does it.
pub(crate) type Custom = fn(&mut Unit<'_>, &Op, &Instruction) -> bool;

/// How an instruction becomes host code.
#[derive(Clone, Copy)]
pub(crate) enum Emit {
    /// Translated code calls the interpreter's definition.
    Helper,
    /// The guest's own instruction, with registers and memory operand replaced.
    Passthrough,
    /// Written by hand.
    Custom(Custom),
}

/// Instructions with emission of their own.
pub(crate) const CUSTOM: &[(Mnemonic, Custom)] = {
    use Mnemonic::*;
    &[
        (Jmp, |u, o, i| u.jmp(o, i)),
        (Call, |u, o, i| u.call_near(o, i)),
        (Ret, |u, o, i| u.ret(o, i)),
        (Jo, |u, o, i| u.jcc(o, i)),
        (Jno, |u, o, i| u.jcc(o, i)),
        (Jb, |u, o, i| u.jcc(o, i)),
        (Jae, |u, o, i| u.jcc(o, i)),
        (Je, |u, o, i| u.jcc(o, i)),
        (Jne, |u, o, i| u.jcc(o, i)),
        (Jbe, |u, o, i| u.jcc(o, i)),
        (Ja, |u, o, i| u.jcc(o, i)),
        (Js, |u, o, i| u.jcc(o, i)),
        (Jns, |u, o, i| u.jcc(o, i)),
        (Jp, |u, o, i| u.jcc(o, i)),
        (Jnp, |u, o, i| u.jcc(o, i)),
        (Jl, |u, o, i| u.jcc(o, i)),
        (Jge, |u, o, i| u.jcc(o, i)),
        (Jle, |u, o, i| u.jcc(o, i)),
        (Jg, |u, o, i| u.jcc(o, i)),
        (Loop, |u, o, i| u.count_down(o, i)),
        (Loope, |u, o, i| u.count_down(o, i)),
        (Loopne, |u, o, i| u.count_down(o, i)),
        (Jcxz, |u, o, i| u.jump_if_counter_zero(o, i)),
        (Jecxz, |u, o, i| u.jump_if_counter_zero(o, i)),
        (Jrcxz, |u, o, i| u.jump_if_counter_zero(o, i)),
        (Push, |u, o, i| u.push(o, i)),
        (Pop, |u, o, i| u.pop(o, i)),
        (Pusha, |u, o, i| u.pusha(o, i)),
        (Pushad, |u, o, i| u.pusha(o, i)),
        (Popa, |u, o, i| u.popa(o, i)),
        (Popad, |u, o, i| u.popa(o, i)),
        (Les, |u, o, i| u.load_far_pointer(o, i, 0)),
        (Lds, |u, o, i| u.load_far_pointer(o, i, 3)),
        (Lfs, |u, o, i| u.load_far_pointer(o, i, 4)),
        (Lgs, |u, o, i| u.load_far_pointer(o, i, 5)),
        (Movsb, |u, o, i| u.movs(o, i, 1)),
        (Movsw, |u, o, i| u.movs(o, i, 2)),
        (Movsd, |u, o, i| u.movs(o, i, 4)),
        (Movsq, |u, o, i| u.movs(o, i, 8)),
        (Stosb, |u, o, i| u.stos(o, i, 1)),
        (Stosw, |u, o, i| u.stos(o, i, 2)),
        (Stosd, |u, o, i| u.stos(o, i, 4)),
        (Stosq, |u, o, i| u.stos(o, i, 8)),
        (Lodsb, |u, o, i| u.lods(o, i, 1)),
        (Lodsw, |u, o, i| u.lods(o, i, 2)),
        (Lodsd, |u, o, i| u.lods(o, i, 4)),
        (Lodsq, |u, o, i| u.lods(o, i, 8)),
        (Cld, |u, _, _| u.set_direction(false)),
        (Std, |u, _, _| u.set_direction(true)),
        (Swapgs, |u, o, i| u.swapgs(o, i)),
        (Leave, |u, o, i| u.leave_frame(o, i)),
        (Lea, |u, o, i| u.lea(o, i)),
        (Div, |u, o, i| u.div(o, i)),
        (Idiv, |u, o, i| u.idiv(o, i)),
        (Mov, |u, o, i| u.mov(o, i)),
        (Fldcw, |u, o, i| u.fldcw(o, i)),
        (Fnstcw, |u, o, i| u.fnstcw(o, i)),
        (Fnstsw, |u, o, i| u.fnstsw(o, i)),
        (Cli, |u, o, i| u.cli(o, i)),
        (Sti, |u, o, i| u.sti(o, i)),
        (Stac, |u, o, i| u.stac(o, i)),
        (Clac, |u, o, i| u.clac(o, i)),
        (Pushf, |u, o, i| u.pushf(o, i)),
        (Pushfd, |u, o, i| u.pushf(o, i)),
        (Pushfq, |u, o, i| u.pushf(o, i)),
        // The decoder's names for all hints: ENDBR, PREFETCH and what is kept for more.
        (Nop, |u, o, i| u.nothing(o, i)),
        (Reservednop, |u, o, i| u.nothing(o, i)),
        // Outside 64-bit mode it leaves YMM8 to YMM15 alone.
        (Vzeroupper, |u, o, i| o.insn.bits == 64 && u.vzeroupper(o, i)),
    ]
};

/// Instructions that run as copies.
pub(crate) const PASSTHROUGH: &[Mnemonic] = {
    use Mnemonic::*;
    &[
        Movzx, Movsx, Movsxd, Xchg, Bswap, Movbe, // data transfer
        Cbw, Cwde, Cdqe, Cwd, Cdq, Cqo, // conversion
        Add, Adc, Sub, Sbb, Cmp, Inc, Dec, Neg, Mul, Imul, Xadd, Cmpxchg, Cmpxchg8b, Cmpxchg16b,
        Adcx, Adox, Mulx, // arithmetic
        And, Or, Xor, Not, Test, // logic
        Shl, Sal, Shr, Sar, Rol, Ror, Rcl, Rcr, Shld, Shrd, Rorx, Sarx, Shlx, Shrx, // shifts
        Bt, Bts, Btr, Btc, Bsf, Bsr, Tzcnt, Lzcnt, Popcnt, Andn, Bextr, Blsi, Blsmsk, Blsr, Bzhi,
        Pdep, Pext, Crc32, // bits
        Seto, Setno, Setb, Setae, Sete, Setne, Setbe, Seta, Sets, Setns, Setp, Setnp, Setl, Setge,
        Setle, Setg, // conditions
        Cmovo, Cmovno, Cmovb, Cmovae, Cmove, Cmovne, Cmovbe, Cmova, Cmovs, Cmovns, Cmovp, Cmovnp,
        Cmovl, Cmovge, Cmovle, Cmovg, // conditional moves
        Lahf, Sahf, Clc, Stc, Cmc, // flags
        // PAUSE is a helper: the host's scheduler hears of guests that spin.
        Lfence, Mfence, Sfence, // ordering
    ]
};

/// Whether the host executes a copy of this encoding: XOP's BEXTR (TBM) shares its mnemonic with
/// the one of BMI, and would be an undefined opcode of the host's process. Real mode and V86 mode
/// have no VEX encodings.
fn runs_as_copy(op: &Op, key: Key) -> bool {
    if !key.is_protected() && op.insn.code.encoding() != EncodingKind::Legacy {
        return false;
    }
    !matches!(op.insn.code, Code::XOP_Bextr_r32_rm32_imm32 | Code::XOP_Bextr_r64_rm64_imm32)
}

/// Whether the host has the extension that a copy of the instruction needs: guests are offered
/// these whether or not it does.
fn host_executes(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    match mnemonic {
        Andn | Bextr | Blsi | Blsmsk | Blsr | Tzcnt => is_x86_feature_detected!("bmi1"),
        Bzhi | Mulx | Pdep | Pext | Rorx | Sarx | Shlx | Shrx => is_x86_feature_detected!("bmi2"),
        Adcx | Adox => is_x86_feature_detected!("adx"),
        Lzcnt => is_x86_feature_detected!("lzcnt"),
        Popcnt => is_x86_feature_detected!("popcnt"),
        Movbe => is_x86_feature_detected!("movbe"),
        Crc32 => is_x86_feature_detected!("sse4.2"),
        Cmpxchg16b => is_x86_feature_detected!("cmpxchg16b"),
        _ => true,
    }
}

fn table() -> &'static [Emit] {
    static TABLE: OnceLock<Vec<Emit>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = vec![Emit::Helper; 2048];
        for &(mnemonic, emit) in CUSTOM {
            table[mnemonic as usize] = Emit::Custom(emit);
        }
        for &mnemonic in PASSTHROUGH {
            if host_executes(mnemonic) {
                table[mnemonic as usize] = Emit::Passthrough;
            }
        }
        table
    })
}

/// How `op` is emitted.
pub(crate) fn strategy(op: &Op, key: Key) -> Emit {
    if op.insn.handle != 0 {
        // A vector or x87 instruction that the host executes.
        return Emit::Passthrough;
    }
    match table()[op.insn.mnemonic() as usize & 2047] {
        Emit::Passthrough if !runs_as_copy(op, key) => Emit::Helper,
        emit => emit,
    }
}
