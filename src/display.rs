//! `--display`: the guest's screen in the terminal, or for VNC clients.

use crate::console::lock;
use crate::terminal::Restorer;
use anyhow::{Context, Result, bail};
use crossterm::event::{self, Event};
use display::Source;
use display::rfb::Server;
use display::text::{Action, Keyboard, Painter, Press};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where the guest's screen shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Display {
    /// Nowhere.
    #[default]
    None,
    /// In the terminal, as text.
    Text,
    /// To VNC clients, at this address.
    Vnc(String),
}

/// The port of VNC's first display.
const VNC_PORT: u16 = 5900;
/// Between two pictures.
const FRAME_TIME: Duration = Duration::from_millis(33);
/// How often the painter looks around where nothing happens.
const IDLE_CHECK: Duration = Duration::from_secs(5);

const HELP: [&str; 9] = [
    "Ctrl-A H  this help",
    "Ctrl-A X  leave Ringshift",
    "Ctrl-A C  send Ctrl-Alt-Delete",
    "Ctrl-A P  press the power button",
    "Ctrl-A R  draw the screen again",
    "Ctrl-A Ctrl-A  send one Ctrl-A",
    "",
    "All other keys go to the guest's keyboard.",
    "Press one to go back to its screen.",
];

/// Parses the argument of `--display`.
pub(crate) fn parse(text: &str) -> Result<Display, String> {
    match text.split_once('=') {
        None if text == "none" => Ok(Display::None),
        None if text == "text" => Ok(Display::Text),
        None if text == "vnc" => Ok(Display::Vnc(format!("127.0.0.1:{VNC_PORT}"))),
        Some(("vnc", address)) if !address.is_empty() => Ok(Display::Vnc(address.into())),
        _ => Err("give none, text or vnc=ADDRESS, such as vnc=127.0.0.1:5900".into()),
    }
}

/// Starts the VNC server. Only loopback addresses are served unless `anywhere` is set: there is no
/// password.
pub(crate) fn serve(address: &str, anywhere: bool, source: Source) -> Result<Server> {
    let address = resolve(address)?;
    if !address.ip().is_loopback() && !anywhere {
        bail!(
            "--display vnc={address}: anybody who reaches this address could see the screen and type, since there is no password: use 127.0.0.1 and a tunnel, or confirm with --vnc-anywhere"
        );
    }
    let server = Server::start(address, source).with_context(|| format!("VNC at {address}"))?;
    eprintln!("VNC server at {}", server.address());
    Ok(server)
}

/// `HOST:PORT`, `HOST`, or `:DISPLAY` as VNC clients count displays.
fn resolve(text: &str) -> Result<SocketAddr> {
    let what = || format!("--display vnc={text}: give an address such as 127.0.0.1:5900");
    if let Some(number) = text.strip_prefix(':') {
        let port = number.parse::<u16>().ok().and_then(|number| number.checked_add(VNC_PORT));
        return Ok(SocketAddr::from(([127, 0, 0, 1], port.with_context(what)?)));
    }
    let first = |mut addresses: std::vec::IntoIter<SocketAddr>| addresses.next();
    let found = match text.to_socket_addrs() {
        Ok(addresses) => first(addresses),
        Err(_) => first((text, VNC_PORT).to_socket_addrs().with_context(what)?),
    };
    found.with_context(what)
}

/// What the painter shows instead of the guest's screen.
#[derive(Default)]
struct Overlay {
    help: bool,
    redraw: bool,
    size: Option<(u16, u16)>,
}

/// Shows the screen of `source` in the terminal: a thread paints and one reads keys, until the
/// terminal is restored. `quit` is called when the user leaves.
///
/// # Errors
/// The host has no thread.
pub(crate) fn show_text(
    source: Source,
    restorer: Restorer,
    quit: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let overlay = Arc::<Mutex<Overlay>>::default();
    let painter = (source.clone(), overlay.clone());
    std::thread::Builder::new()
        .name("screen".into())
        .spawn(move || paint(&painter.0, &painter.1, &restorer))?;
    std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || read_keys(&source, &overlay, &quit))?;
    Ok(())
}

