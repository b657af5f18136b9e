//! The option ROM that starts a Linux image by its 16-bit setup code.
//!
//! Firmware finds the ROM's PnP header and takes its bootstrap entry vector for a boot device. When
//! that is called, the ROM has fw_cfg write the parts of the image to guest memory by DMA, which
//! reaches all of it from real mode, and jumps to the setup code.
//!
//! ```text
//!   0  55 AA, size in units of 512 bytes
//!   3  initialisation: AX = 0020, "a device to boot from"; RETF
//!  1A  offset of the PnP header
//!  20  PnP header: "$PnP", ... offset 16: product name, 26: bootstrap entry vector
//!  40  the DMA structures, one for each part that is not empty
//!      the bootstrap entry vector
//! end  checksum
//! ```
//!
//! Source: Plug and Play BIOS Specification 1.0A, section 3 (option ROMs); BIOS Boot Specification
//! 1.01, section 3 (BEV devices).

use crate::boot::RealModeLinux;
use devices::fw_cfg::{FW_CFG_PORT, key};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const UNIT: usize = 512;
const PNP_POINTER: usize = 0x1A;
const PNP_HEADER: usize = 0x20;
const PNP_HEADER_SIZE: u8 = 0x20;
/// Offsets in the PnP header.
const PNP_CHECKSUM: usize = 9;
const PNP_PRODUCT: usize = 0x10;
const PNP_BOOTSTRAP: usize = 0x1A;
const STRUCTURES: usize = 0x40;
/// Bytes of a DMA structure.
const STRUCTURE: usize = 16;
/// The DMA address register's halves.
const DMA_HIGH: u32 = FW_CFG_PORT as u32 + 4;
const DMA_LOW: u32 = FW_CFG_PORT as u32 + 8;
/// Control: select the key above, and read.
const SELECT_AND_READ: u32 = 1 << 3 | 1 << 1;

const PRODUCT: &[u8] = b"Ringshift: kernel\0";
const FAILED: &[u8] = b"The kernel could not be copied to memory.\r\n\0";

/// The ROM for `kernel`, whose parts are items of fw_cfg.
pub(super) fn build(kernel: &RealModeLinux) -> Vec<u8> {
    let image = &kernel.image;
    let initrd = image.initrd.as_ref().map_or((0, 0), |(at, data)| (*at, data.len()));
    let command_line = (image.command_line.0, image.command_line.1.len() + 1);
    let parts = [
        (key::KERNEL_DATA, (image.kernel.0, image.kernel.1.len())),
        (key::INITRD_DATA, initrd),
        (key::COMMAND_LINE_DATA, command_line),
        (key::SETUP_DATA, (image.setup.0, image.setup.1.len())),
    ];
    let structures: Vec<u8> = parts
        .into_iter()
        .filter(|(_, (_, len))| *len > 0)
        .flat_map(|(key, (at, len))| {
            let control = u32::from(key) << 16 | SELECT_AND_READ;
            [control, len as u32, 0, at].map(u32::to_be_bytes).concat()
        })
        .collect();

    // AX = 0020; RETF; and texts, which lie behind the structures.
    let mut rom = vec![0x55, 0xAA, 0, 0xB8, 0x20, 0x00, 0xCB];
    rom.resize(STRUCTURES, 0);
    rom.extend_from_slice(&structures);
    let product = rom.len() as u16;
    rom.extend_from_slice(PRODUCT);
    let failed = rom.len() as u16;
    rom.extend_from_slice(FAILED);
    let bootstrap = rom.len() as u16;
    let code = CodeAssembler::new(16).and_then(|mut a| {
        bootstrap_code(&mut a, kernel, structures.len() / STRUCTURE, failed)?;
        a.assemble(bootstrap.into())
    });
    rom.extend(code.expect("the code of this file assembles"));

    put(&mut rom, PNP_POINTER, &(PNP_HEADER as u16).to_le_bytes());
    // Revision 1.0, length in units of 16 bytes.
    put(&mut rom, PNP_HEADER, b"$PnP");
    put(&mut rom, PNP_HEADER + 4, &[0x01, PNP_HEADER_SIZE / 16]);
    put(&mut rom, PNP_HEADER + PNP_PRODUCT, &product.to_le_bytes());
    put(&mut rom, PNP_HEADER + PNP_BOOTSTRAP, &bootstrap.to_le_bytes());
    let end = PNP_HEADER + usize::from(PNP_HEADER_SIZE);
    let sum = checksum(&rom[PNP_HEADER..end]);
    put(&mut rom, PNP_HEADER + PNP_CHECKSUM, &[sum]);
    // One byte more for the checksum.
    rom.resize((rom.len() + 1).next_multiple_of(UNIT), 0);
    rom[2] = (rom.len() / UNIT) as u8;
    let sum = checksum(&rom);
    if let Some(last) = rom.last_mut() {
        *last = sum;
    }
    rom
}

