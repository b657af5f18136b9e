//! Kernels of a few instructions: Multiboot 1 images, entered in 32-bit protected mode.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where the images are loaded.
const LOAD: u32 = 0x10_0000;
/// Bytes of the Multiboot header with its address fields.
const HEADER: u32 = 32;
/// Memory behind the image, for a stack.
const BSS: u32 = 0x1000;

/// An address that nothing is loaded at: it reads as zeros.
const UNUSED: u32 = 0x20_0000;

const COM1: u32 = 0x3F8;
/// Line status register of COM1; bit 0 says that a byte was received.
const COM1_LSR: u32 = COM1 + 5;
const DEBUG_EXIT: i32 = 0xF4;
const PM1A_CONTROL: u32 = 0x604;
/// SLP_EN, with SLP_TYP 0: S5 of this board.
const POWER_OFF: u32 = 1 << 13;

/// Wraps 32-bit code in a Multiboot image. The code is entered at its first byte.
pub fn multiboot(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1BAD_B002;
    const ADDRESSES_GIVEN: u32 = 1 << 16;
    let end = LOAD + HEADER + code.len() as u32;
    let checksum = 0u32.wrapping_sub(MAGIC).wrapping_sub(ADDRESSES_GIVEN);
    // magic, flags, checksum, header, load and load end, bss end, entry
    let header = [MAGIC, ADDRESSES_GIVEN, checksum, LOAD, LOAD, end, end + BSS, LOAD + HEADER];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.extend_from_slice(code);
    image
}

/// Assembles a kernel.
fn assemble(body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let assembled = CodeAssembler::new(32).and_then(|mut a| {
        body(&mut a)?;
        a.assemble(u64::from(LOAD + HEADER))
    });
    multiboot(&assembled.expect("the kernels of this file assemble"))
}

fn print(a: &mut CodeAssembler, text: &str) -> Result<(), IcedError> {
    a.mov(edx, COM1)?;
    for byte in text.bytes() {
        a.mov(al, u32::from(byte))?;
        a.out(dx, al)?;
    }
    Ok(())
}

fn power_off(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(edx, PM1A_CONTROL)?;
    a.mov(eax, POWER_OFF)?;
    a.out(dx, ax)?;
    halt(a)
}

fn halt(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut forever = a.create_label();
    a.set_label(&mut forever)?;
    a.cli()?;
    a.hlt()?;
    a.jmp(forever)
}

/// Says hello and powers off.
pub fn hello() -> Vec<u8> {
    assemble(|a| {
        print(a, "hello\r\n")?;
        power_off(a)
    })
}

/// Writes `value` to the ISA debug exit port.
pub fn debug_exit(value: u8) -> Vec<u8> {
    assemble(|a| {
        a.mov(al, u32::from(value))?;
        a.out(DEBUG_EXIT, al)?;
        halt(a)
    })
}

/// Makes the processor shut down: an undefined instruction, with an IDT of no entries.
pub fn triple_fault() -> Vec<u8> {
    assemble(|a| {
        a.lidt(fword_ptr(UNUSED))?;
        a.ud2()
    })
}

/// Writes "On the screen" to the VGA's text screen, in white on blue, then powers off when the
/// keyboard's A goes down.
pub fn screen() -> Vec<u8> {
    const SCREEN: u32 = 0xB_8000;
    const KEY_A: i32 = 0x1E;
    assemble(|a| {
        let mut wait = a.create_label();
        a.mov(edi, SCREEN)?;
        for byte in b"On the screen" {
            a.mov(word_ptr(edi), 0x1F00 | u32::from(*byte))?;
            a.add(edi, 2)?;
        }
        a.set_label(&mut wait)?;
        a.pause()?;
        a.in_(al, 0x64)?;
        a.test(al, 1)?;
        a.jz(wait)?;
        a.in_(al, 0x60)?;
        a.cmp(al, KEY_A)?;
        a.jne(wait)?;
        power_off(a)
    })
}

/// What ends the sleep of [`suspend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakener {
    /// The real-time clock's alarm, within a second.
    Alarm,
    /// The power button.
    PowerButton,
}

