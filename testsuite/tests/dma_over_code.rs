//! A bus master writes over code that the processor is executing: what runs next is the new code,
//! on both engines, whether the drive answers at once or from its thread.
//!
//! The firmware is the test's own, so that nothing needs to be installed.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::block::Medium;
use machine::lockstep::{self, Board, Options, Verdict};
use machine::{BootOrder, Drives, EngineKind, Firmware, Kernel, MachineError, StopReason};
use testsuite::Guest;

const SECTOR: usize = 512;
/// Where the sectors are read to, all to the same place.
const CODE: u32 = 0x9000;
const TABLE: u32 = 0x6000;
const BUS_MASTER: u32 = 0xC000;
const BUS_MASTER_STATUS: u32 = BUS_MASTER + 2;
/// The 32-bit part of the ROM, and in it the routine that starts a transfer.
const MAIN: u32 = 0xF_0200;
const START_DMA: u32 = 0xF_0300;
/// Calls before each version of the code is replaced: enough for it to be translated.
const CALLS: u32 = 3000;
const VERSIONS: u8 = 6;

fn assemble(
    address: u32,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let assembled = CodeAssembler::new(32).and_then(|mut a| {
        body(&mut a)?;
        a.assemble(u64::from(address))
    });
    assembled.expect("the code of this file assembles")
}

fn out(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), IcedError> {
    a.mov(edx, port)?;
    a.mov(eax, value)?;
    a.out(dx, al)
}

fn out32(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), IcedError> {
    a.mov(edx, port)?;
    a.mov(eax, value)?;
    a.out(dx, eax)
}

/// Waits until the engine has stopped.
fn poll(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(edx, BUS_MASTER_STATUS)?;
    a.set_label(&mut again)?;
    a.in_(al, dx)?;
    a.test(al, 1)?;
    a.jne(again)
}

/// Reads sector EDI of the first disk to [`CODE`]; returns when the transfer has begun.
fn start_dma(a: &mut CodeAssembler) -> Result<(), IcedError> {
    out(a, BUS_MASTER, 0)?;
    out(a, BUS_MASTER_STATUS, 6)?;
    a.mov(dword_ptr(TABLE), CODE as i32)?;
    a.mov(dword_ptr(TABLE + 4), (0x8000_0000 | SECTOR as u32) as i32)?;
    out32(a, BUS_MASTER + 4, TABLE)?;
    out(a, 0x1F6, 0xE0)?;
    out(a, 0x1F2, 1)?;
    a.mov(edx, 0x1F3)?;
    a.mov(eax, edi)?;
    a.out(dx, al)?;
    out(a, 0x1F4, 0)?;
    out(a, 0x1F5, 0)?;
    out(a, 0x1F7, 0xC8)?;
    out(a, BUS_MASTER, 9)?;
    a.ret()
}

/// The code of sector `version`: calls a routine in a loop, writes its letter, reads the next
/// sector over itself and goes on there.
fn sector(version: u8) -> Vec<u8> {
    let code = assemble(CODE, |a| {
        let mut again = a.create_label();
        let mut off = a.create_label();
        let mut letter = a.create_label();
        a.mov(ecx, CALLS)?;
        a.set_label(&mut again)?;
        a.call(letter)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.call(letter)?;
        a.mov(edx, 0x3F8)?;
        a.out(dx, al)?;
        a.mov(edi, u32::from(version) + 1)?;
        a.cmp(edi, u32::from(VERSIONS))?;
        a.ja(off)?;
        a.mov(ebx, START_DMA)?;
        a.call(ebx)?;
        // The code that waits is the code that is replaced.
        poll(a)?;
        a.mov(ebx, CODE)?;
        a.jmp(ebx)?;
        a.set_label(&mut off)?;
        a.mov(edx, 0x604)?;
        a.mov(eax, 0x2000)?;
        a.out(dx, ax)?;
        a.hlt()?;
        a.set_label(&mut letter)?;
        a.mov(eax, u32::from(b'A' + version - 1))?;
        a.ret()
    });
    let mut sector = code;
    sector.resize(SECTOR, 0xF4);
    sector
}

