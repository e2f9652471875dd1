//! Commands, given through registers word by word.

use super::consts::{command, host, status};
use super::rings::{Ring, Rings, field};
use super::{Breach, Pvscsi};
use crate::Bus;
use crate::scsi::Unit;

/// Words of a command's descriptor. `None`: the command is not known to any revision.
fn words(code: u32) -> Option<usize> {
    Some(match code {
        command::ADAPTER_RESET | command::RESET_BUS | command::MAX_TARGETS => 0,
        command::SETUP_RINGS => 132,
        command::RESET_DEVICE => 3,
        command::ABORT => 4,
        command::CONFIG | command::UNPLUG => 6,
        command::SETUP_MSG_RING => 34,
        command::SETUP_REQ_CALL => 1,
        _ => return None,
    })
}

fn wide(words: &[u32], at: usize) -> u64 {
    u64::from(words[at]) | u64::from(words[at + 1]) << 32
}

impl Pvscsi {
    fn knows(&self, code: u32) -> bool {
        let offered = match code {
            command::SETUP_MSG_RING => !self.knobs.no_messages,
            command::SETUP_REQ_CALL => self.knobs.threshold.is_some(),
            command::MAX_TARGETS => self.knobs.max_targets.is_some(),
            // Nothing here needs these two.
            command::CONFIG | command::UNPLUG => false,
            _ => true,
        };
        offered && self.knobs.refuses & 1 << code == 0
    }

    /// The driver writes a command's number.
    pub(super) fn begin_command(&mut self, bus: &Bus<'_>, code: u32) {
        self.data.clear();
        self.command = None;
        self.status = status::FAILED;
        let Some(words) = words(code) else {
            self.breaches.push(Breach::UnknownCommand(code));
            return;
        };
        if !self.knows(code) {
            return;
        }
        self.status = status::MORE_DATA;
        self.command = Some(code);
        if words == 0 {
            self.run_command(bus, code);
        }
    }

    /// The driver writes a word of the descriptor.
    pub(super) fn command_data(&mut self, bus: &Bus<'_>, word: u32) {
        let Some(code) = self.command else {
            // The words of a command that was refused fall on deaf ears.
            if self.status != status::FAILED {
                self.breaches.push(Breach::DataWithoutCommand);
            }
            return;
        };
        self.data.push(word);
        if words(code) == Some(self.data.len()) {
            self.run_command(bus, code);
        }
    }

    fn run_command(&mut self, bus: &Bus<'_>, code: u32) {
        self.command = None;
        let words = std::mem::take(&mut self.data);
        if !self.config.bus_master() {
            self.breaches.push(Breach::NotBusMaster);
        }
        let result = match code {
            command::ADAPTER_RESET => self.reset(bus),
            command::SETUP_RINGS => self.setup_rings(bus, &words),
            command::SETUP_MSG_RING => self.setup_messages(bus, &words),
            command::SETUP_REQ_CALL => self.setup_threshold(bus, words[0]),
            command::MAX_TARGETS => Ok(self.knobs.max_targets.unwrap_or(status::FAILED)),
            command::RESET_BUS => self.end_commands(bus, |_| true, host::BUS_RESET),
            command::RESET_DEVICE => {
                let lun = wide(&words, 1).to_le_bytes();
                if Unit::decode(lun) == Unit::Unknown {
                    self.breaches.push(Breach::Descriptor("a LUN that names no unit"));
                }
                let target = words[0];
                self.end_commands(bus, |number| u32::from(number) == target, host::BUS_RESET)
            }
            command::ABORT => self.abort(bus, &words),
            _ => Ok(status::FAILED),
        };
        self.status = result.unwrap_or_else(|breach| {
            self.fail(breach);
            status::FAILED
        });
        self.interrupt(bus);
    }

