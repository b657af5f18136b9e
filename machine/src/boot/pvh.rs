//! Entry by the PVH boot ABI: `hvm_start_info` in EBX, 32-bit protected mode.
//!
//! Source: Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h. The
//! structures are linux-loader's; its PVH loader reads only 64-bit ELF files
//! and does not check the entry point.

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{ByteValued, GuestMemory};

use super::placement::{Loader, PAGE};
use super::tables::{self, Registers32};
use super::{Entry, ImageError, Request, elf};

/// The version that has a memory map.
const VERSION: u32 = 1;
const FOUR_GIB: u64 = 1 << 32;

/// Loads the ELF kernel of `request` and its modules.
pub(super) fn load<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
) -> Result<Entry, ImageError> {
    let image = elf::Image::parse(request.kernel)?;
    image.load(loader)?;
    let entry = image.checked_entry(image.pvh_entry.unwrap_or(0))?;

    let mut modules = Vec::new();
    for module in request.modules.iter().filter(|module| !module.data.is_empty()) {
        let size = module.data.len() as u64;
        let paddr = loader.take_highest("module", size, PAGE, FOUR_GIB)?;
        loader.write(paddr, module.data)?;
        let cmdline_paddr = loader.put_string("module command line", module.command_line)?;
        modules.push(hvm_modlist_entry { paddr, size, cmdline_paddr, reserved: 0 });
    }
    let regions: Vec<_> = loader
        .map()
        .regions()
        .iter()
        .map(|region| hvm_memmap_table_entry {
            addr: region.start,
            size: region.size,
            type_: region.kind as u32,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        flags: 0,
        nr_modules: modules.len() as u32,
        modlist_paddr: put_table(loader, "PVH module list", &modules)?,
        cmdline_paddr: loader.put_string("command line", request.command_line)?,
        rsdp_paddr: request.rsdp.unwrap_or(0),
        memmap_paddr: put_table(loader, "PVH memory map", &regions)?,
        memmap_entries: regions.len() as u32,
        reserved: 0,
    };
    let info = loader.put_low("PVH start info", info.as_slice(), 8)?;
    Ok(Entry::Protected32(tables::protected32(
        loader,
        Registers32 { eip: entry, ebx: info as u32, ..Registers32::default() },
    )?))
}

/// Puts a table in conventional memory; 0 stands for an empty one.
fn put_table<M: GuestMemory + ?Sized, T: ByteValued>(
    loader: &mut Loader<'_, M>,
    what: &str,
    entries: &[T],
) -> Result<u64, ImageError> {
    if entries.is_empty() {
        return Ok(0);
    }
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.as_slice().to_vec()).collect();
    loader.put_low(what, &bytes, 8)
}
