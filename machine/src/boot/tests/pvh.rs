//! PVH entry, and the ELF loader under it.

use super::images::{Segment, elf, patch, pvh_note};
use super::*;
use crate::boot::{ElfClass, Entry, Kind};

fn kernel(wide: bool, entry: u32) -> Vec<u8> {
    let segments =
        [Segment::flat(0x10_0000, &[0x90; 100], 0x2000), Segment::flat(0x40_0000, &[], 0x1000)];
    elf(wide, 0, &segments, Some(&pvh_note(entry)))
}

#[test]
fn pvh_gets_its_start_info() {
    for (wide, class) in [(true, ElfClass::Elf64), (false, ElfClass::Elf32)] {
        let guest = guest();
        guest.memory.write_slice(&[0xFF; 0x3000], GuestAddress(0x10_0000)).unwrap();
        let image = kernel(wide, 0x10_0020);
        let modules = [
            Module { data: b"module one", command_line: "one" },
            Module { data: b"module two", command_line: "two" },
        ];
        let loaded = guest.load(&Request { modules: &modules, ..guest.request(&image) }).unwrap();
        assert_eq!(loaded.kind, Kind::Pvh(class));
        let Entry::Protected32(state) = loaded.entry else { panic!("{:?}", loaded.entry) };
        assert_eq!(state.eip, 0x10_0020);
        assert_eq!((state.task.limit(), state.task.access()), (0x67, 0x8B));

        let info = u64::from(state.ebx);
        let words: Vec<u32> = (0..4).map(|index| guest.u32(info + 4 * index)).collect();
        assert_eq!(words, [0x336E_C578, 1, 0, 2]);
        assert_eq!(guest.string(guest.u64(info + 24)), "console=ttyS0");
        assert_eq!(guest.u64(info + 32), 0x9_FC00);
        let list = guest.u64(info + 16);
        for (index, module) in modules.iter().enumerate() {
            let entry = list + 32 * index as u64;
            assert_eq!(guest.u64(entry + 8), module.data.len() as u64);
            assert_eq!(guest.bytes(guest.u64(entry), module.data.len()), module.data);
            assert_eq!(guest.string(guest.u64(entry + 16)), module.command_line);
        }
        let map = guest.u64(info + 40);
        assert_eq!(guest.u32(info + 48), 4);
        assert_eq!((guest.u64(map), guest.u64(map + 8), guest.u32(map + 16)), (0, 0x9_FC00, 1));

        // The segment, its zeroed rest, and memory after it left alone.
        assert_eq!(guest.bytes(0x10_0000, 100), [0x90; 100]);
        assert_eq!(guest.bytes(0x10_0064, 0x2000 - 100), vec![0; 0x2000 - 100]);
        assert_eq!(guest.u8(0x10_2000), 0xFF);
    }
}

#[test]
fn a_malformed_elf_file_is_refused_with_the_value_at_fault() {
    let spoil = |at: usize, bytes: &[u8]| {
        let mut image = kernel(true, 0x10_0020);
        patch(&mut image, at, bytes);
        refusal(&image)
    };
    // Offsets of fields of the ELF header and of the first program header.
    let (machine, kind, phoff, phentsize, phnum) = (18, 16, 32, 54, 56);
    let (offset, physical, file_size, memory_size) = (72, 88, 96, 104);
    for (message, words) in [
        (refusal(b"\x7FELF"), "malformed ELF header"),
        (refusal(&kernel(true, 0)[..70]), "malformed ELF program headers"),
        (refusal(&kernel(true, 0)[..0x420]), "cut short: ELF segment 0 takes 0x64 bytes"),
        (refusal(&kernel(true, 0x20_0000)), "entry point 0x200000 is outside"),
        (refusal(&elf(true, 0, &[], None)), "without loadable segments"),
        (spoil(5, &[2]), "a big-endian ELF file"),
        (spoil(machine, &[183]), "machine 183 (AARCH64)"),
        (spoil(kind, &[1]), "type 1 (REL)"),
        (spoil(phoff, &[0xFF; 8]), "malformed ELF program headers"),
        (spoil(phentsize, &[32]), "program headers of 32 bytes, 56 expected"),
        (spoil(phnum, &[0xFF; 2]), "65535 ELF program headers"),
        (spoil(offset, &[0xFF; 8]), "takes 0x64 bytes from offset 0xffffffffffffffff"),
        (spoil(file_size, &[0xFF; 8]), "segment 0 has 0xffffffffffffffff bytes in the file"),
        (spoil(memory_size, &[0xFF; 8]), "0xffffffffffffffff bytes at 0x100000, which is not"),
        (spoil(physical, &[0xFF; 8]), "bytes at 0xffffffffffffffff, which is not all RAM"),
        (spoil(physical, &0xA_0000_u64.to_le_bytes()), "0x2000 bytes at 0xa0000, which is not"),
        (spoil(physical, &0x40_0800_u64.to_le_bytes()), "overlaps ELF segment 0"),
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
}
