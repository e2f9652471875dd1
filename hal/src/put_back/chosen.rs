//! The one defect that a program has chosen. Any context: nothing here allocates or waits.

use core::fmt::{self, Debug, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::string::String;
use std::sync::OnceLock;

static CHOSEN: OnceLock<String> = OnceLock::new();
static REACHED: AtomicBool = AtomicBool::new(false);

/// Chooses, once, `folder::Name`.
pub fn choose(name: &str) {
    let _ = CHOSEN.set(name.into());
}

/// Whether the program has come to where the defect is.
pub fn reached() -> bool {
    REACHED.load(Ordering::Relaxed)
}

/// The switch of one enum.
#[derive(Debug)]
pub struct Switch {
    /// The package, or the folder, whose defects they are.
    home: &'static str,
    /// By number: not looked at yet, no, yes.
    known: [AtomicU8; 64],
}

const NO: u8 = 1;
const YES: u8 = 2;

impl Switch {
    /// For the defects of a package.
    pub const fn new(home: &'static str) -> Self {
        Self { home, known: [const { AtomicU8::new(0) }; 64] }
    }

    /// Whether the defect of this number, below 64, is the chosen one.
    #[inline]
    pub fn is(&self, number: u32, defect: &dyn Debug) -> bool {
        let Some(known) = self.known.get(number as usize) else { return false };
        match known.load(Ordering::Relaxed) {
            NO => false,
            YES => {
                REACHED.store(true, Ordering::Relaxed);
                true
            }
            _ => self.look(known, defect),
        }
    }

    #[cold]
    fn look(&self, known: &AtomicU8, defect: &dyn Debug) -> bool {
        let Some(chosen) = CHOSEN.get() else { return false };
        let home = self.home.strip_prefix("undercroft-").unwrap_or(self.home);
        let name = chosen.strip_prefix(home).and_then(|rest| rest.strip_prefix("::"));
        let yes = name.is_some_and(|name| {
            let mut rest = Rest(name);
            write!(rest, "{defect:?}").is_ok() && rest.0.is_empty()
        });
        known.store(if yes { YES } else { NO }, Ordering::Relaxed);
        if yes {
            REACHED.store(true, Ordering::Relaxed);
        }
        yes
    }
}

/// Takes what is written off the front of a text that begins with it.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}