fn put(rom: &mut [u8], at: usize, bytes: &[u8]) {
    rom[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

/// Called far, in real mode, with a stack.
fn bootstrap_code(
    a: &mut CodeAssembler,
    kernel: &RealModeLinux,
    structures: usize,
    failed_text: u16,
) -> Result<(), IcedError> {
    let (mut part, mut failed) = (a.create_label(), a.create_label());
    let (mut say, mut give_up) = (a.create_label(), a.create_label());
    a.cli()?;
    a.cld()?;
    a.mov(ax, cs)?;
    a.mov(ds, ax)?;
    a.mov(si, STRUCTURES as u32)?;
    // The device answers into the structure, and this may be ROM: so it goes on the stack.
    a.set_label(&mut part)?;
    for offset in [12, 8, 4, 0] {
        a.push(dword_ptr(si + offset))?;
    }
    a.xor(eax, eax)?;
    a.mov(ax, ss)?;
    a.shl(eax, 4)?;
    a.movzx(ecx, sp)?;
    a.add(ecx, eax)?;
    a.bswap(ecx)?;
    a.xor(eax, eax)?;
    a.mov(dx, DMA_HIGH)?;
    a.out(dx, eax)?;
    a.mov(eax, ecx)?;
    a.mov(dx, DMA_LOW)?;
    a.out(dx, eax)?;
    // The transfer is over; control is zero but for an error.
    a.pop(eax)?;
    a.add(sp, STRUCTURE as i32 - 4)?;
    a.test(eax, eax)?;
    a.jnz(failed)?;
    a.add(si, STRUCTURE as i32)?;
    a.cmp(si, (STRUCTURES + structures * STRUCTURE) as i32)?;
    a.jne(part)?;

    a.mov(ax, u32::from(kernel.segment))?;
    for register in [ds, es, fs, gs, ss] {
        a.mov(register, ax)?;
    }
    a.mov(esp, u32::from(kernel.stack))?;
    a.push(i32::from(kernel.segment + 0x20))?;
    a.push(0)?;
    for register in [eax, ebx, ecx, edx, esi, edi, ebp] {
        a.xor(register, register)?;
    }
    a.retf()?;

    a.set_label(&mut failed)?;
    a.mov(si, u32::from(failed_text))?;
    a.set_label(&mut say)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.jz(give_up)?;
    a.mov(ah, 0x0E)?;
    a.mov(bx, 7)?;
    a.int(0x10)?;
    a.jmp(say)?;
    // To the next boot device.
    a.set_label(&mut give_up)?;
    a.int(0x18)
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::fw_cfg::LinuxImage;

    fn rom(initrd: Option<(u32, Vec<u8>)>) -> Vec<u8> {
        build(&RealModeLinux {
            image: LinuxImage {
                setup: (0x1_0000, vec![1; 0x400]),
                kernel: (0x10_0000, vec![2; 0x1234]),
                command_line: (0x2_0000, "quiet".into()),
                initrd,
            },
            segment: 0x1000,
            stack: 0xFFF0,
        })
    }

    #[test]
    fn firmware_accepts_it() {
        let rom = rom(None);
        assert_eq!(rom[..2], [0x55, 0xAA]);
        assert_eq!(usize::from(rom[2]) * UNIT, rom.len());
        assert_eq!(checksum(&rom), 0);
        assert_eq!(rom[PNP_HEADER..PNP_HEADER + 4], *b"$PnP");
        assert_eq!(checksum(&rom[PNP_HEADER..PNP_HEADER + 32]), 0);
        let bootstrap = PNP_HEADER + PNP_BOOTSTRAP;
        let entry = u16::from_le_bytes([rom[bootstrap], rom[bootstrap + 1]]);
        assert_eq!(rom[usize::from(entry)], 0xFA, "CLI");
    }

    #[test]
    fn it_tells_the_device_where_the_parts_go() {
        let short = rom(None);
        let parts = short[STRUCTURES..].as_chunks::<STRUCTURE>().0;
        assert_eq!(parts[0], [0, 0x11, 0, 0x0A, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(parts[1], [0, 0x15, 0, 0x0A, 0, 0, 0, 6, 0, 0, 0, 0, 0, 2, 0, 0]);
        let long = rom(Some((0x70_0000, vec![3; 0x50])));
        let parts = long[STRUCTURES..].as_chunks::<STRUCTURE>().0;
        assert_eq!(parts[1], [0, 0x12, 0, 0x0A, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0x70, 0, 0]);
    }
}
