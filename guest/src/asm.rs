//! The assembler the guest is written in: iced-x86 with names, strings and checks.
//!
//! One [`Asm`] assembles one [`Section`]. Sections refer to each other by name, also forwards,
//! as in any two-pass assembler: [`Asm::addr`] answers with the address the *previous* pass found,
//! and [`crate::build`] repeats the passes until no address moves.
//!
//! The kernel's source reads as an assembly listing, through the [`asm!`] macro:
//!
//! ```text
//! asm!(a;
//!     label "serial.put_char";        // a label; ".name" is local to the last one without a dot
//!     mov dx, COM1;                   // any method of iced's CodeAssembler
//!     call "serial.wait";             // branches take label names
//!     print "text";                   // the methods below, too
//! );
//! ```

use crate::layout::{Mode, SECTIONS, Section};
use crate::{Error, Options};
use iced_x86::code_asm::{CodeAssembler, CodeLabel, get_gpr64};
use iced_x86::{BlockEncoderOptions, Code, Instruction, Register};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

/// Addresses by full name, `section/label`, as the last pass found them.
pub(crate) type Symbols = BTreeMap<String, u64>;

/// Assembles a listing: `asm!(a; mov eax, 1; ret;)`.
///
/// Each line becomes a method call on `a`; its operands are evaluated first, so that they may ask
/// `a` for addresses. Expands to code that uses `?`.
macro_rules! asm {
    ($a:ident; $($op:ident $($operand:expr),* ;)*) => {{
        $( $crate::asm::line!($a $op $($operand),*); )*
    }};
}

/// One line of [`asm!`].
macro_rules! line {
    ($a:ident $op:ident) => {
        $a.$op()?
    };
    ($a:ident $op:ident $one:expr) => {{
        let one = $one;
        $a.$op(one)?
    }};
    ($a:ident $op:ident $one:expr, $two:expr) => {{
        let (one, two) = ($one, $two);
        $a.$op(one, two)?
    }};
    ($a:ident $op:ident $one:expr, $two:expr, $three:expr) => {{
        let (one, two, three) = ($one, $two, $three);
        $a.$op(one, two, three)?
    }};
}

pub(crate) use {asm, line};

/// A label's iced handle, and whether `label` has placed it.
#[derive(Clone, Copy)]
struct Label {
    handle: CodeLabel,
    placed: bool,
}

/// What is next on the serial port.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// A line that begins so.
    Line(String),
    /// Everything that another section has to say: control goes there.
    Section(&'static str),
}

/// What one pass over one section produced.
pub(crate) struct Assembled {
    /// Code, then data, from the section's origin.
    pub(crate) bytes: Vec<u8>,
    /// Address of every label and datum, by full name.
    pub(crate) symbols: Symbols,
    /// Full names of labels local to another, which are no use outside.
    pub(crate) locals: BTreeSet<String>,
    /// Names that [`Asm::addr`] was asked for and the last pass did not know.
    pub(crate) unknown: Vec<String>,
    /// What the section prints, in order.
    pub(crate) transcript: Vec<Expected>,
    /// How many checks it contains.
    pub(crate) checks: u32,
}

/// Assembler of one section. Dereferences to iced's [`CodeAssembler`].
pub(crate) struct Asm<'a> {
    code: CodeAssembler,
    section: &'static Section,
    options: &'a Options,
    known: &'a Symbols,
    unknown: Vec<String>,
    labels: BTreeMap<String, Label>,
    scope: String,
    data: Vec<u8>,
    data_symbols: Symbols,
    transcript: Vec<Expected>,
    checks: u32,
}

impl Deref for Asm<'_> {
    type Target = CodeAssembler;
    fn deref(&self) -> &CodeAssembler {
        &self.code
    }
}

impl DerefMut for Asm<'_> {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.code
    }
}

impl<'a> Asm<'a> {
    /// Starts a pass over `section`; `known` holds the addresses of the pass before.
    pub(crate) fn new(
        section: &'static Section,
        options: &'a Options,
        known: &'a Symbols,
    ) -> Result<Self, Error> {
        Ok(Self {
            code: CodeAssembler::new(section.mode.bitness())?,
            section,
            options,
            known,
            unknown: Vec::new(),
            labels: BTreeMap::new(),
            scope: String::new(),
            data: Vec::new(),
            data_symbols: Symbols::new(),
            transcript: Vec::new(),
            checks: 0,
        })
    }

    /// The mode the section runs in.
    pub(crate) fn mode(&self) -> Mode {
        self.section.mode
    }

