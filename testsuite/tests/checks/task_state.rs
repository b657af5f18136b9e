//! What the task state segment permits: ports (SDM vol. 1, section 19.5.2), and vectors of V86 code
//! (vol. 3B, section 21.3).

use super::world::{CODE, DATA, Mode, World, selector};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::control::cr4;
use x86::{Fault, Segment, flags};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A task state segment that is zero at the beginning, but for the place of its map.
const TSS: u64 = DATA + 0x1000;
/// Where the offset of the map is.
const MAP_BASE: u64 = TSS + 102;
/// A busy 16-bit TSS, for the type of a descriptor.
const TSS16: u64 = 0x8300_0000_0000;

/// The task state segment is at [`TSS`], ends at `limit` and has its map at `map`.
fn task(w: &mut World, map: u16, limit: u32) {
    (w.cpu.tr.base, w.cpu.tr.limit) = (TSS, limit);
    w.write(MAP_BASE, &map.to_le_bytes());
}

fn to_16_bits(w: &mut World) {
    let tr = w.cpu.tr;
    w.cpu.tr = Segment { base: tr.base, limit: tr.limit, ..Segment::from_descriptor(0x40, TSS16) };
}

/// The I/O permission map. DX is the port, a map of zeros at 68H permits all to 7F.
fn ports(checks: &mut Vec<Check>) {
    const NAME: &str = "I/O permission map";
    for mode in [Mode::Virtual8086, Mode::PagedUser, Mode::User] {
        let row = |what: &str, code: Code, port: u64, bad: Box<dyn Fn(&mut World)>| {
            check(NAME, mode, code, bad, Fault::GP0).detail(what).good(move |w| {
                task(w, 0x68, 0x78);
                w.cpu.gpr[2] = port;
                (w.cpu.gpr[6], w.cpu.gpr[7]) = (DATA & 0xFFFF, DATA & 0xFFFF);
                if mode != Mode::Virtual8086 {
                    (w.cpu.gpr[6], w.cpu.gpr[7]) = (DATA, DATA);
                }
            })
        };
        let of_byte: Code = |a| a.in_(al, dx);
        let codes: [(&str, Code, u64); 8] = [
            ("IN, byte", of_byte, 1),
            ("IN, word", |a| a.in_(ax, dx), 2),
            ("IN, doubleword", |a| a.in_(eax, dx), 4),
            ("OUT, byte", |a| a.out(dx, al), 1),
            ("OUT, word", |a| a.out(dx, ax), 2),
            ("OUT, doubleword", |a| a.out(dx, eax), 4),
            ("INS", |a| a.insb(), 1),
            ("OUTS", |a| a.outsb(), 1),
        ];
        for (what, code, size) in codes {
            // Each bit, in one byte of the map and across two; its neighbours do not count.
            for port in [0x50, 0x57] {
                for bit in port..port + size {
                    let deny =
                        move |w: &mut World| w.write(TSS + 0x68 + bit / 8, &[1 << (bit % 8)]);
                    let what = format!("{what} of {port:x}, bit {bit:x}");
                    checks.push(row(&what, code, port, Box::new(deny)));
                }
            }
            let permit = move |w: &mut World| {
                task(w, 0x68, 0x78);
                w.put(TSS + 0x68 + 8, !(((1 << size) - 1) << (0x52 - 0x40)));
                w.cpu.gpr[2] = 0x52;
            };
            let neighbour = row(what, code, 0x52, Box::new(|w| w.cpu.gpr[2] += 1));
            let good = neighbour.good;
            checks.push(
                Check { good: Box::new(move |w| (good(w), permit(w)).1), ..neighbour }
                    .detail(format!("{what}, the neighbour")),
            );
        }
        // The byte of port 50H is at 72H, and the next one is read with it.
        for limit in [0x68, 0x71, 0x72] {
            let bad = move |w: &mut World| w.cpu.tr.limit = limit;
            let row = row(&format!("limit {limit:x}"), of_byte, 0x50, Box::new(bad));
            let good = row.good;
            let good = move |w: &mut World| {
                good(w);
                w.cpu.tr.limit = 0x73;
            };
            checks.push(Check { good: Box::new(good), ..row });
        }
        // A map in the middle, so that only the place of its offset counts.
        let bad = |w: &mut World| w.cpu.tr.limit = 102;
        let short = row("limit across the map's offset", of_byte, 0x50, Box::new(bad));
        let good = short.good;
        let good = move |w: &mut World| {
            good(w);
            task(w, 0x20, 103);
        };
        checks.push(Check { good: Box::new(good), ..short });
        if mode != Mode::User {
            checks.push(row("16-bit task", of_byte, 0x50, Box::new(to_16_bits)));
        }
        let bad = |w: &mut World| w.cpu.tr.access &= !x86::segment::ar::P;
        checks.push(row("no task", of_byte, 0x50, Box::new(bad)));
        if mode != Mode::Virtual8086 {
            let bad = |w: &mut World| w.cpu.rflags ^= 1 << 12;
            checks.push(
                check("IOPL", mode, of_byte, bad, Fault::GP0).good(|w| w.cpu.rflags |= flags::IOPL),
            );
        }
    }
}

