//! The MOO file format of SingleStepTests: gzip of little-endian chunks, each a 4-byte tag, a
//! 32-bit length and a payload. Unknown chunks are skipped.

use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use thiserror::Error;

/// The most bytes a file may unpack to; the largest known has under 100 MB.
const MAX_UNPACKED: u64 = 1 << 30;
/// First address behind what real mode reaches: FFFF:FFFF and the byte behind it.
pub const ADDRESS_LIMIT: u32 = 0x11_0000;

/// Why a file is not a MOO file.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The file cannot be read or unpacked.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// It is too big.
    #[error("unpacks to more than {MAX_UNPACKED} bytes")]
    TooBig,
    /// No MOO header.
    #[error("is no MOO file: it begins with {0:02X?}, not \"MOO \"")]
    Magic(Vec<u8>),
    /// A chunk or field ends behind its surroundings.
    #[error("{what} at byte {at:#x} of the unpacked file is truncated")]
    Truncated {
        /// The chunk or field.
        what: &'static str,
        /// Offset in the unpacked file.
        at: usize,
    },
    /// A test lacks a part.
    #[error("test {index} at byte {at:#x} has no {what}")]
    Missing {
        /// Index of the test.
        index: u32,
        /// Offset in the unpacked file.
        at: usize,
        /// The part.
        what: &'static str,
    },
    /// Tests of a CPU that is not supported.
    #[error("holds tests of CPU {0:?}; only 8086-class and 80286 tests (16-bit registers) run")]
    Cpu(String),
    /// Fewer or more tests than the header says.
    #[error("holds {found} tests, its header says {promised}")]
    Count {
        /// In the header.
        promised: u32,
        /// Found.
        found: usize,
    },
    /// An address that real mode cannot produce.
    #[error("test {index}: address {address:#x} is beyond real mode")]
    Address {
        /// Index of the test.
        index: u32,
        /// The address.
        address: u32,
    },
}

/// A file of tests.
#[derive(Clone, Debug)]
pub struct MooFile {
    /// Four characters, such as `C286`.
    pub cpu: String,
    /// The tests in order.
    pub tests: Vec<Test>,
}

/// Registers by position in [`Registers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Reg {
    Ax,
    Bx,
    Cx,
    Dx,
    Cs,
    Ss,
    Ds,
    Es,
    Sp,
    Bp,
    Si,
    Di,
    Ip,
    Flags,
}

impl Reg {
    /// All, in the format's order.
    pub const ALL: [Reg; 14] = [
        Reg::Ax,
        Reg::Bx,
        Reg::Cx,
        Reg::Dx,
        Reg::Cs,
        Reg::Ss,
        Reg::Ds,
        Reg::Es,
        Reg::Sp,
        Reg::Bp,
        Reg::Si,
        Reg::Di,
        Reg::Ip,
        Reg::Flags,
    ];
}

/// Register values, for those that are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers(pub [Option<u16>; 14]);

impl Registers {
    /// A register's value, if given.
    pub fn get(&self, r: Reg) -> Option<u16> {
        self.0[r as usize]
    }
}

/// Registers and memory bytes.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Registers.
    pub registers: Registers,
    /// Bytes by physical address, below [`ADDRESS_LIMIT`].
    pub ram: Vec<(u32, u8)>,
}

/// The exception that a test ends in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Vector.
    pub vector: u8,
    /// Address of the pushed FLAGS.
    pub flags_address: u32,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Test {
    /// Index in the whole set's file.
    pub index: u32,
    /// Disassembly.
    pub name: String,
    /// The instruction's bytes and the HLT behind them.
    pub bytes: Vec<u8>,
    /// Before. All registers are given.
    pub initial: State,
    /// After: what changed.
    pub last: State,
    /// The exception, if it ends in one.
    pub exception: Option<Exception>,
}

/// Reads a file, gzipped or plain.
///
/// # Errors
/// [`FormatError`].
pub fn read(path: &Path) -> Result<MooFile, FormatError> {
    let mut raw = Vec::new();
    let mut file = File::open(path)?.take(MAX_UNPACKED + 1);
    file.read_to_end(&mut raw)?;
    if raw.starts_with(&[0x1F, 0x8B]) {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(raw.as_slice()).take(MAX_UNPACKED + 1).read_to_end(&mut unpacked)?;
        raw = unpacked;
    }
    if raw.len() as u64 > MAX_UNPACKED {
        return Err(FormatError::TooBig);
    }
    parse(&raw)
}

/// Parses an unpacked file.
///
/// # Errors
/// [`FormatError`].
pub fn parse(data: &[u8]) -> Result<MooFile, FormatError> {
    let mut file = Cursor { data, at: 0 };
    if !data.starts_with(b"MOO ") {
        return Err(FormatError::Magic(data.iter().copied().take(4).collect()));
    }
    let (_, mut header) = file.chunk("the header")?;
    header.bytes(4, "the version")?;
    let promised = header.u32("the test count")?;
    let cpu = String::from_utf8_lossy(header.bytes(4, "the CPU name")?).into_owned();
    let mut tests = Vec::new();
    while !file.at_end() {
        let (tag, payload) = file.chunk("a chunk")?;
        if tag == *b"TEST" {
            tests.push(test(payload, &cpu)?);
        }
    }
    if tests.len() != promised as usize {
        return Err(FormatError::Count { promised, found: tests.len() });
    }
    Ok(MooFile { cpu, tests })
}

