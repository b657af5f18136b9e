//! The listing as text.

use super::{Explanation, HostInsn, LinkState, Piece, Purpose, Strategy};
use std::fmt;

/// Below this width guest and host code stand one below the other.
const SIDE_BY_SIDE: usize = 72;
/// The guest's column at most.
const MAX_LEFT: usize = 50;

/// How an [`Explanation`] is shown.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    explanation: &'a Explanation,
    /// Columns to fill, 40 at least.
    pub width: usize,
    /// With terminal colours.
    pub colour: bool,
    /// With the cold section and all copies of an unrolled loop.
    pub cold: bool,
    /// With the bytes of guest and host code.
    pub bytes: bool,
    /// With the words that explain the signs.
    pub legend: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    /// Headings.
    Strong,
    /// Offsets, rules, bytes.
    Dim,
    /// Names of places in code.
    Label,
    Passthrough,
    Custom,
    Helper,
}

impl Paint {
    fn of(strategy: Strategy) -> Paint {
        match strategy {
            Strategy::Passthrough => Paint::Passthrough,
            Strategy::Custom => Paint::Custom,
            Strategy::Helper => Paint::Helper,
        }
    }

    /// Parameters of SGR (ECMA-48, section 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Paint::Plain => "",
            Paint::Strong => "1",
            Paint::Dim => "2",
            Paint::Label => "36",
            Paint::Passthrough => "32",
            Paint::Custom => "33",
            Paint::Helper => "31",
        }
    }
}

/// The sign and the word for a strategy.
fn sign(strategy: Strategy) -> char {
    match strategy {
        Strategy::Passthrough => 'P',
        Strategy::Custom => 'C',
        Strategy::Helper => 'H',
    }
}

/// A line of a column: spans of text.
#[derive(Clone, Default)]
struct Cell(Vec<(String, Paint)>);

impl Cell {
    fn with(mut self, text: impl Into<String>, paint: Paint) -> Cell {
        self.0.push((text.into(), paint));
        self
    }

    fn width(&self) -> usize {
        self.0.iter().map(|span| span.0.chars().count()).sum()
    }

    /// As text of exactly `width` columns, or as it is if `width` is none. Cut where it is longer.
    fn render(&self, width: Option<usize>, colour: bool) -> String {
        let mut out = String::new();
        let limit = width.unwrap_or(usize::MAX);
        let too_long = self.width() > limit;
        let mut left = if too_long { limit - 1 } else { limit };
        for (text, paint) in &self.0 {
            let part: String = text.chars().take(left).collect();
            left -= part.chars().count();
            if colour && !paint.code().is_empty() && !part.is_empty() {
                out += &format!("\x1b[{}m{part}\x1b[0m", paint.code());
            } else {
                out += &part;
            }
        }
        if too_long {
            out.push('…');
        } else if let Some(width) = width {
            out.extend(std::iter::repeat_n(' ', width - self.width()));
        }
        out
    }
}

