//! What a display looks at and works on: the machine that runs at the moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devices::legacy::i8042::{I8042Device, MouseEvent};
use devices::vga::{Changes, Vga, VgaDevice};

/// How long keys wait for a guest that has not taken the ones before.
const KEY_PATIENCE: Duration = Duration::from_millis(500);
const KEY_RETRY: Duration = Duration::from_millis(5);

type Keyboard = Arc<Mutex<I8042Device>>;
/// Presses the machine's power button.
type PowerButton = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Machine {
    vga: Option<Arc<Mutex<VgaDevice>>>,
    keyboard: Option<Keyboard>,
    power_button: Option<PowerButton>,
}

/// The adapter, the keyboard and the power button of the machine that runs at the moment; after a reset it is
/// another one. Clones are the same source.
#[derive(Clone, Default)]
pub struct Source {
    machine: Arc<Mutex<Machine>>,
    changes: Arc<Changes>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    /// Shows this machine from now on. `power_button` presses its power button.
    pub fn attach(
        &self,
        vga: Option<Arc<Mutex<VgaDevice>>>,
        keyboard: Keyboard,
        power_button: PowerButton,
    ) {
        if let Some(vga) = &vga {
            lock(vga).report_changes(self.changes.clone());
        }
        *lock(&self.machine) =
            Machine { vga, keyboard: Some(keyboard), power_button: Some(power_button) };
        self.changes.note();
    }

    /// Tells of changes on the screen.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Looks at the adapter; `None` if there is none.
    pub fn look<T>(&self, look: impl FnOnce(&Vga) -> T) -> Option<T> {
        let vga = lock(&self.machine).vga.clone()?;
        let device = lock(&vga);
        Some(look(device.vga()))
    }

    /// Sends keys: bytes of scan code set 2. Waits a little where the guest is slow; what it does
    /// not take then is lost, as on a real keyboard.
    pub fn keys(&self, set_2: &[u8]) {
        if set_2.is_empty() {
            return;
        }
        let Some(keyboard) = lock(&self.machine).keyboard.clone() else { return };
        let deadline = Instant::now() + KEY_PATIENCE;
        while !lock(&keyboard).key_scancodes(set_2) && Instant::now() < deadline {
            std::thread::sleep(KEY_RETRY);
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        let power_button = lock(&self.machine).power_button.clone();
        if let Some(press) = power_button {
            press();
        }
    }

    /// Sends what the mouse did.
    pub fn mouse(&self, event: MouseEvent) {
        let Some(keyboard) = lock(&self.machine).keyboard.clone() else { return };
        lock(&keyboard).mouse_event(event);
    }
}