fn test(mut payload: Cursor, cpu: &str) -> Result<Test, FormatError> {
    let at = payload.at;
    let index = payload.u32("a test's index")?;
    let (mut name, mut bytes) = (String::new(), None);
    let (mut initial, mut last, mut exception) = (None, None, None);
    while !payload.at_end() {
        let (tag, mut part) = payload.chunk("a part of a test")?;
        match &tag {
            b"NAME" => name = String::from_utf8_lossy(part.counted("a name")?).into_owned(),
            b"BYTS" => bytes = Some(part.counted("the instruction bytes")?.to_vec()),
            b"INIT" => initial = Some(state(part, index, cpu)?),
            b"FINA" => last = Some(state(part, index, cpu)?),
            b"EXCP" => {
                let vector = part.bytes(1, "an exception's vector")?[0];
                let flags_address = part.u32("the address of the pushed flags")?;
                exception = Some(Exception { vector, flags_address });
            }
            _ => {}
        }
    }
    let missing = |what| FormatError::Missing { index, at, what };
    let initial = initial.ok_or(missing("initial state (INIT)"))?;
    if initial.registers.0.contains(&None) {
        return Err(missing("complete initial registers"));
    }
    Ok(Test {
        index,
        name,
        bytes: bytes.ok_or(missing("instruction bytes (BYTS)"))?,
        initial,
        last: last.ok_or(missing("final state (FINA)"))?,
        exception,
    })
}

fn state(mut payload: Cursor, index: u32, cpu: &str) -> Result<State, FormatError> {
    let mut state = State::default();
    while !payload.at_end() {
        let (tag, mut part) = payload.chunk("a part of a state")?;
        match &tag {
            b"REGS" => {
                let mask = part.u16("the register mask")?;
                for (i, slot) in state.registers.0.iter_mut().enumerate() {
                    if mask >> i & 1 != 0 {
                        *slot = Some(part.u16("a register")?);
                    }
                }
            }
            b"RG32" => return Err(FormatError::Cpu(cpu.to_owned())),
            b"RAM " => {
                for _ in 0..part.u32("the number of memory bytes")? {
                    let address = part.u32("an address")?;
                    if address >= ADDRESS_LIMIT {
                        return Err(FormatError::Address { index, address });
                    }
                    state.ram.push((address, part.bytes(1, "a memory byte")?[0]));
                }
            }
            _ => {}
        }
    }
    Ok(state)
}

/// A piece of the file that is read front to back.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    /// The file up to the end of the piece, so that `at` is an offset in the file.
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn at_end(&self) -> bool {
        self.at >= self.data.len()
    }

    fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.data.len());
        let end = end.ok_or(FormatError::Truncated { what, at: self.at })?;
        let found = &self.data[self.at..end];
        self.at = end;
        Ok(found)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, FormatError> {
        let b = self.bytes(2, what)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        let b = self.bytes(4, what)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Bytes behind their 32-bit count.
    fn counted(&mut self, what: &'static str) -> Result<&'a [u8], FormatError> {
        let len = self.u32(what)?;
        self.bytes(len as usize, what)
    }

    fn chunk(&mut self, what: &'static str) -> Result<([u8; 4], Cursor<'a>), FormatError> {
        let tag = self.bytes(4, what)?;
        let tag = [tag[0], tag[1], tag[2], tag[3]];
        let len = self.u32(what)? as usize;
        let start = self.at;
        self.bytes(len, what)?;
        Ok((tag, Cursor { data: &self.data[..self.at], at: start }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(tag: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = tag.to_vec();
        out.extend((payload.len() as u32).to_le_bytes());
        out.extend(payload);
        out
    }

    fn sample() -> Vec<u8> {
        let mut regs = 0x3FFFu16.to_le_bytes().to_vec();
        for i in 0..14u16 {
            regs.extend((i * 0x101).to_le_bytes());
        }
        let ram = [1u32.to_le_bytes().as_slice(), &0x1234u32.to_le_bytes(), &[0x90]].concat();
        let init = [chunk(b"REGS", &regs), chunk(b"WHAT", b"?"), chunk(b"RAM ", &ram)].concat();
        let last = chunk(b"REGS", &[1, 0, 0x34, 0x12]);
        let test = [
            7u32.to_le_bytes().to_vec(),
            chunk(b"NAME", &[3, 0, 0, 0, b'n', b'o', b'p']),
            chunk(b"BYTS", &[2, 0, 0, 0, 0x90, 0xF4]),
            chunk(b"INIT", &init),
            chunk(b"FINA", &last),
            chunk(b"EXCP", &[13, 0, 0, 1, 0]),
        ]
        .concat();
        let header = [&[1, 0, 0, 0][..], &1u32.to_le_bytes(), b"C286"].concat();
        [chunk(b"MOO ", &header), chunk(b"META", b""), chunk(b"TEST", &test)].concat()
    }

    #[test]
    fn parses_a_test() {
        let file = parse(&sample()).expect("valid");
        assert_eq!(file.cpu, "C286");
        let test = &file.tests[0];
        assert_eq!((test.index, test.name.as_str()), (7, "nop"));
        assert_eq!(test.bytes, [0x90, 0xF4]);
        assert_eq!(test.initial.registers.get(Reg::Flags), Some(13 * 0x101));
        assert_eq!(test.initial.ram, [(0x1234, 0x90)]);
        assert_eq!(test.last.registers.get(Reg::Ax), Some(0x1234));
        assert_eq!(test.last.registers.get(Reg::Bx), None);
        assert_eq!(test.exception, Some(Exception { vector: 13, flags_address: 0x10000 }));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = sample();
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
        }
    }

    #[test]
    fn corrupt_bytes_never_panic() {
        let whole = sample();
        for at in 0..whole.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut bad = whole.clone();
                bad[at] = value;
                let _ = parse(&bad);
            }
        }
    }
}
