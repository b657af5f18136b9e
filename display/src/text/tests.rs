use super::*;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use devices::vga::{BLINKING, TextCells};

fn screen(columns: usize, text: &[&str]) -> TextCells {
    let cells = text
        .iter()
        .flat_map(|line| line.chars().chain(std::iter::repeat(' ')).take(columns))
        .map(|character| (character, 0x07))
        .collect();
    TextCells { columns, rows: text.len(), cells, cursor: Some((0, 0)) }
}

fn text(output: Vec<u8>) -> String {
    String::from_utf8(output).unwrap()
}

#[test]
fn only_changes_are_drawn() {
    let mut painter = Painter::new(10, 3);
    let mut shown = screen(10, &["hello", "╔═╗", ""]);
    let first = text(painter.screen(&shown));
    assert!(first.contains("hello") && first.contains("╔═╗"), "{first:?}");
    assert_eq!(text(painter.screen(&shown)), "");
    shown.cells[1].0 = 'a';
    assert_eq!(
        text(painter.screen(&shown)),
        "\x1b[?25l\x1b[1;2H\x1b[38;5;7m\x1b[48;5;0ma\x1b[1;1H\x1b[?25h"
    );
    shown.cursor = Some((4, 2));
    assert_eq!(text(painter.screen(&shown)), "\x1b[3;5H\x1b[?25h");
    shown.cursor = None;
    assert_eq!(text(painter.screen(&shown)), "\x1b[?25l");
}

#[test]
fn colors_are_ibms() {
    let mut painter = Painter::new(2, 1);
    let cells = vec![('x', 0x1e), ('y', 0x1e)];
    let output = text(painter.screen(&TextCells { columns: 2, rows: 1, cells, cursor: None }));
    assert!(output.contains("\x1b[38;5;11m\x1b[48;5;4mxy"), "{output:?}");
}

#[test]
fn what_blinks_blinks_in_the_terminal() {
    let mut painter = Painter::new(3, 1);
    let cells = vec![('x', 0x07), ('y', 0x07 | BLINKING), ('z', 0x07)];
    let mut shown = TextCells { columns: 3, rows: 1, cells, cursor: None };
    let output = text(painter.screen(&shown));
    let colors = "\x1b[38;5;7m\x1b[48;5;0m";
    assert!(output.contains(&format!("x\x1b[5m{colors}y\x1b[25m{colors}z")), "{output:?}");
    // The terminal does not stay blinking.
    shown.cells[2].1 |= BLINKING;
    let output = text(painter.screen(&shown));
    assert!(output.contains("\x1b[5m") && output.ends_with("\x1b[25m\x1b[?25l"), "{output:?}");
}

#[test]
fn a_small_terminal_shows_what_is_around_the_cursor() {
    let mut painter = Painter::new(3, 2);
    let mut shown = screen(5, &["one", "two", "three", "four"]);
    shown.cursor = Some((0, 3));
    let output = text(painter.screen(&shown));
    assert!(output.contains("thr") && output.contains("fou") && !output.contains("two"));
    assert!(!output.contains("three"));
    // No terminal at all is no reason to panic.
    Painter::new(0, 0).screen(&shown);
    Painter::new(0, 0).notice(&["x".into()]);
}

#[test]
fn a_notice_takes_the_whole_screen() {
    let mut painter = Painter::new(8, 2);
    painter.screen(&screen(8, &["abc", "def"]));
    let output = text(painter.notice(&["graphics".into()]));
    assert!(output.contains("graphics") && !output.contains('d'), "{output:?}");
}

#[test]
fn keys_become_scan_codes() {
    let mut keyboard = Keyboard::default();
    let mut keys = |code, modifiers| match keyboard.press(&KeyEvent::new(code, modifiers)) {
        Some(Press::Keys(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(keys(KeyCode::Char('a'), KeyModifiers::NONE), [0x1c, 0xf0, 0x1c]);
    assert_eq!(
        keys(KeyCode::Char('c'), KeyModifiers::CONTROL),
        [0x14, 0x21, 0xf0, 0x21, 0xf0, 0x14]
    );
    assert_eq!(keys(KeyCode::F(1), KeyModifiers::ALT), [0x11, 0x05, 0xf0, 0x05, 0xf0, 0x11]);
    assert_eq!(keys(KeyCode::Char('A'), KeyModifiers::SHIFT), [0x12, 0x1c, 0xf0, 0x1c, 0xf0, 0x12]);
    assert_eq!(
        keys(KeyCode::Up, KeyModifiers::SHIFT),
        [0x12, 0xe0, 0x75, 0xe0, 0xf0, 0x75, 0xf0, 0x12]
    );
    assert_eq!(keyboard.press(&KeyEvent::new(KeyCode::Char('é'), KeyModifiers::NONE)), None);
}

#[test]
fn ctrl_a_speaks_to_ringshift() {
    let mut keyboard = Keyboard::default();
    let prefix = KeyEvent::new(KeyCode::Char('a'), KeyModifiers::CONTROL);
    let mut after = |code| {
        assert_eq!(keyboard.press(&prefix), None);
        keyboard.press(&KeyEvent::new(code, KeyModifiers::NONE))
    };
    assert_eq!(after(KeyCode::Char('x')), Some(Press::Action(Action::Quit)));
    assert_eq!(after(KeyCode::Char('H')), Some(Press::Action(Action::Help)));
    assert_eq!(after(KeyCode::Char('p')), Some(Press::Action(Action::PowerButton)));
    assert_eq!(after(KeyCode::Char('q')), None);
    let Some(Press::Keys(bytes)) = after(KeyCode::Char('c')) else { panic!() };
    assert_eq!(bytes, [0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14]);
    assert_eq!(keyboard.press(&prefix), None);
    assert!(matches!(keyboard.press(&prefix), Some(Press::Keys(_))), "doubled: one for the guest");
}
