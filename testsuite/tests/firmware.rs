//! SeaBIOS boots sectors of our own from a disk and from a floppy, and they use its services.
//!
//! SeaBIOS is the package seabios; where it is missing, the tests say so and pass.

use devices::block::{BlockDevice, Medium};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{BootOrder, Config, EngineKind, Firmware, Kernel, Machine, StopReason};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

testsuite::both_engines! {
    a_disk_boots,
    a_floppy_boots,
}

const LOAD: u64 = 0x7C00;
const BUFFER: u32 = 0x8000;
const SECTOR: usize = 512;

/// An image that the test looks at afterwards.
#[derive(Clone)]
struct Image(Arc<Mutex<Vec<u8>>>);

impl BlockDevice for Image {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap().read_at(offset, data)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write_at(offset, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn medium(image: Image) -> Medium {
    Medium::threaded(Box::new(image), "image").expect("the host gives a thread")
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads sector 2 of the first track with INT 13H, says what it holds on the screen and on COM1,
/// writes it to sector 3 and powers off. The drive is in DL.
fn program(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut say = a.create_label();
    let mut said = a.create_label();
    let mut failed = a.create_label();
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7C00)?;
    for (service, sector) in [(0x0201, 2), (0x0301, 3)] {
        a.mov(bx, BUFFER)?;
        a.mov(ax, service)?;
        a.mov(cx, sector)?;
        a.mov(dh, 0)?;
        a.int(0x13)?;
        a.jc(failed)?;
    }
    a.mov(si, BUFFER)?;
    a.set_label(&mut say)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.je(said)?;
    a.push(ax)?;
    a.mov(ah, 0x0E)?;
    a.mov(bx, 7)?;
    a.int(0x10)?;
    a.pop(ax)?;
    a.mov(dx, 0x3F8)?;
    a.out(dx, al)?;
    a.jmp(say)?;
    a.set_label(&mut said)?;
    a.mov(dx, 0x604)?;
    a.mov(ax, 0x2000)?;
    a.out(dx, ax)?;
    a.set_label(&mut failed)?;
    a.mov(dx, 0xF4)?;
    a.out(dx, al)?;
    a.hlt()
}

/// An image of `size` bytes that boots [`program`].
fn image(size: usize) -> Image {
    let mut assembler = CodeAssembler::new(16).expect("16 bits");
    program(&mut assembler).expect("the program is well formed");
    let code = assembler.assemble(LOAD).expect("the program is well formed");
    let mut image = vec![0; size];
    image[..code.len()].copy_from_slice(&code);
    image[510..512].copy_from_slice(&[0x55, 0xAA]);
    image[SECTOR..SECTOR + TEXT.len()].copy_from_slice(TEXT);
    Image(Arc::new(Mutex::new(image)))
}

const TEXT: &[u8] = b"sector two speaking";

fn boots(engine: EngineKind, floppy: bool) {
    let mut firmware = match Firmware::seabios() {
        Ok(firmware) => firmware,
        Err(reason) => {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
    let image = image(if floppy { 1_474_560 } else { 8 << 20 });
    if floppy {
        firmware.drives.floppies.push(medium(image.clone()));
        firmware.boot = BootOrder::Floppy;
    } else {
        firmware.drives.disks.push(medium(image.clone()));
    }
    let output = Output::default();
    let config = Config {
        memory: 32 << 20,
        cpus: 1,
        cpu: Default::default(),
        engine,
        kernel: Kernel::default(),
        serial_output: Box::new(output.clone()),
        timeout: Some(Duration::from_secs(300)),
        count: false,
    };
    let machine = Machine::with_firmware(config, firmware).expect("the machine is built");
    let display = machine.display().expect("there is a VGA adapter");
    let outcome = machine.run().expect("the machine runs");
    let screen = display.lock().unwrap().vga().text().expect("a text mode").lines.join("\n");
    assert_eq!(outcome.reason, StopReason::PowerOff, "{screen}");
    assert_eq!(*output.0.lock().unwrap(), TEXT, "{screen}");
    assert!(screen.contains("SeaBIOS") && screen.contains("sector two speaking"), "{screen}");
    let image = image.0.lock().unwrap();
    assert_eq!(image[2 * SECTOR..3 * SECTOR], image[SECTOR..2 * SECTOR]);
}

fn a_disk_boots(engine: EngineKind) {
    boots(engine, false);
}

fn a_floppy_boots(engine: EngineKind) {
    boots(engine, true);
}