/// Where [`suspend`] asks to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waking {
    /// Nowhere.
    None,
    /// At Firmware_Waking_Vector, in real mode.
    Real,
    /// At X_Firmware_Waking_Vector, in flat protected mode; at the other one too.
    Flat,
    /// At an X_Firmware_Waking_Vector above 4 GiB, which takes long mode; at the other one too.
    High,
}

/// Says `sleep` and goes to S3; says `kept` at the FACS's waking vector, or `flat` at the extended
/// one, where memory is as it was when it slept, and powers off.
pub fn suspend(wakener: Wakener, waking: Waking) -> Vec<u8> {
    /// Where real mode goes on: CS 0x900, IP 8.
    const RESUME: u32 = 0x9008;
    const FLAT: u32 = UNUSED;
    const WORD: u32 = 0x9800;
    const PM1A_ENABLE: u32 = PM1A_CONTROL - 2;
    const RTC_EVENT: u32 = 1 << 10;
    const POWER_BUTTON_EVENT: u32 = 1 << 8;
    const SUSPEND: u32 = 1 << 10 | 1 << 13;
    let resume = CodeAssembler::new(16).and_then(|mut a| {
        let mut lost = a.create_label();
        a.mov(dx, COM1)?;
        // CS and IP are the vector's, DS is 0.
        a.cmp(word_ptr(WORD), 0x1234)?;
        a.jne(lost)?;
        for byte in b"kept\r\n" {
            a.mov(al, u32::from(*byte))?;
            a.out(dx, al)?;
        }
        a.mov(dx, PM1A_CONTROL)?;
        a.mov(ax, POWER_OFF)?;
        a.out(dx, ax)?;
        a.set_label(&mut lost)?;
        a.hlt()?;
        a.assemble(8)
    });
    let resume = resume.expect("the kernels of this file assemble");
    let flat = CodeAssembler::new(32).and_then(|mut a| {
        let mut lost = a.create_label();
        // Every segment is flat, to its end and writable; interrupts and paging are off.
        a.mov(esp, LOAD)?;
        let word = word_ptr(WORD);
        for operand in [word, word.ss(), word.es(), word.fs(), word.gs()] {
            a.cmp(operand, 0x1234)?;
            a.jne(lost)?;
        }
        a.mov(eax, dword_ptr(0xFFFF_FFF0u32))?;
        a.pushfd()?;
        a.pop(eax)?;
        a.test(eax, 1 << 9)?;
        a.jnz(lost)?;
        a.mov(eax, cr0)?;
        a.bt(eax, 31)?;
        a.jc(lost)?;
        a.mov(ecx, 0xC000_0080u32)?;
        a.rdmsr()?;
        a.test(eax, eax)?;
        a.jnz(lost)?;
        // The GDT holds what the segments were loaded from.
        a.mov(eax, ss)?;
        a.mov(ds, eax)?;
        a.mov(ss, eax)?;
        print(&mut a, "flat\r\n")?;
        power_off(&mut a)?;
        a.set_label(&mut lost)?;
        a.hlt()?;
        a.assemble(FLAT.into())
    });
    let flat = flat.expect("the kernels of this file assemble");
    assemble(|a| {
        let (mut search, mut found) = (a.create_label(), a.create_label());
        for (address, byte) in (RESUME..).zip(&resume).chain((FLAT..).zip(&flat)) {
            a.mov(byte_ptr(address), u32::from(*byte))?;
        }
        a.mov(ebx, 0xF_0000)?;
        a.set_label(&mut search)?;
        a.cmp(dword_ptr(ebx), u32::from_le_bytes(*b"FACS") as i32)?;
        a.je(found)?;
        a.add(ebx, 64)?;
        a.jmp(search)?;
        a.set_label(&mut found)?;
        if waking != Waking::None {
            a.mov(dword_ptr(ebx + 12), RESUME)?;
        }
        if matches!(waking, Waking::Flat | Waking::High) {
            a.mov(dword_ptr(ebx + 24), FLAT)?;
            // The wish for 64 bits, which the table does not offer.
            a.mov(dword_ptr(ebx + 36), 1)?;
        }
        if waking == Waking::High {
            a.mov(dword_ptr(ebx + 28), 1)?;
        }
        print(a, "sleep\r\n")?;
        let event = match wakener {
            Wakener::Alarm => RTC_EVENT,
            Wakener::PowerButton => POWER_BUTTON_EVENT,
        };
        a.mov(edx, PM1A_ENABLE)?;
        a.mov(eax, event)?;
        a.out(dx, ax)?;
        if wakener == Wakener::Alarm {
            // Each second; register B's AIE and 24-hour format.
            for (index, value) in [(1, 0xC0), (3, 0xC0), (5, 0xC0), (0xB, 0x22)] {
                a.mov(al, index)?;
                a.out(0x70, al)?;
                a.mov(al, value)?;
                a.out(0x71, al)?;
            }
        }
        a.mov(word_ptr(WORD), 0x1234)?;
        a.mov(edx, PM1A_CONTROL)?;
        a.mov(eax, SUSPEND)?;
        a.out(dx, ax)?;
        // Nothing behind it is executed.
        a.mov(word_ptr(WORD), 0)?;
        halt(a)
    })
}

