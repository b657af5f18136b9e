//! The descriptor and page tables a kernel starts with.

use vm_memory::GuestMemory;

use super::placement::{Loader, PAGE};
use super::{DescriptorTable, ImageError, Long64, Protected32, Segment};

/// The selectors that the Linux boot protocol calls `__BOOT_CS` and
/// `__BOOT_DS`; the other protocols leave the choice to the loader.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Flat, readable 32-bit code and 64-bit code; flat, writable data; a busy TSS
/// with base 0 and limit 0x67 (SDM Vol. 3A, 3.4.5 and 8.2.2). All accessed,
/// since they are loaded.
const CODE_32: u64 = 0x00CF_9B00_0000_FFFF;
const CODE_64: u64 = 0x00AF_9B00_0000_FFFF;
const DATA_FLAT: u64 = 0x00CF_9300_0000_FFFF;
const TASK_BUSY: u64 = 0x0000_8B00_0000_0067;

/// What the general registers hold at a 32-bit entry.
#[derive(Default)]
pub(super) struct Registers32 {
    pub(super) eip: u32,
    pub(super) eax: u32,
    pub(super) ebx: u32,
    pub(super) esi: u32,
}

/// Writes a GDT and gives the state of a 32-bit entry.
pub(super) fn protected32<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    registers: Registers32,
) -> Result<Protected32, ImageError> {
    let gdt = write_gdt(loader, CODE_32)?;
    let Registers32 { eip, eax, ebx, esi } = registers;
    let code = Segment { selector: CODE, descriptor: CODE_32 };
    Ok(Protected32 { eip, eax, ebx, esi, gdt, code, data: DATA_SEGMENT, task: TASK_SEGMENT })
}

/// The state of a 32-bit entry with all general registers 0, whose GDT ([`gdt_32`]) lies at `gdt`.
pub(crate) fn protected32_at(eip: u32, gdt: u64) -> Protected32 {
    Protected32 {
        eip,
        eax: 0,
        ebx: 0,
        esi: 0,
        gdt: DescriptorTable { base: gdt, limit: GDT_LENGTH - 1 },
        code: Segment { selector: CODE, descriptor: CODE_32 },
        data: DATA_SEGMENT,
        task: TASK_SEGMENT,
    }
}

/// The GDT of [`protected32_at`].
pub(super) fn gdt_32() -> Vec<u8> {
    gdt(CODE_32)
}

/// Writes a GDT and identity page tables and gives the state of a 64-bit entry.
pub(super) fn long64<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    rip: u64,
    rsi: u64,
) -> Result<Long64, ImageError> {
    let gdt = write_gdt(loader, CODE_64)?;
    let cr3 = write_identity_map(loader)?;
    let code = Segment { selector: CODE, descriptor: CODE_64 };
    Ok(Long64 { rip, rsi, cr3, gdt, code, data: DATA_SEGMENT, task: TASK_SEGMENT })
}

/// Bytes of a GDT here.
const GDT_LENGTH: u16 = 48;
const DATA_SEGMENT: Segment = Segment { selector: DATA, descriptor: DATA_FLAT };
const TASK_SEGMENT: Segment = Segment { selector: TASK, descriptor: TASK_BUSY };

fn write_gdt<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    code: u64,
) -> Result<DescriptorTable, ImageError> {
    let base = loader.put_low("GDT", &gdt(code), 8)?;
    Ok(DescriptorTable { base, limit: GDT_LENGTH - 1 })
}

fn gdt(code: u64) -> Vec<u8> {
    // The last entry is the upper half of a 64-bit TSS descriptor.
    let entries: [u64; GDT_LENGTH as usize / 8] = [0, 0, code, DATA_FLAT, TASK_BUSY, 0];
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// Maps linear 0 to 4 GiB onto itself: a PML4, a page-directory-pointer table
/// and four page directories of 2 MiB pages. 1 GiB pages would need one table
/// but not every guest CPU model has them. Returns the value for CR3.
fn write_identity_map<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
) -> Result<u64, ImageError> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const PAGE_SIZE: u64 = 1 << 7;
    const DIRECTORIES: u64 = 4;
    let base = loader.take_low("page tables", (2 + DIRECTORIES) * PAGE, PAGE)?;
    let pointers = base + PAGE;
    let directories = pointers + PAGE;

    let mut bytes = vec![0; (2 * PAGE) as usize];
    bytes[..8].copy_from_slice(&(pointers | PRESENT_WRITABLE).to_le_bytes());
    let second = bytes[PAGE as usize..].chunks_exact_mut(8).take(DIRECTORIES as usize);
    for (index, entry) in second.enumerate() {
        let directory = directories + index as u64 * PAGE;
        entry.copy_from_slice(&(directory | PRESENT_WRITABLE).to_le_bytes());
    }
    for index in 0..DIRECTORIES * 512 {
        bytes.extend_from_slice(&(index << 21 | PAGE_SIZE | PRESENT_WRITABLE).to_le_bytes());
    }
    loader.write(base, &bytes)?;
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::MemoryMap;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn the_page_tables_map_four_gib_onto_itself() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let map = MemoryMap::pc(1 << 20, 0xC000_0000);
        let entry = long64(&mut Loader::new(&memory, &map), 0x1234, 0).unwrap();
        let read = |table: u64, index: u64| -> u64 {
            memory.read_obj(GuestAddress((table & !0xFFF) + index * 8)).unwrap()
        };
        for linear in [0, 0x20_0000, 0x4000_0000, 0xFEE0_0000, 0xFFFF_FFFF_u64] {
            let pointers = read(entry.cr3, linear >> 39);
            let directory = read(pointers, linear >> 30 & 511);
            let page = read(directory, linear >> 21 & 511);
            assert_eq!((pointers | directory) & 0xFFF, 0b11);
            assert_eq!(page, linear & !0x1F_FFFF | 0x83);
        }
        assert_eq!(read(read(entry.cr3, 0), 4), 0);
    }

    #[test]
    fn the_segments_are_those_of_the_gdt() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let map = MemoryMap::pc(1 << 20, 0xC000_0000);
        let entry = protected32(&mut Loader::new(&memory, &map), Registers32::default()).unwrap();
        for segment in [entry.code, entry.data, entry.task] {
            let at = entry.gdt.base + u64::from(segment.selector);
            assert_eq!(memory.read_obj::<u64>(GuestAddress(at)).unwrap(), segment.descriptor);
            assert_eq!(segment.base(), 0);
        }
        assert_eq!(entry.gdt.limit, 0x2F);
        // The state without a loader is the same, with a table elsewhere.
        let placed = protected32_at(0, entry.gdt.base);
        assert_eq!(placed, entry);
        let mut table = vec![0; usize::from(placed.gdt.limit) + 1];
        memory.read_slice(&mut table, GuestAddress(entry.gdt.base)).unwrap();
        assert_eq!(table, gdt_32());
        assert_eq!((entry.code.limit(), entry.data.limit()), (u32::MAX, u32::MAX));
        assert_eq!(entry.task.limit(), 0x67);
    }
}