/// A factor of expansion.
fn factor(guest: usize, host: usize) -> String {
    format!("x{:.1}", host as f64 / guest.max(1) as f64)
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

impl<'a> View<'a> {
    pub(super) fn new(explanation: &'a Explanation) -> View<'a> {
        View { explanation, width: 100, colour: false, cold: false, bytes: false, legend: true }
    }

    fn width(&self) -> usize {
        self.width.max(40)
    }

    /// Width of the guest's column, or none where the columns do not fit side by side.
    fn left(&self) -> Option<usize> {
        (self.width() >= SIDE_BY_SIDE).then(|| (self.width() * 9 / 20).min(MAX_LEFT))
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, cell: &Cell) -> fmt::Result {
        let fits = cell.width() <= self.width();
        let text = cell.render((!fits).then(|| self.width()), self.colour);
        writeln!(f, "{}", text.trim_end())
    }

    fn wrapped(&self, f: &mut fmt::Formatter<'_>, text: &str, indent: usize) -> fmt::Result {
        let mut line = " ".repeat(indent);
        for word in text.split(' ') {
            let longer = line.chars().count() + 1 + word.chars().count();
            if line.chars().count() > indent && longer > self.width() {
                writeln!(f, "{line}")?;
                line = " ".repeat(indent);
            } else if line.chars().count() > indent {
                line.push(' ');
            }
            line.push_str(word);
        }
        writeln!(f, "{line}")
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.explanation;
        let title = format!("Block at {:#x}", e.linear);
        let gpa = e.gpa.map_or(String::new(), |gpa| format!("  (physical {gpa:#x})"));
        self.line(f, &Cell::default().with(title, Paint::Strong).with(gpa, Paint::Dim))?;
        self.wrapped(f, &e.mode, 2)?;
        let ((count, hot), (_, cold)) = (e.host_size(false), e.host_size(true));
        let (guest, copies) = (e.guest.len(), e.copies);
        let bytes = e.guest_bytes();
        let unrolled =
            if copies > 1 { format!(" (laid out {copies} times)") } else { String::new() };
        self.wrapped(
            f,
            &format!(
                "guest {}, {bytes} bytes{unrolled} → host {count}, {hot} bytes: {} and {}, \
                 {cold} more bytes in the cold section",
                plural(guest, "instruction"),
                factor(guest * copies, count),
                factor(bytes * copies, hot),
            ),
            2,
        )?;
        let of = |strategy| e.count(strategy);
        self.wrapped(
            f,
            &format!(
                "{} as copies, {} by hand, {} by helpers",
                of(Strategy::Passthrough),
                of(Strategy::Custom),
                of(Strategy::Helper)
            ),
            2,
        )
    }

    /// The guest's side of a piece of code, line by line.
    fn guest_cells(&self, piece: &Piece) -> Vec<Cell> {
        let e = self.explanation;
        let Purpose::Instruction(index) = piece.purpose else {
            let words = match piece.purpose {
                Purpose::End => "goes on behind the block".into(),
                other => in_words(other),
            };
            return vec![Cell::default().with("     ", Paint::Plain).with(words, Paint::Dim)];
        };
        let insn = e.guest(index);
        let paint = Paint::of(insn.strategy);
        let mut cells = vec![
            Cell::default()
                .with(format!("{:>2} ", index + 1), Paint::Dim)
                .with(sign(insn.strategy).to_string(), paint)
                .with(format!(" {:04x} ", insn.rip & 0xFFFF), Paint::Dim)
                .with(insn.text.clone(), paint),
        ];
        if self.bytes {
            let bytes = hex(&insn.bytes);
            cells.push(Cell::default().with(format!("          {bytes}"), Paint::Dim));
        }
        let (guest, host) = (insn.bytes.len(), piece.size());
        let sizes = match piece.lines.len() {
            0 => "becomes nothing".into(),
            1 => return cells,
            lines => format!("1→{lines} insns, {guest}→{host} bytes ({})", factor(guest, host)),
        };
        cells.push(Cell::default().with(format!("          {sizes}"), Paint::Dim));
        cells
    }

    /// The host's side.
    fn host_cells(&self, piece: &Piece) -> Vec<Cell> {
        let strategy = match piece.purpose {
            Purpose::Instruction(index) => Some(self.explanation.guest(index).strategy),
            _ => None,
        };
        let mut cells = Vec::new();
        for line in &piece.lines {
            // Those of instructions are their numbers.
            let number = piece.purpose.label();
            let label =
                line.label.as_ref().filter(|label| **label != number || piece.purpose.is_cold());
            if let Some(label) = label.filter(|_| !matches!(piece.purpose, Purpose::End)) {
                cells.push(Cell::default().with(format!("{label}:"), Paint::Label));
            }
            cells.push(host_cell(line, strategy));
            if self.bytes {
                let bytes = format!("       {}", hex(&line.bytes));
                cells.push(Cell::default().with(bytes, Paint::Dim));
            }
        }
        cells
    }

    fn piece(&self, f: &mut fmt::Formatter<'_>, piece: &Piece) -> fmt::Result {
        let (guest, host) = (self.guest_cells(piece), self.host_cells(piece));
        let Some(left) = self.left() else {
            for cell in &guest {
                self.line(f, cell)?;
            }
            for cell in host {
                let indented = Cell(vec![("    ".into(), Paint::Plain)]);
                self.line(f, &Cell([indented.0, cell.0].concat()))?;
            }
            return Ok(());
        };
        let right = self.width() - left - 3;
        let bar = Cell::default().with(" │ ", Paint::Dim).render(None, self.colour);
        for row in 0..guest.len().max(host.len()) {
            let cell = |cells: &[Cell]| cells.get(row).cloned().unwrap_or_default();
            let guest = cell(&guest).render(Some(left), self.colour);
            let host = cell(&host);
            let host = host.render((host.width() > right).then_some(right), self.colour);
            writeln!(f, "{}", format!("{guest}{bar}{host}").trim_end())?;
        }
        Ok(())
    }

    fn rule(&self, f: &mut fmt::Formatter<'_>, middle: char) -> fmt::Result {
        let text = match self.left() {
            None => "─".repeat(self.width()),
            Some(left) => {
                format!("{}{middle}{}", "─".repeat(left + 1), "─".repeat(self.width() - left - 2))
            }
        };
        self.line(f, &Cell::default().with(text, Paint::Dim))
    }

    fn columns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(left) = self.left() else { return self.rule(f, '─') };
        let head = |text: &str| Cell::default().with(text.to_owned(), Paint::Strong);
        let guest = head(" #   addr guest").render(Some(left), self.colour);
        let bar = Cell::default().with(" │ ", Paint::Dim).render(None, self.colour);
        let host = head("offs   host").render(None, self.colour);
        writeln!(f, "{guest}{bar}{host}")?;
        self.rule(f, '┼')
    }

    fn code(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.explanation;
        let hot: Vec<_> = e.pieces.iter().filter(|piece| !piece.purpose.is_cold()).collect();
        let is_later_copy = |piece: &Piece| match piece.purpose {
            Purpose::Instruction(index) => index >= e.guest.len(),
            _ => false,
        };
        let shown = |piece: &&&Piece| {
            let empty = piece.purpose == Purpose::Entry && piece.lines.is_empty();
            !empty && (self.cold || !is_later_copy(piece))
        };
        for piece in hot.iter().filter(shown) {
            self.piece(f, piece)?;
        }
        let later: Vec<_> = hot.iter().filter(|piece| is_later_copy(piece)).collect();
        if !later.is_empty() && !self.cold {
            let bytes: usize = later.iter().map(|piece| piece.size()).sum();
            let which =
                if e.copies == 2 { "copy 2".into() } else { format!("copies 2 to {}", e.copies) };
            let words = format!("     {which} of the loop: {bytes} bytes more, as above");
            self.line(f, &Cell::default().with(words, Paint::Dim))?;
        }
        self.rule(f, '┴')
    }

    fn cold_section(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.explanation;
        let cold: Vec<_> = e.pieces.iter().filter(|piece| piece.purpose.is_cold()).collect();
        if cold.is_empty() {
            return Ok(());
        }
        let (count, bytes) = e.host_size(true);
        let head = Cell::default().with("Cold section", Paint::Strong);
        let sizes = format!(": {}, {bytes} bytes", plural(count, "instruction"));
        if !self.cold {
            let has = |wanted: fn(Purpose) -> bool| {
                cold.iter().filter(|piece| wanted(piece.purpose)).count()
            };
            let kinds = [
                (has(|p| matches!(p, Purpose::SlowPath(_))), "slow path"),
                (has(|p| matches!(p, Purpose::SideExit(_))), "side exit"),
                (has(|p| p == Purpose::Poll), "poll"),
                (has(|p| p == Purpose::StackFull), "stack reset"),
                (has(|p| matches!(p, Purpose::LoadVectors | Purpose::LoadX87)), "register load"),
                (has(|p| matches!(p, Purpose::Trampoline(_))), "trampoline"),
            ];
            let kinds: Vec<_> = (kinds.iter().filter(|kind| kind.0 != 0))
                .map(|&(count, word)| plural(count, word))
                .collect();
            self.line(f, &head.with(sizes, Paint::Plain))?;
            return self.wrapped(f, &format!("{} (--cold shows them)", kinds.join(", ")), 2);
        }
        self.line(f, &head.with(sizes, Paint::Plain))?;
        self.rule(f, '┬')?;
        for piece in cold {
            self.piece(f, piece)?;
        }
        self.rule(f, '┴')
    }

    fn links(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.explanation;
        if e.links.is_empty() {
            return Ok(());
        }
        self.line(f, &Cell::default().with("Links", Paint::Strong))?;
        for (i, &LinkState { offset, target, linked }) in e.links.iter().enumerate() {
            let (state, paint) =
                if linked { ("linked", Paint::Passthrough) } else { ("trampoline", Paint::Custom) };
            let back = if e.guest.first().is_some_and(|first| first.rip == target) {
                " (this block)"
            } else {
                ""
            };
            let place = format!("  {:<8}{offset:04x} → ", format!("link.{}", i + 1));
            let cell = Cell::default()
                .with(place, Paint::Dim)
                .with(format!("{target:#x}{back}  "), Paint::Label)
                .with(state, paint);
            self.line(f, &cell)?;
        }
        Ok(())
    }

    fn signs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f, &Cell::default().with("Legend", Paint::Strong))?;
        let rows: [(&str, Paint, &str); 7] = [
            (
                "P =",
                Paint::Passthrough,
                "the guest's own instruction, a copy of it (=) on the host CPU",
            ),
            ("C", Paint::Custom, "written by hand: what is hot and cannot be a copy"),
            ("H", Paint::Helper, "the interpreter executes it"),
            (
                "registers",
                Paint::Label,
                "as in the guest, but r9 is the guest's rsp, cpu.r9 to cpu.r11 are in memory; \
                 r10 and r11 are scratch, rsp is a host stack of expected returns",
            ),
            (
                "[tlb...]",
                Paint::Label,
                "software TLB: tags for reads and writes by privilege, and the host page",
            ),
            (
                "[budget]",
                Paint::Label,
                "instructions left, where a limit must be met exactly; [counter] counts entries \
                 elsewhere; [exit.request] is set to bring the CPU out; [flags] has saved flags",
            ),
            (
                "links",
                Paint::Label,
                "linked ones jump straight to the target's host code; a trampoline leaves to the \
                 engine, which links it",
            ),
        ];
        for (sign, paint, words) in rows {
            let mut rest = words;
            let mut first = true;
            while !rest.is_empty() {
                let room = self.width().saturating_sub(13).max(20);
                let cut = cut_at(rest, room);
                let lead = if first { format!("  {sign:<10} ") } else { " ".repeat(13) };
                let cell = Cell::default()
                    .with(lead, if first { paint } else { Paint::Plain })
                    .with(rest[..cut].to_owned(), Paint::Plain);
                self.line(f, &cell)?;
                rest = rest[cut..].trim_start();
                first = false;
            }
        }
        Ok(())
    }
}