/// Starts the application processor `times` times, and takes the far jump that it starts with away
/// as soon as the start-up IPI is sent. Says `started` if it got where that led each time, and
/// `lost` if not.
pub fn start_up(times: u32) -> Vec<u8> {
    const TRAMPOLINE: u32 = 0x8000;
    const BEHIND_IT: u32 = 0x8100;
    const WORD: u32 = 0x9800;
    const SPURIOUS_VECTOR: u32 = 0xFEE0_00F0;
    const INTERRUPT_COMMAND: u32 = 0xFEE0_0300;
    /// To all but the sender; the start-up IPI's vector is the trampoline's page.
    const INIT: u32 = 0xC_4500;
    const START_UP: u32 = 0xC_4600 | TRAMPOLINE >> 12;
    /// JMP 0000:8100, and a jump to itself, of as many bytes that are written at once.
    const JUMP: [u32; 2] = [0x0081_00EA, 0x9090_9000];
    const LOOP: u32 = 0x9090_FEEB;
    let behind_it = CodeAssembler::new(16).and_then(|mut a| {
        a.inc(word_ptr(WORD))?;
        a.cli()?;
        a.hlt()?;
        a.assemble(u64::from(BEHIND_IT))
    });
    let behind_it = behind_it.expect("the kernels of this file assemble");
    assemble(|a| {
        let (mut again, mut wait) = (a.create_label(), a.create_label());
        let (mut started, mut lost) = (a.create_label(), a.create_label());
        for (address, byte) in (BEHIND_IT..).zip(&behind_it) {
            a.mov(byte_ptr(address), u32::from(*byte))?;
        }
        a.mov(dword_ptr(SPURIOUS_VECTOR), 0x1FF)?;
        a.mov(esi, times)?;
        a.set_label(&mut again)?;
        a.mov(dword_ptr(TRAMPOLINE), JUMP[0])?;
        a.mov(dword_ptr(TRAMPOLINE + 4), JUMP[1])?;
        a.mov(word_ptr(WORD), 0)?;
        a.mov(dword_ptr(INTERRUPT_COMMAND), INIT)?;
        a.mov(dword_ptr(INTERRUPT_COMMAND), START_UP)?;
        a.mov(dword_ptr(TRAMPOLINE), LOOP)?;
        a.mov(ecx, 1 << 28)?;
        a.set_label(&mut wait)?;
        a.cmp(word_ptr(WORD), 0)?;
        a.jne(started)?;
        a.dec(ecx)?;
        a.jnz(wait)?;
        a.jmp(lost)?;
        a.set_label(&mut started)?;
        a.dec(esi)?;
        a.jnz(again)?;
        print(a, "started\r\n")?;
        power_off(a)?;
        a.set_label(&mut lost)?;
        print(a, "lost\r\n")?;
        power_off(a)
    })
}

/// Runs forever.
pub fn spin() -> Vec<u8> {
    assemble(|a| {
        let mut forever = a.create_label();
        a.set_label(&mut forever)?;
        a.jmp(forever)
    })
}

/// Halts with interrupts disabled, forever.
pub fn halted() -> Vec<u8> {
    assemble(|a| {
        print(a, "halted\r\n")?;
        halt(a)
    })
}

/// Says that it booted, and resets through the keyboard controller.
pub fn reset() -> Vec<u8> {
    assemble(|a| {
        print(a, "booted\r\n")?;
        a.mov(al, 0xFE)?;
        a.out(0x64, al)?;
        halt(a)
    })
}