    /// What the guest was asked to do.
    pub(crate) fn options(&self) -> &'a Options {
        self.options
    }

    /// Encodes the section.
    pub(crate) fn finish(mut self) -> Result<Assembled, Error> {
        if let Some((name, _)) = self.labels.iter().find(|(_, label)| !label.placed) {
            return Err(Error::UndefinedLabel(format!("{}/{name}", self.section.name)));
        }
        let origin = self.section.origin;
        let result = self
            .code
            .assemble_options(origin, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let mut symbols = std::mem::take(&mut self.data_symbols);
        let mut locals = BTreeSet::new();
        for (name, label) in &self.labels {
            let full = format!("{}/{name}", self.section.name);
            if name.contains(LOCAL) {
                locals.insert(full.clone());
            }
            symbols.insert(full, result.label_ip(&label.handle)?);
        }
        let mut bytes = result.inner.code_buffer;
        let data_offset = bytes.len().next_multiple_of(DATA_ALIGNMENT);
        symbols.insert(self.data_name(), origin.wrapping_add(data_offset as u64));
        bytes.resize(data_offset, 0xCC);
        bytes.extend_from_slice(&self.data);
        if bytes.len() > self.section.size {
            return Err(Error::SectionTooLarge {
                name: self.section.name,
                size: bytes.len(),
                limit: self.section.size,
            });
        }
        Ok(Assembled {
            bytes,
            symbols,
            locals,
            unknown: self.unknown,
            transcript: self.transcript,
            checks: self.checks,
        })
    }
}

/// What separates a local label from the label it belongs to in a symbol name.
const LOCAL: &str = "::";

/// Data starts on this boundary after the code and each datum on a multiple of it, bytes.
const DATA_ALIGNMENT: usize = 16;

/// Labels and addresses.
impl Asm<'_> {
    /// Places a label here.
    pub(crate) fn label(&mut self, name: &str) -> Result<(), Error> {
        if !name.starts_with('.') {
            name.clone_into(&mut self.scope);
        }
        let mut label = self.lookup(name);
        if label.placed {
            return Err(Error::DuplicateLabel(format!("{}/{name}", self.section.name)));
        }
        self.code.set_label(&mut label.handle)?;
        // A place of its own, so that two labels may share an address.
        self.code.zero_bytes()?;
        label.placed = true;
        let full = self.qualify(name);
        self.labels.insert(full, label);
        Ok(())
    }

    /// A label as a memory operand: RIP-relative, so for 64-bit code only.
    pub(crate) fn at(&mut self, name: &str) -> CodeLabel {
        self.lookup(name).handle
    }

    /// The linear address of a label or datum, as an immediate; `section/name` reaches other
    /// sections.
    pub(crate) fn addr(&mut self, name: &str) -> u64 {
        let full = if name.contains('/') {
            name.to_owned()
        } else {
            format!("{}/{}", self.section.name, self.qualify(name))
        };
        self.known.get(&full).copied().unwrap_or_else(|| {
            // The first pass: an address of the right half at least.
            let place = SECTIONS.iter().find(|section| full.starts_with(section.name));
            self.unknown.push(full);
            place.map_or(0, |section| section.origin)
        })
    }

    /// [`Asm::addr`] for 16 and 32-bit code, whose addresses end below 4 GiB, and for physical
    /// addresses of the kernel's high half, whose lower half they are but for bit 31.
    pub(crate) fn addr32(&mut self, name: &str) -> u32 {
        self.addr(name) as u32
    }

    fn qualify(&self, name: &str) -> String {
        match name.strip_prefix('.') {
            Some(local) => format!("{}{LOCAL}{local}", self.scope),
            None => name.to_owned(),
        }
    }

    fn lookup(&mut self, name: &str) -> Label {
        let full = self.qualify(name);
        if let Some(label) = self.labels.get(&full) {
            return *label;
        }
        let label = Label { handle: self.code.create_label(), placed: false };
        self.labels.insert(full, label);
        label
    }

    fn data_name(&self) -> String {
        format!("{}/data", self.section.name)
    }
}

/// Branches, which take a label's name.
macro_rules! branches {
    ($($name:ident)*) => { impl Asm<'_> { $(
        #[allow(missing_docs)]
        pub(crate) fn $name(&mut self, target: &str) -> Result<(), Error> {
            let label = self.at(target);
            Ok(self.code.$name(label)?)
        }
    )* } };
}

branches!(call jmp je jne jz jnz jnc ja jae jb jbe loop_);

