//! The command line: words separated by white space, each `key` or `key=value`.
//!
//! Also the `virtio_mmio.device=` words by which a machine without firmware tables (QEMU microvm, Firecracker)
//! tells where its devices lie.
//! Source: Linux `Documentation/admin-guide/kernel-parameters.rst` ("virtio_mmio.device") and `lib/cmdline.c`
//! (`memparse`).

/// Yields the words as key and value; a word without `=` has an empty value.
pub fn words(line: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
    line.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
}

/// A virtio device on the memory bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Physical address of its registers.
    pub base: u64,
    /// Bytes of registers.
    pub bytes: u64,
    /// Its interrupt line, as a global system interrupt.
    pub interrupt: u32,
}

/// Yields the `virtio_mmio.device=<size>@<base>:<irq>[:<id>]` words. A malformed one is left out.
pub fn virtio_mmio(line: &str) -> impl Iterator<Item = VirtioMmio> + Clone + '_ {
    words(line).filter(|word| word.0 == "virtio_mmio.device").filter_map(|word| virtio_mmio_value(word.1))
}

fn virtio_mmio_value(value: &str) -> Option<VirtioMmio> {
    let (bytes, rest) = value.split_once('@')?;
    let mut rest = rest.split(':');
    let device = VirtioMmio {
        bytes: size(bytes)?,
        base: size(rest.next()?)?,
        interrupt: u32::try_from(size(rest.next()?)?).ok()?,
    };
    let end = device.base.checked_add(device.bytes)?;
    (device.bytes != 0 && end <= 1 << 52).then_some(device)
}

/// Parses a number as Linux does: decimal, `0x` hexadecimal or `0` octal, with a binary suffix K, M or G.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn words_split_at_the_first_equals_sign() {
        let found: Vec<_> = words("  console=json end  disk=a,rw,0,8=x ").collect();
        assert_eq!(found, [("console", "json"), ("end", ""), ("disk", "a,rw,0,8=x")]);
    }

    #[test]
    fn virtio_mmio_words_of_qemu_and_firecracker() {
        let line = "end=poweroff virtio_mmio.device=512@0xfeb02a00:12 virtio_mmio.device=4K@0xd0001000:6:1";
        let found: Vec<_> = virtio_mmio(line).collect();
        assert_eq!(
            found,
            [
                VirtioMmio { base: 0xfeb0_2a00, bytes: 512, interrupt: 12 },
                VirtioMmio { base: 0xd000_1000, bytes: 4096, interrupt: 6 },
            ]
        );
    }

    #[test]
    fn malformed_virtio_mmio_words_are_left_out() {
        for value in [
            "",
            "@",
            "512",
            "512@",
            "512@0x10",
            "512@0x10:",
            "x@0x10:5",
            "0@0x10:5",
            "512@0xffffffffffffffff:5",
            "512@0x10:-1",
            "99999999999999999999@1:1",
            "17179869184G@0:1",
            "k@1:1",
            "512@0x:1",
            "512@1:4294967296",
            "512@08:1",
            "é@1:1",
            "1@é:1",
        ] {
            assert_eq!(virtio_mmio_value(value), None, "{value}");
        }
    }
}
