//! The guest's command line: whoever starts the machine writes it.

use undercroft_hal::firmware::command_line as parser;

/// Reads the words of a command line, and the virtio devices that it names.
///
/// # Panics
/// If a word is not a part of the line, or a device has no registers.
pub fn command_line(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    for (name, value) in parser::words(&line) {
        assert!(line.contains(name) && line.contains(value), "a word that is not on the line");
        assert!(
            !name.contains(|c: char| c.is_ascii_whitespace()) && !value.contains(|c: char| c.is_ascii_whitespace()),
            "a word of several"
        );
    }
    for device in parser::virtio_mmio(&line) {
        assert!(device.base.checked_add(device.bytes).is_some(), "a device around the end of the world: {device:?}");
    }
}