/// Instructions whose spelling in iced needs a word of help.
impl Asm<'_> {
    /// The LOCK prefix of the next instruction.
    pub(crate) fn lock(&mut self) -> Result<(), Error> {
        let _ = self.code.lock();
        Ok(())
    }

    /// The REP prefix of the next instruction.
    pub(crate) fn rep(&mut self) -> Result<(), Error> {
        let _ = self.code.rep();
        Ok(())
    }

    /// The REPE prefix of the next instruction.
    pub(crate) fn repe(&mut self) -> Result<(), Error> {
        let _ = self.code.repe();
        Ok(())
    }

    /// Far jump from 16-bit code to a 32-bit offset, `66 EA`.
    pub(crate) fn jmp_far32(&mut self, selector: u16, offset: u32) -> Result<(), Error> {
        let jump = Instruction::with_far_branch(Code::Jmp_ptr1632, selector, offset)?;
        Ok(self.code.add_instruction(jump)?)
    }

    /// Pushes a constant, in the section's own operand size (64-bit code: sign-extended).
    pub(crate) fn push_immediate(&mut self, value: u32) -> Result<(), Error> {
        match self.bitness() {
            64 => Ok(self.code.push(value as i32)?),
            _ => Ok(self.code.push(value)?),
        }
    }

    /// Far return with 64-bit operands.
    pub(crate) fn retfq(&mut self) -> Result<(), Error> {
        Ok(self.code.add_instruction(Instruction::with(Code::Retfq))?)
    }

    /// Near jump to the address in a 64-bit register.
    pub(crate) fn jmp_register(&mut self, register: impl Into<Register>) -> Result<(), Error> {
        let jump = Instruction::with1(Code::Jmp_rm64, register.into())?;
        Ok(self.code.add_instruction(jump)?)
    }

    /// Pushes every general register, in the order of [`crate::interrupts`]'s trap frame; in 16
    /// and 32-bit code that is PUSHAD.
    pub(crate) fn push_all(&mut self) -> Result<(), Error> {
        if self.bitness() != 64 {
            return Ok(self.code.pushad()?);
        }
        for register in GENERAL_REGISTERS {
            self.push_register(register)?;
        }
        Ok(())
    }

    /// Undoes [`Asm::push_all`].
    pub(crate) fn pop_all(&mut self) -> Result<(), Error> {
        if self.bitness() != 64 {
            return Ok(self.code.popad()?);
        }
        for register in GENERAL_REGISTERS.into_iter().rev() {
            let Some(register) = get_gpr64(register) else { continue };
            self.code.pop(register)?;
        }
        Ok(())
    }

    fn push_register(&mut self, register: Register) -> Result<(), Error> {
        match get_gpr64(register) {
            Some(register) => Ok(self.code.push(register)?),
            None => Ok(()),
        }
    }
}

/// The general registers but RSP, first pushed first.
pub(crate) const GENERAL_REGISTERS: [Register; 15] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Data, which follows the section's code.
impl Asm<'_> {
    /// Adds bytes under a name and returns their address.
    pub(crate) fn datum(&mut self, name: &str, bytes: &[u8]) -> u64 {
        let address = self.anonymous(bytes);
        self.data_symbols.insert(format!("{}/{name}", self.section.name), address);
        address
    }

    /// Adds a zeroed quadword, the guest's unit of variable, and returns its address.
    pub(crate) fn variable(&mut self, name: &str) -> u64 {
        self.datum(name, &[0; 8])
    }

    /// Adds a NUL-terminated string and returns its address.
    pub(crate) fn string(&mut self, text: &str) -> u64 {
        self.anonymous(&[text.as_bytes(), &[0]].concat())
    }

    fn anonymous(&mut self, bytes: &[u8]) -> u64 {
        let data = self.data_name();
        let base = self.addr(&data);
        self.data.resize(self.data.len().next_multiple_of(DATA_ALIGNMENT), 0);
        let address = base.wrapping_add(self.data.len() as u64);
        self.data.extend_from_slice(bytes);
        address
    }

    /// Notes that the guest prints a line that starts so, next.
    pub(crate) fn expect_line(&mut self, line: &str) {
        self.transcript.push(Expected::Line(line.to_owned()));
    }

    /// Notes that control goes to another section, here and nowhere else.
    pub(crate) fn expect_section(&mut self, name: &'static str) {
        self.transcript.push(Expected::Section(name));
    }

    /// Counts one more check and notes its line.
    pub(crate) fn expect_check(&mut self, line: &str) {
        self.checks += 1;
        self.expect_line(line);
    }
}
