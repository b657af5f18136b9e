//! EVEX instructions with a masked memory operand, and gathers and scatters under an opmask:
//! elements that the mask leaves out do not fault (SDM vol. 2A, section 2.7.8).

use super::available;
use super::gather::{self, sizes};
use super::maskmov::{
    bytes_of, element_address, load_elements, probe_elements, store_elements, words_of,
};
use super::memory;
use crate::access::{self, Intent};
use crate::flow::Flow;
use decoder::{Insn, OpKind};
use iced_x86::Register;
use native::{MaskKind, Masking, MemoryUse, Scratch, Thunk, Unit};
use softmmu::{Access, Mmu};
use x86::cpuid::Feature;
use x86::{Cpu, Fault, Mode, SegReg};

/// The number of the opmask register, 1 to 7.
fn opmask_number(insn: &Insn) -> Option<usize> {
    let k = insn.to_iced(0).op_mask();
    (k != Register::None).then(|| k.number() & 7)
}

pub(super) fn execute(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    execute_thunk(cpu, mmu, insn, super::cached(insn)?)
}

/// Executes an instruction whose memory operand is under an opmask.
pub(super) fn execute_thunk(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    thunk: &Thunk,
) -> Result<Flow, Fault> {
    available::check(cpu, mmu, thunk)?;
    let Some(masking) = thunk.masking else { return Err(Fault::UD) };
    let element = usize::from(masking.element);
    let mask = touched(thunk, &masking, cpu.opmask[usize::from(masking.opmask)]);
    let intent = if thunk.memory == MemoryUse::Read { Intent::Read } else { Intent::Write };
    let mut scratch = Scratch::default();
    let whole = masking.kind == MaskKind::Whole;
    if whole || mask != 0 && thunk.alignment > 1 {
        let address = super::operand_address(cpu, insn, thunk, intent);
        if whole || is_misaligned(cpu, insn, thunk) {
            address?;
        }
    }
    if mask != 0 || whole {
        // #AC goes by the elements' alignment where they are accessed one by one.
        let (at, size) = match (whole, mask.trailing_zeros() as usize) {
            (true, _) => (0, usize::from(thunk.memory_size)),
            (false, first) => (first * element, element),
        };
        let address = element_address(cpu, insn, at, size, intent)?;
        memory::check_alignment(cpu, address, size as u32)?;
    }
    if thunk.memory == MemoryUse::Read {
        // Where all of it can be read, the mask makes no difference.
        let all = super::operand_address(cpu, insn, thunk, Intent::Read).and_then(|at| {
            let size = usize::from(thunk.memory_size & 127);
            mmu.read_bytes(at, &mut scratch.mem.0[..size])?;
            access::data_breakpoint(cpu, at, size as u32, Intent::Read);
            Ok(())
        });
        if all.is_err() {
            if whole {
                all?;
            }
            scratch.mem.0 = load_elements(cpu, mmu, insn, element, mask)?;
        }
        super::run(cpu, thunk, &mut scratch)?;
        return Ok(Flow::Next);
    }
    if whole {
        let address = super::operand_address(cpu, insn, thunk, Intent::Write)?;
        mmu.probe(address, usize::from(thunk.memory_size), Access::Write)?;
    }
    probe_elements(cpu, mmu, insn, element, mask)?;
    super::run(cpu, thunk, &mut scratch)?;
    store_elements(cpu, mmu, insn, element, mask, &scratch.mem.0)?;
    Ok(Flow::Next)
}

/// Whether the operand is not aligned as the instruction demands (VMOVAPS and its like), which
/// faults whatever the mask.
fn is_misaligned(cpu: &Cpu, insn: &Insn, thunk: &Thunk) -> bool {
    let segment = insn.mem.seg;
    // Only FS and GS have a base in 64-bit mode. An address that is not canonical may be misaligned.
    let based = cpu.mode != Mode::Long || segment >= SegReg::FS as u8;
    let base = if based { cpu.seg[usize::from(segment) % 6].base } else { 0 };
    let address = base.wrapping_add(access::effective_address(cpu, insn));
    address & u64::from(thunk.alignment - 1) != 0
}

/// The memory elements that an opmask lets through, a bit for each.
fn touched(thunk: &Thunk, masking: &Masking, opmask: u64) -> u64 {
    let low = |n: u32| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    let all = low(u32::from(masking.count));
    let bits = opmask & all;
    match masking.kind {
        MaskKind::Elements | MaskKind::Whole => bits,
        MaskKind::Packed => low(bits.count_ones()),
        MaskKind::Broadcast => {
            let elements = u32::from(thunk.memory_size / masking.element.max(1)).max(1);
            (0..64).step_by(elements as usize).fold(0, |sum, at| sum | bits >> at) & low(elements)
        }
    }
}

/// EVEX gathers and scatters: the opmask bit of an element is cleared when it is done.
pub(super) fn gather_scatter(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    available::check_unit(cpu, Feature::Avx512F, Unit::Evex)?;
    let (Some((index_size, size)), Some(k)) = (sizes(insn.mnemonic()), opmask_number(insn)) else {
        return Err(Fault::UD);
    };
    let scatter = insn.op[0].kind == OpKind::Mem;
    let data_operand = insn.op[usize::from(scatter)];
    let length = |kind: OpKind| match kind {
        OpKind::Zmm => 64,
        OpKind::Ymm => 32,
        _ => 16,
    };
    let index_kind = match insn.to_iced(0).memory_index() {
        r if r.is_zmm() => OpKind::Zmm,
        r if r.is_ymm() => OpKind::Ymm,
        _ => OpKind::Xmm,
    };
    if length(index_kind).max(length(data_operand.kind)) < 64 && !cpu.policy.has(Feature::Avx512Vl)
    {
        return Err(Fault::UD);
    }
    let count = (length(index_kind) / index_size).min(length(data_operand.kind) / size);
    let (data, index) = (usize::from(data_operand.reg & 31), usize::from(insn.mem.index & 31));
    if !scatter && data == index {
        return Err(Fault::UD);
    }
    let index = bytes_of(&cpu.vector[index].0);
    for i in 0..count {
        if cpu.opmask[k] >> i & 1 == 0 {
            continue;
        }
        let element = i * size..(i + 1) * size;
        let mut bytes = bytes_of(&cpu.vector[data].0);
        if scatter {
            let at =
                gather::element_address(cpu, insn, &index, index_size, i, size, Intent::Write)?;
            // Alignment is not checked, by #AC either.
            mmu.probe(at, size, Access::Write)?;
            mmu.write_bytes(at, &bytes[element])?;
            access::data_breakpoint(cpu, at, size as u32, Intent::Write);
        } else {
            let at = gather::element_address(cpu, insn, &index, index_size, i, size, Intent::Read)?;
            mmu.read_bytes(at, &mut bytes[element])?;
            access::data_breakpoint(cpu, at, size as u32, Intent::Read);
            cpu.vector[data].0 = words_of(&bytes);
        }
        cpu.opmask[k] &= !(1 << i);
    }
    cpu.opmask[k] = 0;
    if !scatter {
        let mut bytes = bytes_of(&cpu.vector[data].0);
        bytes[count * size..].fill(0);
        cpu.vector[data].0 = words_of(&bytes);
    }
    Ok(Flow::Next)
}