/// Where to break a text of ASCII words so that the first part has at most `room` columns.
fn cut_at(text: &str, room: usize) -> usize {
    if text.len() <= room {
        return text.len();
    }
    text[..room].rfind(' ').unwrap_or(room)
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

/// An offset, a sign for copies, the instruction.
fn host_cell(line: &HostInsn, strategy: Option<Strategy>) -> Cell {
    let (sign, paint) = match (line.copy, strategy) {
        (true, _) => ("=", Paint::Passthrough),
        (false, Some(Strategy::Helper)) => (" ", Paint::Helper),
        (false, _) => (" ", Paint::Plain),
    };
    Cell::default()
        .with(format!("{:04x} ", line.offset), Paint::Dim)
        .with(format!("{sign} {}", line.text), paint)
}

/// What a piece that is no guest instruction is for.
fn in_words(purpose: Purpose) -> String {
    match purpose {
        Purpose::Entry => "entry: look for requests, count".into(),
        Purpose::Instruction(index) => format!("instruction {}", index + 1),
        Purpose::End => "end".into(),
        Purpose::SlowPath(index) => format!("slow path of {}", index + 1),
        Purpose::SideExit(index) => format!("{} taken: count back", index + 1),
        Purpose::Poll => "leave at the entry".into(),
        Purpose::StackFull => "host stack full: forget returns".into(),
        Purpose::Constant => "a constant, not code".into(),
        Purpose::LoadVectors => "load the vector registers".into(),
        Purpose::LoadX87 => "load the x87 state".into(),
        Purpose::Trampoline(link) => format!("link {} without a target", link + 1),
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        writeln!(f)?;
        self.columns(f)?;
        self.code(f)?;
        writeln!(f)?;
        self.cold_section(f)?;
        self.links(f)?;
        if self.legend {
            writeln!(f)?;
            self.signs(f)?;
        }
        Ok(())
    }
}
