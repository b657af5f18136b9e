//! Two-operand arithmetic and logic: ADD ADC SUB SBB CMP AND OR XOR TEST, ADCX ADOX.

use super::Answer;
use super::select::{by_wide_width, by_width, is_imm, is_mem, width};
use super::status;
use crate::access;
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::{Cpu, flags};

/// An operation on two operands that replaces all six status flags.
trait Binary {
    /// Whether the result goes to the first operand.
    const WRITES: bool = true;
    /// Result and status flags; `carry` is CF before, 0 or 1.
    fn apply<T: Width>(a: T, b: T, carry: u64) -> (T, u64);
}

macro_rules! binary {
    ($name:ident, writes: $writes:expr, |$a:ident, $b:ident, $c:ident| $body:expr) => {
        struct $name;
        impl Binary for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<T: Width>($a: T, $b: T, $c: u64) -> (T, u64) {
                $body
            }
        }
    };
}
binary!(Add, writes: true, |a, b, _carry| status::add(a, b, 0));
binary!(Adc, writes: true, |a, b, carry| status::add(a, b, carry));
binary!(Sub, writes: true, |a, b, _carry| status::subtract(a, b, 0));
binary!(Sbb, writes: true, |a, b, carry| status::subtract(a, b, carry));
binary!(Cmp, writes: false, |a, b, _carry| status::subtract(a, b, 0));
binary!(And, writes: true, |a, b, _carry| status::logic(T::from_u64(a.to_u64() & b.to_u64())));
binary!(Or, writes: true, |a, b, _carry| status::logic(T::from_u64(a.to_u64() | b.to_u64())));
binary!(Xor, writes: true, |a, b, _carry| status::logic(T::from_u64(a.to_u64() ^ b.to_u64())));
binary!(Test, writes: false, |a, b, _carry| status::logic(T::from_u64(a.to_u64() & b.to_u64())));

#[inline(always)]
fn to_reg<O: Binary, T: Width>(cpu: &mut Cpu, reg: u8, b: T) -> Answer {
    let a = access::read_reg::<T>(cpu, reg);
    let (result, status) = O::apply(a, b, cpu.rflags & flags::CF);
    if O::WRITES {
        access::write_reg(cpu, reg, result);
    }
    status::set(cpu, status);
    Ok(Flow::Next)
}

#[inline(always)]
fn to_mem<O: Binary, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, b: T) -> Answer {
    let carry = cpu.rflags & flags::CF;
    let mut status = 0;
    if O::WRITES {
        access::modify(cpu, mmu, insn, insn.prefixes.lock(), |a| {
            let (result, flags) = O::apply(a, b, carry);
            status = flags;
            result
        })?;
    } else {
        let a = access::load(cpu, mmu, insn)?;
        status = O::apply(a, b, carry).1;
    }
    status::set(cpu, status);
    Ok(Flow::Next)
}

fn reg_reg<O: Binary, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let b = access::read_reg::<T>(cpu, insn.op[1].reg);
    to_reg::<O, T>(cpu, insn.op[0].reg, b)
}

fn reg_imm<O: Binary, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    to_reg::<O, T>(cpu, insn.op[0].reg, T::from_u64(insn.imm))
}

fn reg_mem<O: Binary, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = access::load::<T>(cpu, mmu, insn)?;
    to_reg::<O, T>(cpu, insn.op[0].reg, b)
}

fn mem_reg<O: Binary, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = access::read_reg::<T>(cpu, insn.op[1].reg);
    to_mem::<O, T>(cpu, mmu, insn, b)
}

fn mem_imm<O: Binary, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    to_mem::<O, T>(cpu, mmu, insn, T::from_u64(insn.imm))
}

fn binary<O: Binary>(insn: &Insn) -> Handler {
    let width = width(insn, 0);
    match (is_mem(insn, 0), is_mem(insn, 1), is_imm(insn, 1)) {
        (true, _, true) => by_width!(width, mem_imm, O),
        (true, ..) => by_width!(width, mem_reg, O),
        (_, true, _) => by_width!(width, reg_mem, O),
        (_, _, true) => by_width!(width, reg_imm, O),
        (false, false, false) => by_width!(width, reg_reg, O),
    }
}

/// ADCX and ADOX: add with the carry in, and out to, one flag alone. `FLAG` is 0 for CF, 11 for
/// OF.
#[inline(always)]
fn add_with_flag<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, flag: u64) -> Answer {
    let b = access::read_operand::<T>(cpu, mmu, insn, 1)?;
    let a = access::read_reg::<T>(cpu, insn.op[0].reg);
    let (result, status) = status::add(a, b, u64::from(cpu.rflags & flag != 0));
    access::write_reg(cpu, insn.op[0].reg, result);
    status::set_masked(cpu, flag, status::flag(status & flags::CF != 0, flag));
    Ok(Flow::Next)
}

fn adcx<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    add_with_flag::<T>(cpu, mmu, insn, flags::CF)
}

fn adox<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    add_with_flag::<T>(cpu, mmu, insn, flags::OF)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Add, |i| binary::<Add>(i)),
    (Mnemonic::Adc, |i| binary::<Adc>(i)),
    (Mnemonic::Sub, |i| binary::<Sub>(i)),
    (Mnemonic::Sbb, |i| binary::<Sbb>(i)),
    (Mnemonic::Cmp, |i| binary::<Cmp>(i)),
    (Mnemonic::And, |i| binary::<And>(i)),
    (Mnemonic::Or, |i| binary::<Or>(i)),
    (Mnemonic::Xor, |i| binary::<Xor>(i)),
    (Mnemonic::Test, |i| binary::<Test>(i)),
    (Mnemonic::Adcx, |i| by_wide_width!(width(i, 0), adcx)),
    (Mnemonic::Adox, |i| by_wide_width!(width(i, 0), adox)),
];