fn paint(source: &Source, overlay: &Mutex<Overlay>, restorer: &Restorer) {
    // Not every terminal knows its size.
    let size = crossterm::terminal::size().ok().filter(|&(columns, rows)| columns > 0 && rows > 0);
    let (columns, rows) = size.unwrap_or((80, 25));
    let mut painter = Painter::new(columns.into(), rows.into());
    let mut seen = None;
    while !restorer.is_restored() {
        let started = Instant::now();
        // Before looking: what is written meanwhile counts as news.
        let count = source.changes().count();
        let help = {
            let mut overlay = lock(overlay);
            if let Some((columns, rows)) = overlay.size.take() {
                painter.resize(columns.into(), rows.into());
            }
            if std::mem::take(&mut overlay.redraw) {
                painter.redraw();
            }
            overlay.help
        };
        let output = if help {
            painter.notice(&HELP.map(str::to_owned))
        } else {
            match source.look(|vga| vga.text_cells().ok_or_else(|| vga.resolution())) {
                Some(Ok(screen)) => painter.screen(&screen),
                Some(Err((width, height))) => painter.notice(&[
                    format!("The guest shows graphics, {width} x {height} pixels."),
                    "A terminal cannot show them: use --display vnc=127.0.0.1:5900.".into(),
                    "Ctrl-A X leaves, Ctrl-A H tells more.".into(),
                ]),
                None => painter.notice(&["The guest has no screen.".into()]),
            }
        };
        if !output.is_empty() && !restorer.is_restored() {
            let mut terminal = io::stdout().lock();
            if terminal.write_all(&output).and_then(|()| terminal.flush()).is_err() {
                // Nobody looks any more.
                return;
            }
        }
        seen = seen.max(Some(count));
        std::thread::sleep(FRAME_TIME.saturating_sub(started.elapsed()));
        let changes = source.changes();
        changes.wait_until(IDLE_CHECK, || Some(changes.count()) != seen);
    }
}

fn read_keys(source: &Source, overlay: &Mutex<Overlay>, quit: &dyn Fn()) {
    let mut keyboard = Keyboard::default();
    // An error is the end of the terminal: the guest runs on, as without keys.
    while let Ok(event) = event::read() {
        match event {
            Event::Key(event) => {
                let press = keyboard.press(&event);
                let was_help = std::mem::take(&mut lock(overlay).help);
                match press {
                    Some(Press::Action(Action::Quit)) => quit(),
                    Some(Press::Action(Action::Help)) => lock(overlay).help = true,
                    Some(Press::Action(Action::PowerButton)) => source.press_power_button(),
                    Some(Press::Action(Action::Redraw)) => lock(overlay).redraw = true,
                    // The key that ends the help is not for the guest.
                    Some(Press::Keys(_)) if was_help => {}
                    Some(Press::Keys(bytes)) => source.keys(&bytes),
                    None => {}
                }
            }
            Event::Resize(columns, rows) => lock(overlay).size = Some((columns, rows)),
            _ => continue,
        }
        // The painter looks again.
        source.changes().note();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays() {
        assert_eq!(parse("none"), Ok(Display::None));
        assert_eq!(parse("text"), Ok(Display::Text));
        assert_eq!(parse("vnc"), Ok(Display::Vnc("127.0.0.1:5900".into())));
        assert_eq!(parse("vnc=:1"), Ok(Display::Vnc(":1".into())));
        for wrong in ["", "vnc=", "sdl", "text=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses() {
        let address = |text| resolve(text).ok().map(|address| address.to_string());
        assert_eq!(address(":2").as_deref(), Some("127.0.0.1:5902"));
        assert_eq!(address("127.0.0.1").as_deref(), Some("127.0.0.1:5900"));
        assert_eq!(address("[::1]:1").as_deref(), Some("[::1]:1"));
        assert_eq!(address(":65000"), None);
        assert!(serve("0.0.0.0:0", false, Source::default()).is_err());
    }
}
