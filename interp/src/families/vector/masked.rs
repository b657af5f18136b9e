//! EVEX instructions with a masked memory operand, and gathers and scatters under an opmask:
//! elements that the mask leaves out do not fault (SDM vol. 2A, section 2.7.8).

use super::available;
use super::gather::{element_address, sizes};
use super::maskmov::{bytes_of, load_elements, probe_elements, store_elements, words_of};
use super::memory;
use crate::access::Intent;
use crate::flow::Flow;
use decoder::{Insn, Mnemonic, OpKind};
use iced_x86::Register;
use native::{MemoryUse, Scratch, Thunk, Unit};
use softmmu::{Access, Mmu};
use x86::cpuid::Feature;
use x86::{Cpu, Fault};

/// Whether the memory operand of an EVEX instruction is masked.
pub(super) fn applies(insn: &Insn) -> bool {
    insn.has_mem() && opmask_number(insn).is_some()
}

/// The number of the opmask register, 1 to 7.
fn opmask_number(insn: &Insn) -> Option<usize> {
    let k = insn.to_iced(0).op_mask();
    (k != Register::None).then(|| k.number() & 7)
}

pub(super) fn execute(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    execute_thunk(cpu, mmu, insn, super::cached(insn)?)
}

pub(super) fn execute_thunk(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    thunk: &Thunk,
) -> Result<Flow, Fault> {
    available::check(cpu, mmu, thunk)?;
    let Some(k) = opmask_number(insn) else { return Err(Fault::UD) };
    let (mask, size) = touched(insn, thunk, cpu.opmask[k]);
    let mut scratch = Scratch::default();
    if thunk.memory == MemoryUse::Read {
        // Where all of it can be read, the mask makes no difference.
        let whole = super::operand_address(cpu, insn, thunk, Intent::Read)
            .and_then(|at| memory::load(cpu, mmu, at, thunk.memory_size, &mut scratch));
        if whole.is_err() {
            scratch.mem.0 = load_elements(cpu, mmu, insn, size, mask)?;
        }
        super::run(cpu, thunk, &mut scratch)?;
        return Ok(Flow::Next);
    }
    if mask != 0 {
        super::operand_address(cpu, insn, thunk, Intent::Write)?;
    }
    probe_elements(cpu, mmu, insn, size, mask)?;
    super::run(cpu, thunk, &mut scratch)?;
    store_elements(cpu, mmu, insn, size, mask, &scratch.mem.0)?;
    Ok(Flow::Next)
}

/// The memory elements that `opmask` lets through, and their size in bytes.
fn touched(insn: &Insn, thunk: &Thunk, opmask: u64) -> (u64, usize) {
    use Mnemonic::*;
    let all = usize::from(thunk.memory_size).max(1);
    let size = insn.to_iced(0).memory_size().element_size().clamp(1, all);
    let count = all / size;
    let low = |n: usize| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    let mask = match insn.mnemonic() {
        // Packed in memory.
        Vcompressps | Vcompresspd | Vpcompressb | Vpcompressw | Vpcompressd | Vpcompressq
        | Vexpandps | Vexpandpd | Vpexpandb | Vpexpandw | Vpexpandd | Vpexpandq => {
            low((opmask & low(count)).count_ones() as usize)
        }
        // One memory element goes to several elements of the destination.
        _ if insn.to_iced(0).is_broadcast()
            || format!("{:?}", insn.mnemonic()).contains("roadcast") =>
        {
            if opmask != 0 {
                low(count)
            } else {
                0
            }
        }
        _ => opmask & low(count),
    };
    (mask, size)
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
            let at = element_address(cpu, insn, &index, index_size, i, size, Intent::Write)?;
            mmu.probe(at, size, Access::Write)?;
            memory::write(cpu, mmu, at, &bytes[element])?;
        } else {
            let at = element_address(cpu, insn, &index, index_size, i, size, Intent::Read)?;
            memory::read(cpu, mmu, at, &mut bytes[element])?;
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
