//! Who waits for whom: a wait that closes a circle never ends.

use std::collections::BTreeMap;

use crate::watch::{Step, Violation};

/// A thread, an executor, an interrupt handler.
pub type Who = &'static str;

/// Who waits for whom.
#[derive(Debug, Default)]
pub struct Waits(BTreeMap<Who, Who>);

impl Waits {
    /// `who` can go on only when `whom` has. Code that an interrupt stopped waits for its handler.
    ///
    /// # Errors
    /// [`Violation::Deadlock`] if `whom` waits for `who`, directly or not.
    pub fn wait(&mut self, who: Who, whom: Who) -> Step {
        self.0.insert(who, whom);
        let mut at = Some(whom);
        while let Some(next) = at {
            if next == who {
                return Err(Violation::Deadlock);
            }
            at = self.0.get(next).copied();
        }
        Ok(())
    }

    /// `who` waits no more.
    pub fn go_on(&mut self, who: Who) {
        self.0.remove(who);
    }
}

/// A lock, as far as these models need one.
#[derive(Debug, Default)]
pub struct Lock {
    holder: Option<Who>,
}

impl Lock {
    /// Takes the lock, or waits for its holder: then `false`, and to be tried again.
    ///
    /// # Errors
    /// [`Violation::Deadlock`].
    pub fn take(&mut self, who: Who, waits: &mut Waits) -> Step<bool> {
        match self.holder {
            Some(holder) => waits.wait(who, holder).map(|()| false),
            None => {
                waits.go_on(who);
                self.holder = Some(who);
                Ok(true)
            }
        }
    }

    pub fn release(&mut self) {
        self.holder = None;
    }

    pub fn holder(&self) -> Option<Who> {
        self.holder
    }
}