/// The interrupt redirection bitmap, for INT 21H. Its handler is what follows.
fn redirection(checks: &mut Vec<Check>) {
    let code: Code = |a| a.int(0x21);
    let row = |what: &str, bad: Box<dyn Fn(&mut World)>| {
        check("interrupt redirection bitmap", Mode::Virtual8086, code, bad, Fault::GP0)
            .detail(what)
            .good(|w| {
                w.cpu.cr4 |= cr4::VME;
                w.cpu.rflags &= !flags::IOPL;
                // The bitmap is at 68H to 87H.
                task(w, 0x88, 0x6C);
                w.write(4 * 0x21, &(CODE as u32 + 2).to_le_bytes());
            })
    };
    let deny = |w: &mut World| w.write(TSS + 0x6C, &[1 << 1]);
    checks.push(row("bit set", Box::new(deny)));
    // With IOPL 3 then: by the IDT, which is not there.
    let bad = move |w: &mut World| {
        deny(w);
        w.cpu.rflags |= flags::IOPL;
    };
    checks.push(Check { fault: Fault::gp(0x21 * 8 + 2), ..row("bit set, IOPL 3", Box::new(bad)) });
    checks.push(row("without CR4.VME", Box::new(|w| w.cpu.cr4 &= !cr4::VME)));
    checks.push(row("16-bit task", Box::new(to_16_bits)));
    checks.push(row("no task", Box::new(|w| w.cpu.tr.access &= !x86::segment::ar::P)));
    checks.push(row("limit", Box::new(|w| w.cpu.tr.limit = 0x6B)));
    // Below the beginning of the segment, though zeros are there.
    checks.push(row("map at 10H", Box::new(|w| task(w, 0x10, 0x6C))));
    let short = row("limit across the map's offset", Box::new(|w| w.cpu.tr.limit = 102));
    let good = short.good;
    let good = move |w: &mut World| {
        good(w);
        task(w, 0x40, 103);
    };
    checks.push(Check { good: Box::new(good), ..short });
}

/// Stacks of an inner level, by a call gate of level 3.
fn stacks(checks: &mut Vec<Check>) {
    let gate = 0xEC00u64 << 32 | (CODE + 2);
    let rows: [(Mode, u16, u64, u64); 3] = [
        (Mode::PagedUser, selector::CODE32, 0x8B00_0000_0000, 9),
        (Mode::PagedUser, selector::CODE32, TSS16, 5),
        (Mode::User, selector::CODE64, 0x8B00_0000_0000, 11),
    ];
    for (mode, code, tss, last) in rows {
        let call: Code = if mode == Mode::User {
            |a| a.call(fword_ptr(rbx))
        } else {
            |a| a.call(fword_ptr(ebx))
        };
        let bad = move |w: &mut World| w.cpu.tr.limit = last as u32 - 1;
        let row = check("stack of the task", mode, call, bad, Fault::ts(selector::TSS));
        checks.push(row.detail(format!("limit {last}")).good(move |w| {
            w.cpu.tr = Segment::from_descriptor(selector::TSS, tss);
            (w.cpu.tr.base, w.cpu.tr.limit) = (TSS, last as u32);
            if tss == TSS16 {
                w.write(TSS + 2, &0xF000u16.to_le_bytes());
                w.write(TSS + 4, &selector::DATA.to_le_bytes());
            } else {
                w.write(TSS + 4, &0xF000u32.to_le_bytes());
                if mode == Mode::PagedUser {
                    w.write(TSS + 8, &selector::DATA.to_le_bytes());
                }
            }
            w.descriptor(gate | u64::from(code) << 16);
            w.write(DATA + 4, &selector::FREE.to_le_bytes());
            w.cpu.gpr[3] = DATA;
        }));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    ports(&mut checks);
    redirection(&mut checks);
    stacks(&mut checks);
    checks
}
