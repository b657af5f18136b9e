//! Names for the addresses in host code.

use crate::addresses::Addresses;
use crate::indirect;
use crate::runtime::{Low, Runtime};
use crate::stubs::Stubs;
use hashbrown::HashMap;
use iced_x86::{Instruction, Mnemonic, OpKind, Register, SymbolResolver, SymbolResult};
use softmmu::{TLB_ENTRIES, TlbEntry};
use std::mem::offset_of;
use x86::{Cpu, Segment};

const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
/// The TLB's tables by [`softmmu::Rights`].
const TLB: [&str; 3] = ["tlb.user", "tlb.smap", "tlb.kernel"];

/// Memory of one kind.
#[derive(Clone, Copy, Debug)]
enum Region {
    Cpu,
    Runtime,
    Tlb(&'static str),
    BranchCache,
    Counters,
}

/// The names of everything that translated code of an engine refers to by absolute address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    regions: Vec<(u64, u64, Region)>,
    /// Code: stubs, parts of the block, other blocks.
    code: HashMap<u64, String>,
    /// Addresses that are loaded as immediates.
    constants: HashMap<u64, &'static str>,
    exit_request: u64,
}

impl Names {
    pub(crate) fn new(addresses: &Addresses, stubs: &Stubs, low: &Low, tables: &[i32]) -> Names {
        let at = |address: i32| u64::from(address as u32);
        let mut regions = vec![
            (at(addresses.cpu), size_of::<Cpu>() as u64, Region::Cpu),
            (at(low.field(0)), size_of::<Runtime>() as u64, Region::Runtime),
        ];
        let tlb_size = (TLB_ENTRIES * size_of::<TlbEntry>()) as u64;
        for (table, name) in addresses.tlb.iter().zip(TLB) {
            regions.push((at(*table), tlb_size, Region::Tlb(name)));
        }
        for table in tables {
            regions.push((at(*table), indirect::TABLE_SIZE as u64, Region::BranchCache));
        }
        let code = [
            (stubs.helper, "helper"),
            (stubs.leave_link, "leave.link"),
            (stubs.leave_link_saved, "leave.link"),
            (stubs.leave_poll, "leave.poll"),
            (stubs.return_miss, "return.miss"),
            (stubs.return_miss_based, "return.miss"),
            (stubs.load_vectors, "load.vectors"),
            (stubs.load_x87, "load.x87"),
        ];
        let code = code.into_iter().map(|(address, name)| (address, name.to_owned())).collect();
        let mut constants = HashMap::new();
        constants.insert(at(addresses.stack_base), "returns.base");
        constants.insert(at(addresses.stack_limit), "returns.limit");
        for table in tables {
            constants.insert(at(*table), "branches");
        }
        Names { regions, code, constants, exit_request: at(addresses.exit_request) }
    }

    /// Names the counters of blocks.
    pub(crate) fn set_counters(&mut self, (address, size): (u64, u64)) {
        self.regions.push((address, size, Region::Counters));
    }

    /// Names a place in code.
    pub(crate) fn set_code(&mut self, address: u64, name: String) {
        self.code.insert(address, name);
    }

    pub(crate) fn code(&self, address: u64) -> Option<&str> {
        self.code.get(&address).map(String::as_str)
    }

    /// The name of an absolute memory address; `indexed` where a register is added to it.
    fn memory(&self, address: u64, indexed: bool) -> Option<String> {
        if address == self.exit_request {
            return Some("exit.request".into());
        }
        let &(start, _, region) =
            self.regions.iter().find(|region| address.wrapping_sub(region.0) < region.1)?;
        let offset = (address - start) as usize;
        Some(match region {
            Region::Cpu => cpu_field(offset),
            Region::Runtime => runtime_field(offset),
            Region::Tlb(name) => tlb_field(name, offset, indexed),
            Region::Counters => "counter".into(),
            Region::BranchCache => {
                if offset & 8 == 0 {
                    "branches.rip".into()
                } else {
                    "branches.code".into()
                }
            }
        })
    }
}