    fn reset(&mut self, bus: &Bus<'_>) -> Result<u32, Breach> {
        if !self.knobs.reset_forgets && !self.broken {
            // What was published and not taken ends without a word.
            self.end(bus, host::BUS_RESET, |_| true)?;
        }
        self.targets.values_mut().for_each(crate::scsi::Target::reset);
        self.forget();
        self.resets += 1;
        Ok(status::DONE)
    }

    fn ring(&mut self, bus: &Bus<'_>, count: u32, most: usize, words: &[u32], entry: u64) -> Result<Ring, Breach> {
        let count = count as usize;
        if !count.is_power_of_two() || count > most {
            return Err(Breach::Descriptor("a ring whose pages are no power of two, or too many"));
        }
        let pages: Vec<u64> = (0..count).map(|page| wide(words, 2 * page)).collect();
        if words[2 * count..2 * most].iter().any(|word| *word != 0) {
            self.breaches.push(Breach::Descriptor("pages beyond the ring's"));
        }
        for page in &pages {
            bus.read(page * 4096, &mut [0; 4096])?;
        }
        Ok(Ring { pages, entry })
    }

    fn setup_rings(&mut self, bus: &Bus<'_>, words: &[u32]) -> Result<u32, Breach> {
        if self.rings.is_some() {
            self.breaches.push(Breach::Descriptor("rings while there are some"));
        }
        let state = wide(words, 2) * 4096;
        bus.read(state, &mut [0; 4096])?;
        let requests = self.ring(bus, words[0], 32, &words[4..68], 128)?;
        let completions = self.ring(bus, words[1], 32, &words[68..132], 32)?;
        let mut rings = Rings::new(state, requests, completions);
        rings.begin(bus, self.knobs.wrong_sizes)?;
        self.rings = Some(rings);
        Ok(status::DONE)
    }

    fn setup_messages(&mut self, bus: &Bus<'_>, words: &[u32]) -> Result<u32, Breach> {
        if words[1] != 0 {
            self.breaches.push(Breach::Descriptor("a reserved word that is not zero"));
        }
        let ring = self.ring(bus, words[0], 16, &words[2..34], 128)?;
        match &mut self.rings {
            Some(rings) => rings.begin_messages(bus, ring)?,
            None => self.breaches.push(Breach::Descriptor("a message ring before the rings")),
        }
        Ok(34)
    }

    fn setup_threshold(&mut self, bus: &Bus<'_>, enable: u32) -> Result<u32, Breach> {
        if enable > 1 {
            self.breaches.push(Breach::Descriptor("a switch that is neither on nor off"));
        }
        self.threshold = if enable == 0 { 0 } else { self.knobs.threshold.unwrap_or(0) };
        if let Some(rings) = &mut self.rings {
            rings.threshold = self.threshold;
            rings.put(bus, field::THRESHOLD, self.threshold)?;
        }
        self.start_polling(bus);
        Ok(enable)
    }

    fn end_commands(&mut self, bus: &Bus<'_>, meant: impl Fn(u8) -> bool, status: u16) -> Result<u32, Breach> {
        if self.knobs.deaf {
            return Ok(status::DONE);
        }
        let mut known = false;
        for (_, target) in self.targets.iter_mut().filter(|(number, _)| meant(**number)) {
            target.reset();
            known = true;
        }
        if !known {
            return Ok(status::FAILED);
        }
        self.managed += 1;
        self.end(bus, status, |request| meant(request.target))?;
        Ok(status::DONE)
    }

    fn abort(&mut self, bus: &Bus<'_>, words: &[u32]) -> Result<u32, Breach> {
        if words[3] != 0 {
            self.breaches.push(Breach::Descriptor("a reserved word that is not zero"));
        }
        let (context, target) = (wide(words, 0), words[2]);
        if !self.knobs.deaf {
            self.managed += 1;
            let meant =
                |request: &super::request::Request| request.context == context && u32::from(request.target) == target;
            self.end(bus, host::ABORT_QUEUE, meant)?;
        }
        // Whether there was such a command is not told.
        Ok(status::DONE)
    }
}
