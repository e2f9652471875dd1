//! The notification window of `EVENT_IDX` (virtio 1.2, 2.7.10). Any context.

/// Whether an index that moved from `old` to `new` passed `event`: the other side asked to hear when the entry `event` is there,
/// which is when the index becomes `event + 1`. Indices are free-running 16-bit counters, so this is a window on a circle: all
/// three operations wrap, and a comparison of the counters themselves would be wrong once in 65,536.
#[inline]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(all(not(loom), test))]
mod tests {
    use super::*;

    /// By definition: walk from old to new, entry by entry, and see whether `event` is among the entries that became available.
    fn by_walking(event: u16, new: u16, old: u16) -> bool {
        let mut at = old;
        while at != new {
            if at == event {
                return true;
            }
            at = at.wrapping_add(1);
        }
        false
    }

    /// What the hazard looked like: the counters compared as plain integers.
    fn as_integers(event: u16, new: u16, _old: u16) -> bool {
        i32::from(new) > i32::from(event)
    }

    const BASES: [u16; 6] = [0, 1, 0x7fff, 0x8000, 0xfff9, 0xffff];

    /// Every distance from old to new up to the largest queue, for events around both ends and far away; and every event for
    /// distances around the interesting ones. From several bases, wrap included.
    fn disagreements(candidate: fn(u16, u16, u16) -> bool) -> u64 {
        let mut found = 0;
        for old in BASES {
            for distance in 0..=u16::MAX {
                let new = old.wrapping_add(distance);
                for near in [0u16, 1, 2, 7, 0x7fff, 0x8000, 0xfffe, 0xffff] {
                    for event in [old.wrapping_add(near), new.wrapping_add(near)] {
                        let inside = event.wrapping_sub(old) < distance;
                        found += u64::from(candidate(event, new, old) != inside);
                    }
                }
            }
            for distance in [0u16, 1, 2, 3, 7, 128, 255, 256, 1024, 32767, 32768] {
                let new = old.wrapping_add(distance);
                for event in 0..=u16::MAX {
                    found += u64::from(candidate(event, new, old) != (event.wrapping_sub(old) < distance));
                }
            }
        }
        // The closed form used above is itself checked against walking.
        for old in BASES {
            for distance in 0..=300u16 {
                let new = old.wrapping_add(distance);
                for event in (0..=310).chain(0x7ff0..0x8010).map(|k: u16| old.wrapping_sub(5).wrapping_add(k)) {
                    found += u64::from(candidate(event, new, old) != by_walking(event, new, old));
                }
            }
        }
        found
    }

    #[test]
    fn x03_event_idx_window() {
        assert_eq!(disagreements(need_event), 0);
    }

    #[test]
    fn x03_event_idx_window_control() {
        assert!(disagreements(as_integers) > 0, "the sweep does not notice plain integer comparison");
    }
}