/// Protected mode, a bus master, the first sector.
fn firmware() -> Vec<u8> {
    let mut rom = vec![0xF4; 0x1_0000];
    let mut put = |at: usize, bytes: &[u8]| rom[at..at + bytes.len()].copy_from_slice(bytes);
    #[rustfmt::skip]
    put(0, &[
        0xFA,                                     // cli
        0x2E, 0x66, 0x0F, 0x01, 0x16, 0x18, 0x01, // lgdt cs:[0x118]
        0x0F, 0x20, 0xC0,                         // mov eax, cr0
        0x0C, 0x01,                               // or al, 1
        0x0F, 0x22, 0xC0,                         // mov cr0, eax
        0x66, 0xEA, 0x00, 0x02, 0x0F, 0x00, 0x08, 0x00, // jmp 8:MAIN
    ]);
    for (index, descriptor) in
        [0, 0x00CF_9B00_0000_FFFF_u64, 0x00CF_9300_0000_FFFF].into_iter().enumerate()
    {
        put(0x100 + index * 8, &descriptor.to_le_bytes());
    }
    put(0x118, &[0x17, 0x00, 0x00, 0x01, 0x0F, 0x00]);
    let main = assemble(MAIN, |a| {
        a.mov(eax, 0x10)?;
        a.mov(ds, eax)?;
        a.mov(es, eax)?;
        a.mov(ss, eax)?;
        a.mov(esp, 0x8000)?;
        for (register, value) in [(0x20, BUS_MASTER | 1), (0x04, 5)] {
            out32(a, 0xCF8, 0x8000_0900 | register)?;
            out32(a, 0xCFC, value)?;
        }
        a.mov(edi, 1)?;
        a.mov(ebx, START_DMA)?;
        a.call(ebx)?;
        poll(a)?;
        a.mov(ebx, CODE)?;
        a.jmp(ebx)
    });
    assert!(MAIN as usize + main.len() <= START_DMA as usize);
    put((MAIN & 0xFFFF) as usize, &main);
    put((START_DMA & 0xFFFF) as usize, &assemble(START_DMA, start_dma));
    // jmp F000:0000
    put(0xFFF0, &[0xEA, 0x00, 0x00, 0x00, 0xF0]);
    rom
}

/// The ROM, and a disk with all versions of the code.
fn board(threaded: bool) -> Firmware {
    let mut image = vec![0; SECTOR];
    (1..=VERSIONS).for_each(|version| image.extend(sector(version)));
    let disk = if threaded {
        Medium::threaded(Box::new(image), "disk").expect("the host gives a thread")
    } else {
        Medium::inline(Box::new(image))
    };
    Firmware {
        bios: firmware(),
        vga_bios: None,
        serial_console: false,
        drives: Drives { disks: vec![disk], ..Drives::default() },
        boot: BootOrder::Disk,
    }
}

fn runs_what_was_read(engine: EngineKind, threaded: bool) {
    let guest = Guest::firmware(board(threaded)).memory(2 << 20).engine(engine);
    let end = guest.run();
    assert_eq!((end.reason, end.output.as_str()), (StopReason::PowerOff, "ABCDEF"));
}

#[test]
fn interpreted() {
    runs_what_was_read(EngineKind::Interp, false);
    runs_what_was_read(EngineKind::Interp, true);
}

#[test]
fn translated() {
    for _ in 0..20 {
        runs_what_was_read(EngineKind::Jit, false);
        runs_what_was_read(EngineKind::Jit, true);
    }
}

#[test]
fn both_engines_in_lockstep() {
    let options =
        Options { kernel: Kernel::default(), memory: 2 << 20, instructions: None, strict: false };
    let make = || Ok::<_, MachineError>(Board::Firmware(board(false)));
    match lockstep::run_board(&options, &make, Box::new(std::io::sink())).expect("machines") {
        Verdict::Same { instructions, reason } => {
            assert!(matches!(reason, Some(StopReason::PowerOff)), "{reason:?}");
            assert!(instructions > u64::from(VERSIONS) * u64::from(CALLS) * 4, "{instructions}");
        }
        Verdict::Differ(report) => panic!("{report}"),
    }
}
