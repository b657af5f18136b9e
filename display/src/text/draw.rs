//! A picture of the text screen in the terminal, kept up to date with as little output as can be.

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::queue;
use crossterm::style::{
    Attribute, Color, Print, SetAttribute, SetBackgroundColor, SetForegroundColor,
};
use crossterm::terminal::{Clear, ClearType};
use devices::vga::{BLINKING, TextCells};
use std::io;

/// A cell as it stands in the terminal.
type Cell = (char, u16);

/// The IBM colors by number, as terminals name them.
const COLORS: [Color; 16] = [
    Color::Black,
    Color::DarkBlue,
    Color::DarkGreen,
    Color::DarkCyan,
    Color::DarkRed,
    Color::DarkMagenta,
    Color::DarkYellow,
    Color::Grey,
    Color::DarkGrey,
    Color::Blue,
    Color::Green,
    Color::Cyan,
    Color::Red,
    Color::Magenta,
    Color::Yellow,
    Color::White,
];
/// Grey on black: notices.
const PLAIN: u16 = 0x07;

/// Draws into a terminal, and remembers what stands there.
#[derive(Debug, Default)]
pub struct Painter {
    columns: usize,
    rows: usize,
    cells: Vec<Cell>,
    cursor: Option<(usize, usize)>,
    /// The terminal's content is unknown.
    stale: bool,
}

impl Painter {
    /// A painter for a terminal of this size. Nothing is known of its content.
    pub fn new(columns: usize, rows: usize) -> Self {
        let mut painter = Self::default();
        painter.resize(columns, rows);
        painter
    }

    /// The terminal has another size, and unknown content.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        (self.columns, self.rows) = (columns, rows);
        self.cells = vec![(' ', PLAIN); columns.saturating_mul(rows)];
        self.stale = true;
    }

    /// The next picture is drawn in full.
    pub fn redraw(&mut self) {
        self.resize(self.columns, self.rows);
    }

    /// Output that makes the terminal show `screen`. Where it does not fit, the part around the
    /// cursor shows.
    pub fn screen(&mut self, screen: &TextCells) -> Vec<u8> {
        let top = match screen.cursor {
            Some((_, row)) if screen.rows > self.rows => (row + 1).saturating_sub(self.rows),
            _ => 0,
        };
        let mut wanted = vec![(' ', PLAIN); self.cells.len()];
        let lines = screen.cells.chunks(screen.columns.max(1)).skip(top);
        for (target, line) in wanted.chunks_mut(self.columns.max(1)).zip(lines) {
            for (to, from) in target.iter_mut().zip(line) {
                *to = *from;
            }
        }
        let cursor = screen
            .cursor
            .and_then(|(column, row)| Some((column, row.checked_sub(top)?)))
            .filter(|&(column, row)| column < self.columns && row < self.rows);
        self.paint(wanted, cursor)
    }

    /// Output that makes the terminal show these lines and nothing else.
    pub fn notice(&mut self, lines: &[String]) -> Vec<u8> {
        let mut wanted = vec![(' ', PLAIN); self.cells.len()];
        for (target, line) in wanted.chunks_mut(self.columns.max(1)).zip(lines) {
            for (to, from) in target.iter_mut().zip(line.chars()) {
                *to = (from, PLAIN);
            }
        }
        self.paint(wanted, None)
    }

    fn paint(&mut self, wanted: Vec<Cell>, cursor: Option<(usize, usize)>) -> Vec<u8> {
        let mut output = Vec::new();
        // Writing to a vector does not fail.
        let _ = self.write(&mut output, &wanted, cursor);
        self.cells = wanted;
        self.cursor = cursor;
        self.stale = false;
        output
    }

    fn write(
        &self,
        output: &mut Vec<u8>,
        wanted: &[Cell],
        cursor: Option<(usize, usize)>,
    ) -> io::Result<()> {
        if self.stale {
            let attribute = SetAttribute(Attribute::NoBlink);
            queue!(output, attribute, SetBackgroundColor(Color::Black), Clear(ClearType::All))?;
        }
        // Where the terminal's own cursor is, and the attribute that it writes with.
        let (mut at, mut attribute, mut blinking) = (None, None, false);
        for (index, (new, old)) in wanted.iter().zip(&self.cells).enumerate() {
            if new == old && !self.stale {
                continue;
            }
            let place = (index % self.columns, index / self.columns);
            if output.is_empty() || at.is_none() {
                queue!(output, Hide)?;
            }
            if at != Some(place) {
                queue!(output, MoveTo(place.0 as u16, place.1 as u16))?;
            }
            if attribute != Some(new.1) {
                let color = |number: u16| COLORS[usize::from(number & 15)];
                if blinking != (new.1 & BLINKING != 0) {
                    blinking = !blinking;
                    let blink = if blinking { Attribute::SlowBlink } else { Attribute::NoBlink };
                    queue!(output, SetAttribute(blink))?;
                }
                queue!(
                    output,
                    SetForegroundColor(color(new.1)),
                    SetBackgroundColor(color(new.1 >> 4))
                )?;
                attribute = Some(new.1);
            }
            queue!(output, Print(new.0))?;
            // In the last column terminals differ in where their cursor is.
            at = Some((place.0 + 1, place.1)).filter(|place| place.0 < self.columns);
            if at.is_none() {
                at = Some((usize::MAX, usize::MAX));
            }
        }
        if blinking {
            queue!(output, SetAttribute(Attribute::NoBlink))?;
        }
        let moved = at.is_some() || cursor != self.cursor || self.stale;
        match cursor {
            Some((column, row)) if moved => {
                queue!(output, MoveTo(column as u16, row as u16), Show)?;
            }
            None if moved => queue!(output, Hide)?,
            Some(_) | None => {}
        }
        Ok(())
    }
}