fn cpu_field(offset: usize) -> String {
    let gpr = offset.wrapping_sub(offset_of!(Cpu, gpr));
    let segments = offset.wrapping_sub(offset_of!(Cpu, seg));
    if gpr < 8 * GPR.len() && gpr.is_multiple_of(8) {
        return format!("cpu.{}", GPR[gpr / 8]);
    }
    if let Some(segment) = SEGMENTS.get(segments / size_of::<Segment>()) {
        let field = segments % size_of::<Segment>();
        let parts = [
            (offset_of!(Segment, base), "base"),
            (offset_of!(Segment, limit), "limit"),
            (offset_of!(Segment, access), "access"),
            (offset_of!(Segment, selector), "selector"),
        ];
        if let Some((_, name)) = parts.iter().find(|part| part.0 == field) {
            return format!("cpu.{segment}.{name}");
        }
    }
    let fields = [
        (offset_of!(Cpu, rip), "rip"),
        (offset_of!(Cpu, rflags), "rflags"),
        (offset_of!(Cpu, instructions), "instructions"),
        (offset_of!(Cpu, shadow), "shadow"),
        (offset_of!(Cpu, mxcsr), "mxcsr"),
    ];
    match fields.iter().find(|field| field.0 == offset) {
        Some((_, name)) => format!("cpu.{name}"),
        None => format!("cpu+{offset:#x}"),
    }
}

fn runtime_field(offset: usize) -> String {
    let fields = [
        (offset_of!(Runtime, budget), "budget"),
        (offset_of!(Runtime, flags), "flags"),
        (offset_of!(Runtime, vector_loaded), "vectors.loaded"),
        (offset_of!(Runtime, x87_loaded), "x87.loaded"),
        (offset_of!(Runtime, x87_fop), "x87.opcode"),
        (offset_of!(Runtime, x87_fip), "x87.pointer"),
        (offset_of!(Runtime, x87_fip) + 4, "x87.pointer.selector"),
        (offset_of!(Runtime, x87_fdp), "x87.operand"),
        (offset_of!(Runtime, x87_fdp) + 4, "x87.operand.selector"),
        (offset_of!(Runtime, temporary), "temporary"),
        (offset_of!(Runtime, second_temporary), "temporary.2"),
        (offset_of!(Runtime, code_tag), "code.tag"),
        (offset_of!(Runtime, indirect), "branches.table"),
        (offset_of!(Runtime, interrupt_waits), "interrupt.waits"),
        (offset_of!(Runtime, return_site), "return.site"),
    ];
    match fields.iter().find(|field| field.0 == offset) {
        Some((_, name)) => (*name).into(),
        None => format!("runtime+{offset:#x}"),
    }
}

fn tlb_field(table: &str, offset: usize, indexed: bool) -> String {
    let (entry, field) = (offset / size_of::<TlbEntry>(), offset % size_of::<TlbEntry>());
    let fields = [
        (offset_of!(TlbEntry, read), "read"),
        (offset_of!(TlbEntry, write), "write"),
        (offset_of!(TlbEntry, exec), "exec"),
        (offset_of!(TlbEntry, page), "page"),
    ];
    let name = fields.iter().find(|f| f.0 == field).map_or("?", |f| f.1);
    if indexed && entry == 0 {
        format!("{table}.{name}")
    } else {
        format!("{table}[{entry}].{name}")
    }
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        insn: &Instruction,
        _: u32,
        operand: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        let kind = insn.op_kind(operand?);
        let name = match kind {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                self.code.get(&address)?.clone()
            }
            OpKind::Memory => {
                let indexed =
                    insn.memory_base() != Register::None || insn.memory_index() != Register::None;
                self.memory(address & 0xFFFF_FFFF, indexed)?
            }
            // Elsewhere a number is the guest's.
            OpKind::Immediate32 | OpKind::Immediate32to64 => {
                let inserted = matches!(insn.op0_register(), Register::RSP | Register::ESP)
                    || insn.mnemonic() == Mnemonic::Mov && insn.op0_kind() == OpKind::Memory;
                let name = self.constants.get(&(address & 0xFFFF_FFFF)).filter(|_| inserted)?;
                (*name).into()
            }
            _ => return None,
        };
        Some(SymbolResult::with_string(address, name))
    }
}
