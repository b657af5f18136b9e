//! AVX2 gathers: elements from addresses that a vector register indexes (SDM vol. 2C,
//! VGATHERDPS).

use super::available::check_unit;
use super::maskmov::{bytes_of, sign_mask, words_of};
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use decoder::{Code, Insn, Mnemonic, OpKind};
use native::Unit;
use softmmu::Mmu;
use x86::cpuid::Feature;
use x86::{Cpu, Fault};

/// Sizes of index and data elements in bytes.
pub(super) fn sizes(mnemonic: Mnemonic) -> Option<(usize, usize)> {
    use Mnemonic::*;
    Some(match mnemonic {
        Vgatherdps | Vpgatherdd | Vscatterdps | Vpscatterdd => (4, 4),
        Vgatherdpd | Vpgatherdq | Vscatterdpd | Vpscatterdq => (4, 8),
        Vgatherqps | Vpgatherqd | Vscatterqps | Vpscatterqd => (8, 4),
        Vgatherqpd | Vpgatherqq | Vscatterqpd | Vpscatterqq => (8, 8),
        _ => return None,
    })
}

pub(super) fn select(insn: &Insn) -> Handler {
    // The form with an opmask register is EVEX's and has two operands.
    if insn.op_count == 3 { gather } else { super::masked::gather_scatter }
}

/// The linear address of element `i` of an operand with a vector index.
pub(super) fn element_address(
    cpu: &Cpu,
    insn: &Insn,
    index: &[u8; 64],
    index_size: usize,
    i: usize,
    size: usize,
    intent: Intent,
) -> Result<u64, Fault> {
    let m = &insn.mem;
    let at = (i * index_size) % 64;
    let mut word = [0; 8];
    word[..index_size].copy_from_slice(&index[at..at + index_size]);
    let index = match index_size {
        4 => u64::from_le_bytes(word) as i32 as u64,
        _ => u64::from_le_bytes(word),
    };
    let base = if m.base < 16 { cpu.gpr[usize::from(m.base)] } else { 0 };
    let offset = base.wrapping_add(index << m.shift).wrapping_add(m.disp);
    access::linear(cpu, m.seg, access::truncate(offset, m.addr_size), size as u32, intent)
}

/// The AVX2 form, with a vector register as the mask.
///
/// Elements are loaded in order. One that faults leaves those before it loaded and their mask
/// elements cleared, so that the instruction can be restarted.
fn gather(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Avx2, Unit::Vex)?;
    let Some((index_size, size)) = sizes(insn.mnemonic()) else { return Err(Fault::UD) };
    let [destination, mask_register] = [insn.op[0], insn.op[2]].map(|op| usize::from(op.reg & 31));
    let index_register = usize::from(insn.mem.index & 31);
    let distinct = destination != mask_register
        && destination != index_register
        && mask_register != index_register;
    if !distinct {
        return Err(Fault::UD);
    }
    let count = vector_length(insn) / index_size.max(size);
    let index = bytes_of(&cpu.vector[index_register].0);
    let mut mask = bytes_of(&cpu.vector[mask_register].0);
    let mut result = bytes_of(&cpu.vector[destination].0);
    let wanted = sign_mask(&mask, count * size, size);
    for (i, element) in mask.chunks_exact_mut(size).enumerate() {
        element.fill(if wanted >> i & 1 != 0 { 0xFF } else { 0 });
    }
    let mut fault = None;
    for i in 0..count {
        let element = i * size..(i + 1) * size;
        if wanted >> i & 1 != 0 {
            let loaded = element_address(cpu, insn, &index, index_size, i, size, Intent::Read)
                .and_then(|address| {
                    // Alignment is never checked.
                    mmu.read_bytes(address, &mut result[element.clone()])?;
                    access::data_breakpoint(cpu, address, size as u32, Intent::Read);
                    Ok(())
                });
            if let Err(e) = loaded {
                fault = Some(e);
                break;
            }
        }
        mask[element].fill(0);
    }
    match fault {
        Some(fault) => {
            cpu.vector[destination].0 = words_of(&result);
            cpu.vector[mask_register].0 = words_of(&mask);
            Err(fault)
        }
        None => {
            result[count * size..].fill(0);
            cpu.vector[destination].0 = words_of(&result);
            cpu.vector[mask_register].0 = [0; 8];
            Ok(Flow::Next)
        }
    }
}

/// Length of the operation in bytes: that of the longer one of index and data.
fn vector_length(insn: &Insn) -> usize {
    let wide_index = matches!(
        insn.code,
        Code::VEX_Vgatherqps_xmm_vm64y_xmm | Code::VEX_Vpgatherqd_xmm_vm64y_xmm
    );
    if wide_index || insn.op[0].kind == OpKind::Ymm { 32 } else { 16 }
}
