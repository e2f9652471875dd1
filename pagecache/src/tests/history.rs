//! What happened to each cell of a volume, and whether that can have been: linearisability of reads and writes, and what a power cut may leave.
//!
//! A cell is 64 bytes that are written and read together; every write has a number of its own, which fills its cells. So for each cell the
//! history is that of a register with distinct values, and whether it is linearisable is seen from the *zones* of its values (Gibbons and Korach,
//! "Testing shared memories", 1997): a value's zone lies between the first end and the last beginning of its write and reads. If the first end is
//! before the last beginning the value was there all that time: no two such zones may overlap, and none may contain the zone of another value.

use std::collections::BTreeMap;

pub const CELL: usize = 64;
pub const NEVER: u64 = u64::MAX;

/// A write of a value: from when on it may have been, and since when it has.
#[derive(Debug, Clone, Copy)]
struct Value {
    begun: u64,
    ended: u64,
    /// The first end and the last beginning of its operations, and whether it was ever seen.
    first_end: u64,
    last_begin: u64,
}

#[derive(Debug, Default)]
pub struct History {
    cells: BTreeMap<usize, BTreeMap<u32, Value>>,
    /// Successful syncs: cells, and when they were begun.
    synced: BTreeMap<usize, u64>,
}

/// The number that fills a cell.
pub fn number(cell: &[u8]) -> Result<u32, String> {
    let number: [u8; 4] = cell[..4].try_into().expect("a cell has more");
    if cell.chunks(4).any(|part| part != number) {
        return Err(format!("a cell is torn: {cell:02x?}"));
    }
    Ok(u32::from_le_bytes(number))
}

impl History {
    /// Cells that have value 0 from the start.
    pub fn new(cells: usize) -> Self {
        let zero = Value { begun: 0, ended: 0, first_end: 0, last_begin: 0 };
        let cells = (0..cells).map(|cell| (cell, BTreeMap::from([(0, zero)]))).collect();
        Self { cells, synced: BTreeMap::new() }
    }

    /// A write that may be seen from now on.
    pub fn begin_write(&mut self, cells: std::ops::Range<usize>, value: u32, begun: u64) {
        for cell in cells {
            let write = Value { begun, ended: NEVER, first_end: NEVER, last_begin: begun };
            self.cells.get_mut(&cell).expect("a cell").insert(value, write);
        }
    }

    /// It was done. One that failed stays as it is: it may be seen at any time.
    pub fn end_write(&mut self, cells: std::ops::Range<usize>, value: u32, ended: u64) {
        for cell in cells {
            let write = self.cells.get_mut(&cell).expect("a cell").get_mut(&value).expect("begun");
            write.ended = ended;
            write.first_end = write.first_end.min(ended);
        }
    }

    /// A read saw a value.
    pub fn read(&mut self, cell: usize, value: u32, begun: u64, ended: u64) -> Result<(), String> {
        let Some(write) = self.cells.get_mut(&cell).expect("a cell").get_mut(&value) else {
            return Err(format!("cell {cell}: read {value}, which was never written there"));
        };
        if ended < write.begun {
            return Err(format!("cell {cell}: read {value} before it was written"));
        }
        write.first_end = write.first_end.min(ended);
        write.last_begin = write.last_begin.max(begun);
        Ok(())
    }

    /// Whether all that was read and written can have been.
    pub fn check(&self) -> Result<(), String> {
        for (cell, values) in &self.cells {
            // A value that nobody saw, of a write that did not end, need not have been.
            let known = values.iter().filter(|(_, value)| value.first_end != NEVER);
            let zones: Vec<_> = known.map(|(number, value)| (*number, value.first_end, value.last_begin)).collect();
            for (number, end, begin) in zones.iter().filter(|(_, end, begin)| end < begin) {
                for (other, other_end, other_begin) in &zones {
                    if other == number {
                        continue;
                    }
                    // Two zones of values that stayed overlap, or this contains the other: the same comparison.
                    let there = end < other_begin && other_end < begin;
                    if there {
                        return Err(format!(
                            "cell {cell}: {number} was there from {end} to {begin}, and {other} in between"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// A sync of these cells, begun then, succeeded.
    pub fn synced(&mut self, cells: std::ops::Range<usize>, begun: u64) {
        for cell in cells {
            let latest = self.synced.entry(cell).or_default();
            *latest = begun.max(*latest);
        }
    }

    /// Whether a power cut may leave a value in a cell: one that was written, and not replaced for certain before the last sync.
    pub fn survives(&self, cell: usize, value: u32) -> Result<(), String> {
        let values = &self.cells[&cell];
        let Some(left) = values.get(&value) else {
            return Err(format!("cell {cell}: the cut left {value}, which was never written there"));
        };
        let Some(synced) = self.synced.get(&cell) else { return Ok(()) };
        for (newer, write) in values {
            if write.ended < *synced && left.ended < write.begun {
                return Err(format!("cell {cell}: the cut left {value} although {newer} was made durable"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_value_after_a_new_one_is_seen() {
        let mut history = History::new(1);
        history.begin_write(0..1, 1, 1);
        history.end_write(0..1, 1, 2);
        history.begin_write(0..1, 2, 3);
        history.read(0, 1, 4, 5).unwrap();
        history.end_write(0..1, 2, 6);
        history.check().unwrap();
        let mut late = History { cells: history.cells.clone(), synced: BTreeMap::new() };
        late.read(0, 1, 7, 8).unwrap();
        assert!(late.check().unwrap_err().contains("in between"));
        history.read(0, 2, 7, 8).unwrap();
        history.check().unwrap();
        history.read(0, 0, 0, 1).unwrap();
        history.check().unwrap();
        history.read(0, 0, 3, 4).unwrap();
        assert!(history.check().is_err());
    }

    /// Two reads of a write that does not end: once seen, it stays.
    #[test]
    fn a_value_that_was_seen_does_not_go_again() {
        let mut history = History::new(1);
        history.begin_write(0..1, 1, 1);
        history.read(0, 1, 2, 3).unwrap();
        history.check().unwrap();
        history.read(0, 0, 4, 5).unwrap();
        assert!(history.check().is_err());
    }

    #[test]
    fn what_was_synced_survives() {
        let mut history = History::new(1);
        history.begin_write(0..1, 1, 1);
        history.end_write(0..1, 1, 2);
        history.survives(0, 0).unwrap();
        history.synced(0..1, 3);
        history.begin_write(0..1, 2, 4);
        assert!(history.survives(0, 0).is_err() && history.survives(0, 7).is_err());
        history.survives(0, 1).and(history.survives(0, 2)).unwrap();
    }
}