/// Writes `count` lines of 64 bytes as fast as it can, then powers off.
pub fn flood(count: u32) -> Vec<u8> {
    assemble(|a| {
        a.mov(ecx, count)?;
        let mut line = a.create_label();
        a.set_label(&mut line)?;
        print(a, &format!("{}\r\n", "x".repeat(62)))?;
        a.dec(ecx)?;
        a.jnz(line)?;
        power_off(a)
    })
}

/// Says that it is ready, then echoes what it receives, and powers off after a `q`.
pub fn echo() -> Vec<u8> {
    assemble(|a| {
        let (mut wait, mut end) = (a.create_label(), a.create_label());
        print(a, "ready\r\n")?;
        a.set_label(&mut wait)?;
        a.mov(edx, COM1_LSR)?;
        a.in_(al, dx)?;
        a.test(al, 1)?;
        a.jz(wait)?;
        a.mov(edx, COM1)?;
        a.in_(al, dx)?;
        a.out(dx, al)?;
        a.cmp(al, i32::from(b'q'))?;
        a.je(end)?;
        a.jmp(wait)?;
        a.set_label(&mut end)?;
        power_off(a)
    })
}

/// Bytes before the setup code: the boot sector and the setup header.
const SETUP_CODE: usize = 0x268;

/// A Linux image of boot protocol 2.07 that is nothing but 16-bit setup code. Reached by way of a
/// BIOS, it writes to COM1 its command line, the first eight bytes of its protected-mode part and
/// those of its initrd, which INT 15H fetches from above 1 MiB; powers off.
pub fn setup_code() -> Vec<u8> {
    const SEGMENT: u32 = 0x1000;
    const SCRATCH: u32 = 0x4000;
    const TABLE: u32 = 0x4100;
    /// In the table of INT 15H, AH=87H: the descriptors of source and target.
    const SOURCE: u32 = TABLE + 0x10;
    const TARGET: u32 = TABLE + 0x18;
    let code = CodeAssembler::new(16).and_then(|mut a| {
        let (mut argument, mut parts) = (a.create_label(), a.create_label());
        a.mov(eax, dword_ptr(0x228))?;
        a.shr(eax, 4)?;
        a.mov(fs, ax)?;
        a.xor(si, si)?;
        a.mov(dx, COM1)?;
        a.set_label(&mut argument)?;
        a.mov(al, byte_ptr(si).fs())?;
        a.inc(si)?;
        a.test(al, al)?;
        a.jz(parts)?;
        a.out(dx, al)?;
        a.jmp(argument)?;
        a.set_label(&mut parts)?;
        // The protected-mode part, then what `ramdisk_image` says.
        for high in [false, true] {
            let mut byte = a.create_label();
            a.mov(al, i32::from(b'|'))?;
            a.out(dx, al)?;
            a.mov(di, TABLE)?;
            a.mov(cx, 24)?;
            a.xor(ax, ax)?;
            a.rep().stosw()?;
            if high {
                a.mov(eax, dword_ptr(0x218))?;
            } else {
                a.mov(eax, LOAD)?;
            }
            a.mov(byte_ptr(SOURCE + 5), 0x93)?;
            a.mov(word_ptr(SOURCE), 0xFFFF)?;
            a.mov(word_ptr(SOURCE + 2), ax)?;
            a.shr(eax, 16)?;
            a.mov(byte_ptr(SOURCE + 4), al)?;
            a.mov(byte_ptr(SOURCE + 7), ah)?;
            a.mov(word_ptr(TARGET), 0xFFFF)?;
            a.mov(dword_ptr(TARGET + 2), SEGMENT * 16 + SCRATCH)?;
            a.mov(byte_ptr(TARGET + 5), 0x93)?;
            a.mov(si, TABLE)?;
            a.mov(cx, 4)?;
            a.mov(ah, 0x87)?;
            a.int(0x15)?;
            a.mov(dx, COM1)?;
            a.mov(si, SCRATCH)?;
            a.mov(cx, 8)?;
            a.set_label(&mut byte)?;
            a.lodsb()?;
            a.out(dx, al)?;
            a.loop_(byte)?;
        }
        a.mov(dx, PM1A_CONTROL)?;
        a.mov(ax, POWER_OFF)?;
        a.out(dx, ax)?;
        a.hlt()?;
        a.assemble(SETUP_CODE as u64 - 0x200)
    });
    let code = code.expect("the kernels of this file assemble");
    let mut image = vec![0; SETUP_CODE];
    image.extend_from_slice(&code);
    image.resize(5 * 512, 0);
    image.extend_from_slice(b"payload!");
    image.resize(10 * 512, 0x90);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[4]);
    put(0x1F4, &[(5 * 512 / 16) as u8, 0]);
    // A short jump over the header.
    put(0x1FE, &[0x55, 0xAA, 0xEB, 0x66]);
    put(0x202, b"HdrS\x07\x02");
    put(0x211, &[1]);
    put(0x22C, &[0xFF; 4]);
    put(0x238, &[0xFF, 7]);
    image
}

