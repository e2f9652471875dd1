//! Backtraces of the image made readable: a line `#N 0xADDR` gains function, file and line.

use std::path::Path;

use addr2line::Loader;

use crate::host::workspace;

/// The symbols of an image, where it has any.
pub struct Symbols(Option<Loader>);

impl Symbols {
    pub fn of(image: &Path) -> Self {
        Self(Loader::new(image).ok())
    }

    /// Returns `line` with what its address means; any other line as it is.
    pub fn explain(&self, line: &str) -> String {
        match address(line).map(|(number, address)| self.name(number, address)) {
            Some(name) if !name.is_empty() => format!("{line} {name}"),
            _ => line.to_owned(),
        }
    }

    fn name(&self, number: u64, address: u64) -> String {
        let Some(loader) = &self.0 else { return String::new() };
        // But for the innermost frame an address is where the call returns to, which may already
        // be the next line or function.
        let probe = if number == 0 { address } else { address.saturating_sub(1) };
        let mut parts = Vec::new();
        if let Ok(mut frames) = loader.find_frames(probe) {
            while let Ok(Some(frame)) = frames.next() {
                let function = frame.function.as_ref().and_then(|f| f.demangle().ok()).unwrap_or_default();
                let place = frame.location.map(|l| format!("{}:{}", short(l.file), l.line.unwrap_or(0)));
                parts.push(format!("{function} {}", place.unwrap_or_default()).trim().to_owned());
            }
        }
        if parts.is_empty() {
            parts
                .extend(loader.find_symbol(probe).map(|name| addr2line::demangle_auto(name.into(), None).into_owned()));
        }
        parts.join(", inlined in ")
    }
}

/// A source file as it is known in the workspace.
fn short(file: Option<&str>) -> &str {
    let file = file.unwrap_or("?");
    let root = workspace::root().to_str().unwrap_or_default();
    file.strip_prefix(root).map_or(file, |rest| rest.trim_start_matches('/'))
}

/// The number and the address of a line of a backtrace.
fn address(line: &str) -> Option<(u64, u64)> {
    let (number, rest) = line.trim_start().strip_prefix('#')?.split_once(' ')?;
    let word = rest.split_whitespace().next()?.strip_prefix("0x")?;
    Some((number.parse().ok()?, u64::from_str_radix(word, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_backtrace_are_recognised() {
        assert_eq!(address("  #0 0xffffffff80001234"), Some((0, 0xffff_ffff_8000_1234)));
        assert_eq!(address("#12 0x10 (guess)"), Some((12, 0x10)));
        for other in ["", "# 0x10", "#x 0x10", "#1 10", "panicked at #1 0x10"] {
            assert_eq!(address(other), None, "{other}");
        }
    }

    #[inline(never)]
    fn landmark() -> u64 {
        std::hint::black_box(7)
    }

    /// The test looks itself up: an address within `landmark` must lead to this file.
    #[test]
    fn an_address_of_this_program_is_found() {
        assert_eq!(landmark(), 7);
        let program = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let base = maps.lines().find(|l| l.ends_with(program.to_str().unwrap())).unwrap();
        let base = u64::from_str_radix(base.split('-').next().unwrap(), 16).unwrap();
        let symbols = Symbols::of(&program);
        let line = format!("#0 {:#x}", landmark as fn() -> u64 as usize as u64 - base);
        let explained = symbols.explain(&line);
        assert!(explained.contains("landmark") && explained.contains("symbols.rs:"), "{explained}");
        let nowhere = "#0 0xffffffffffff0000";
        assert_eq!(symbols.explain(nowhere), nowhere);
    }
}
