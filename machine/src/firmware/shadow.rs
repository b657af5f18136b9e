//! The firmware ROM, and the RAM behind it below 1 MiB.
//!
//! The ROM lies at the top of 4 GiB; its last 128 KiB also show from 0xE0000 until the host bridge
//! lets RAM answer there. Guest RAM is one mapping, so what does not show is kept aside: a piece
//! that goes back to the ROM has its RAM saved and the ROM's bytes in its place.
//!
//! Where reads come from ROM and writes go to RAM, as old firmware has it while it copies itself,
//! both show in one place: reads see what was written. A copy onto itself comes out the same.

use devices::pci::i440fx::Shadow;
use softmmu::{GuestRam, RamRange};
use std::sync::Arc;

const AREA: u64 = 0xC_0000;
const AREA_END: u64 = 0x10_0000;
/// The part of the area that shows the ROM.
const MAX_ALIAS: usize = 0x2_0000;

/// Where an image of `size` bytes lies.
pub(crate) fn rom_range(size: u64) -> RamRange {
    RamRange { gpa: (1 << 32) - size, len: size }
}

/// The pieces' state.
pub(crate) struct ShadowRam {
    ram: Arc<GuestRam>,
    /// What the bus shows from 0xC0000 to 0xFFFFF: the ROM's end; nothing reads as all-ones.
    bus_view: Vec<u8>,
    pieces: Vec<Shadow>,
    /// RAM that does not show now, by piece.
    hidden: Vec<Option<Vec<u8>>>,
}

impl ShadowRam {
    /// Puts the image into ROM at the top of 4 GiB, where `ram` has a range for it, and its alias
    /// below 1 MiB. An empty image is no ROM.
    pub(crate) fn new(ram: Arc<GuestRam>, image: &[u8]) -> ShadowRam {
        let mut shadow = ShadowRam {
            ram,
            bus_view: vec![0xFF; (AREA_END - AREA) as usize],
            pieces: Vec::new(),
            hidden: Vec::new(),
        };
        shadow.insert_rom(image);
        shadow
    }

    fn insert_rom(&mut self, image: &[u8]) {
        let (ram, bus_view) = (&self.ram, &mut self.bus_view);
        if !image.is_empty() {
            let range = rom_range(image.len() as u64);
            // The range was made for this image.
            let _ = ram.write(range.gpa, image);
            ram.set_rom(range.gpa, range.len, true);
        }
        let alias = image.len().min(MAX_ALIAS);
        let (at, from) = (bus_view.len() - alias, image.len() - alias);
        bus_view[at..].copy_from_slice(&image[from..]);
        let _ = ram.write(AREA, bus_view);
        ram.set_rom(AREA, AREA_END - AREA, true);
    }

    /// Shows what the host bridge says. The vCPUs must flush their TLBs afterwards.
    pub(crate) fn set(&mut self, pieces: &[Shadow]) {
        self.hidden.resize(pieces.len(), None);
        for (index, new) in pieces.iter().enumerate() {
            let (was_ram, was_writable) =
                self.pieces.get(index).map_or((false, false), |old| (old.read_ram, old.write_ram));
            let hidden = &mut self.hidden[index];
            if new.read_ram && !was_ram {
                if let Some(content) = hidden.take() {
                    let _ = self.ram.write(new.start, &content);
                }
            } else if !new.read_ram && was_ram {
                let mut content = vec![0; new.len as usize];
                let _ = self.ram.read(new.start, &mut content);
                let offset = new.start.saturating_sub(AREA) as usize;
                if let Some(view) = self.bus_view.get(offset..offset + content.len()) {
                    let _ = self.ram.write(new.start, view);
                }
                *hidden = Some(content);
            }
            if !new.read_ram && new.write_ram {
                *hidden = None;
            }
            if new.write_ram != was_writable {
                self.ram.set_rom(new.start, new.len, !new.write_ram);
            }
        }
        self.pieces = pieces.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use softmmu::PageFlags;

    fn byte(ram: &GuestRam, at: u64) -> u8 {
        let mut data = [0];
        ram.read(at, &mut data).expect("RAM");
        data[0]
    }

    #[test]
    fn ram_takes_the_roms_place_and_gives_it_back() {
        let image: Vec<u8> = (0..0x4_0000u32).map(|i| (i >> 12) as u8).collect();
        let mut ranges = RamRange::pc(2 << 20, 3 << 30);
        ranges.push(rom_range(image.len() as u64));
        let ram = Arc::new(GuestRam::new(&ranges).expect("ram"));
        let mut shadow = ShadowRam::new(ram.clone(), &image);
        assert_eq!((byte(&ram, 0xFFFF_F000), byte(&ram, 0xF_F000)), (0x3F, 0x3F));
        assert_eq!((byte(&ram, 0xE_0000), byte(&ram, 0xC_0000)), (0x20, 0xFF));
        assert!(ram.flags(0xF_0000).has(PageFlags::ROM));

        let piece =
            |read_ram, write_ram| [Shadow { start: 0xF_0000, len: 0x1_0000, read_ram, write_ram }];
        shadow.set(&piece(true, true));
        assert!(!ram.flags(0xF_0000).has(PageFlags::ROM));
        ram.write(0xF_F000, &[7]).expect("RAM");
        shadow.set(&piece(true, false));
        assert!(ram.flags(0xF_0000).has(PageFlags::ROM));
        assert_eq!(byte(&ram, 0xF_F000), 7);
        shadow.set(&piece(false, false));
        assert_eq!(byte(&ram, 0xF_F000), 0x3F);
        shadow.set(&piece(true, false));
        assert_eq!(byte(&ram, 0xF_F000), 7);
    }
}