/// Divides by zero on the x87 with the error unmasked and CR0.NE clear, so that the error is IRQ
/// 13's. Says `irq 13` where the interrupt comes before the next waiting instruction, and where
/// that instruction goes on once port 0xF0 is written; powers off.
pub fn x87_error() -> Vec<u8> {
    /// Tables, at addresses that nothing is loaded at.
    const IDT: u32 = UNUSED;
    const POINTER: u32 = UNUSED + 0x1000;
    const GDT: u32 = UNUSED + 0x1100;
    const WORD: u32 = UNUSED + 0x1200;
    const STACK_TOP: u32 = UNUSED + 0x3000;
    const CODE: u32 = 8;
    /// IRQ 13 on a second 8259 that begins at 0x70.
    const VECTOR: u32 = 0x75;
    assemble(|a| {
        let (mut main, mut failed) = (a.create_label(), a.create_label());
        a.mov(esp, STACK_TOP)?;
        a.call(main)?;
        // The handler, whose address the call has pushed. Its frame must return to the second
        // FLD1, behind the delay that leaves ECX at zero.
        a.pop(eax)?;
        a.or(ecx, ecx)?;
        a.jnz(failed)?;
        a.cmp(word_ptr(eax), 0xE8D9)?;
        a.jne(failed)?;
        a.out(0xF0, al)?;
        a.fld1()?;
        a.fnclex()?;
        print(a, "irq 13\r\n")?;
        power_off(a)?;

        a.set_label(&mut main)?;
        a.mov(dword_ptr(GDT + CODE), 0xFFFF)?;
        a.mov(dword_ptr(GDT + CODE + 4), 0x00CF_9B00)?;
        a.mov(word_ptr(POINTER), 0x17)?;
        a.mov(dword_ptr(POINTER + 2), GDT)?;
        a.lgdt(fword_ptr(POINTER))?;
        a.pop(eax)?;
        a.mov(ecx, eax)?;
        a.and(eax, 0xFFFF)?;
        a.or(eax, CODE << 16)?;
        a.mov(dword_ptr(IDT + VECTOR * 8), eax)?;
        a.mov(cx, 0x8E00)?;
        a.mov(dword_ptr(IDT + VECTOR * 8 + 4), ecx)?;
        a.mov(word_ptr(POINTER), 0x7FF)?;
        a.mov(dword_ptr(POINTER + 2), IDT)?;
        a.lidt(fword_ptr(POINTER))?;
        // ICW1 to ICW4 and the masks: only IRQ 13 comes through.
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x20),
            (0x21, 4),
            (0x21, 1),
            (0xA0, 0x11),
            (0xA1, 0x70),
            (0xA1, 2),
            (0xA1, 1),
            (0x21, 0xFB),
            (0xA1, 0xDF),
        ] {
            a.mov(al, value)?;
            a.out(port, al)?;
        }
        // NE, TS and EM.
        a.mov(eax, cr0)?;
        a.and(eax, !0x2C)?;
        a.mov(cr0, eax)?;
        a.fninit()?;
        a.mov(word_ptr(WORD), 0x37B)?;
        a.fldcw(word_ptr(WORD))?;
        a.sti()?;
        a.fld1()?;
        a.fldz()?;
        a.fdivp(st1, st0)?;
        a.mov(ecx, 1000)?;
        let mut delay = a.create_label();
        a.set_label(&mut delay)?;
        a.dec(ecx)?;
        a.jnz(delay)?;
        a.fld1()?;
        a.set_label(&mut failed)?;
        print(a, "failed\r\n")?;
        power_off(a)
    })
}
