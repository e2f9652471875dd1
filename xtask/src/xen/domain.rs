//! A domain, as xl's configuration file describes it.
//!
//! Source: xl.cfg(5), xl-disk-configuration(5).

use std::fmt::Write;

/// A domain to create: with hardware virtualization, without firmware and emulated devices (PVH).
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name, which is also that of its file and of its log: letters, digits, dashes.
    pub name: String,
    /// Where the first domain finds its kernel.
    pub kernel: String,
    /// And what the kernel is given besides.
    pub ramdisk: Option<String>,
    pub command_line: String,
    pub memory_mib: u32,
    pub cpus: u32,
    pub disks: Vec<Vbd>,
}

/// A virtual block device.
#[derive(Clone, Debug)]
pub struct Vbd {
    /// As the first domain names it: a block device or a file.
    pub target: String,
    /// As the domain is to name it: `xvda` and so on.
    pub name: String,
    pub writable: bool,
}

impl Domain {
    /// The text of its configuration file.
    pub fn configuration(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "name = {}\ntype = \"pvh\"", quoted(&self.name));
        let _ = writeln!(text, "kernel = {}\ncmdline = {}", quoted(&self.kernel), quoted(&self.command_line));
        if let Some(ramdisk) = &self.ramdisk {
            let _ = writeln!(text, "ramdisk = {}", quoted(ramdisk));
        }
        let _ = writeln!(text, "memory = {}\nvcpus = {}", self.memory_mib, self.cpus);
        let disks: Vec<String> = self.disks.iter().map(|disk| quoted(&disk.specification())).collect();
        let _ = writeln!(text, "disk = [ {} ]", disks.join(", "));
        // Whoever started it wants to know how it ended, not to see it start again.
        for event in ["poweroff", "reboot", "crash"] {
            let _ = writeln!(text, "on_{event} = \"destroy\"");
        }
        // QEMU before 9.1 cannot tell a hypervisor's RDTSCP from RDTSC: the domain reads the counter itself.
        text.push_str("tsc_mode = \"native\"\n");
        text
    }
}

impl Vbd {
    /// As `xl block-attach` takes it, too.
    pub fn specification(&self) -> String {
        let access = if self.writable { "rw" } else { "ro" };
        format!("format=raw,vdev={},access={access},target={}", self.name, self.target)
    }
}

/// The name of the disk at `index`.
pub fn vbd_name(index: usize) -> String {
    let mut name = String::new();
    let mut rest = index + 1;
    while rest > 0 {
        name.insert(0, char::from(b'a' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    format!("xvd{name}")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_what_xl_takes() {
        let domain = Domain {
            name: "one".into(),
            kernel: "/run/domains/image".into(),
            ramdisk: None,
            command_line: "a=\"b\"".into(),
            memory_mib: 64,
            cpus: 2,
            disks: vec![Vbd { target: "/dev/vda".into(), name: vbd_name(0), writable: false }],
        };
        let text = domain.configuration();
        assert!(text.contains("type = \"pvh\"\n") && !text.contains("ramdisk"), "{text}");
        assert!(text.contains("cmdline = \"a=\\\"b\\\"\"\n"), "{text}");
        assert!(text.contains("disk = [ \"format=raw,vdev=xvda,access=ro,target=/dev/vda\" ]\n"), "{text}");
    }

    #[test]
    fn disks_are_named_as_linux_names_them() {
        assert_eq!([0, 1, 25, 26, 701, 702].map(vbd_name), ["xvda", "xvdb", "xvdz", "xvdaa", "xvdzz", "xvdaaa"]);
    }
}
