//! Identify data as drives send it, and as no drive should.

use super::*;

/// What a disk of 2^31 sectors says, with everything.
fn good() -> [u16; WORDS] {
    let mut words = [0; WORDS];
    words[0] = 0x0040;
    words[10..20].copy_from_slice(&[0x2020, 0x5341, 0x4d50, 0x4c45, 0x2020, 0x2020, 0x2020, 0x2020, 0x2020, 0x2020]);
    words[27..47].fill(0x4d4d);
    words[47] = 0x8010;
    words[49] = 0x0f00;
    words[53] = 7;
    (words[60], words[61]) = (0xffff, 0x0fff);
    words[63] = 0x0007;
    words[82] = 1 << 5;
    words[83] = 0x4000 | 1 << 10 | 1 << 12 | 1 << 13;
    words[84] = 0x4000 | 1 << 6;
    words[85] = 1 << 5;
    words[86] = 1 << 10;
    words[88] = 0x203f;
    words[101] = 0x8000;
    words[106] = 0x6003;
    words[169] = 1;
    words
}

fn with(change: impl FnOnce(&mut [u16; WORDS])) -> Result<Identified, ProbeError> {
    let mut words = good();
    change(&mut words);
    Identified::parse(&words, Defects::none())
}

#[test]
fn a_good_drive() {
    let disk = Identified::parse(&good(), Defects::none()).unwrap();
    assert_eq!((disk.sectors, disk.sector_bytes, disk.physical_exponent), (1 << 31, 512, 3));
    assert_eq!((&disk.serial[..], disk.model.len()), ("SAMPLE", 40));
    assert_eq!((disk.multiple, disk.flush, disk.set_mode), (16, Some(Command::FLUSH_CACHE_EXT), None));
    assert!(disk.ext && disk.dma && disk.cached && disk.fua && disk.trim);
}

#[test]
fn features_count_only_where_their_words_are_valid() {
    let disk = with(|words| words[83] &= 0x3fff).unwrap();
    assert!(!disk.ext && !disk.cached && !disk.fua && !disk.trim && disk.flush.is_none());
    assert_eq!(disk.sectors, MOST_SHORT);
    assert!(!with(|words| words[84] = 0xffff).unwrap().fua);
    assert_eq!(with(|words| words[106] = 0xffff).unwrap().sector_bytes, 512);
    assert!(!with(|words| words[169] = 0xffff).unwrap().trim);
    assert!(!with(|words| words[86] = 0).unwrap().ext, "supported but off");
}

#[test]
fn dma_needs_a_mode() {
    assert!(!with(|words| words[49] &= !(1 << 8)).unwrap().dma);
    assert!(!with(|words| (words[63], words[88]) = (0, 0)).unwrap().dma);
    let none_selected = with(|words| (words[63], words[88]) = (0x0007, 0x003f)).unwrap();
    assert_eq!((none_selected.dma, none_selected.set_mode), (true, Some(0x22)));
    let invalid = with(|words| words[53] = 0).unwrap();
    assert_eq!(invalid.set_mode, Some(0x22), "the word of Ultra DMA does not count");
}

#[test]
fn what_cannot_be_is_refused() {
    let bad = |what| Err(ProbeError::BadIdentify(what));
    assert_eq!(Identified::parse(&[0; WORDS], Defects::none()), bad("not a disk's"));
    assert_eq!(Identified::parse(&[0xffff; WORDS], Defects::none()), bad("not a disk's"));
    assert_eq!(with(|words| words[0] = 0x8580), bad("not a disk's"));
    assert_eq!(with(|words| words[49] &= !(1 << 9)), Err(ProbeError::NoLba));
    assert_eq!(with(|words| words[128] = 0b111), Err(ProbeError::Locked));
    assert_eq!(with(|words| words[100..104].fill(0xffff)), bad("capacity"));
    assert_eq!(with(|words| (words[60], words[61], words[101]) = (0, 0, 0)), bad("capacity"));
    for (low, high) in [(0, 0), (3, 0), (1, 0), (0xffff, 0xffff), (0, 0x8000)] {
        assert_eq!(with(|words| (words[106], words[117], words[118]) = (0x5000, low, high)), bad("sector size"));
    }
    assert_eq!(with(|words| (words[106], words[117]) = (0x5000, 2048)).unwrap().sector_bytes, 4096);
    assert_eq!(with(|words| words[255] = 0x12a5), bad("checksum"));
    assert_eq!(with(|words| words[106] = 0x600f).unwrap().physical_exponent, 0, "absurd advice");
    assert_eq!(with(|words| words[47] = 0x8003).unwrap().multiple, 0, "no power of two");
}

#[test]
fn texts_are_cut_to_what_prints() {
    let disk = with(|words| {
        words[27..47].copy_from_slice(&[0x1b5b, 0x324a, 0, 0xff41, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0742])
    })
    .unwrap();
    assert_eq!(disk.model, "[2JAB");
}

/// Whatever the words, nothing panics, and what is believed can be.
#[test]
fn random_words() {
    let mut random = undercroft_hosts::Random::new(5);
    for _ in 0..20_000 {
        let mut words = good();
        for _ in 0..random.below(40) {
            words[random.below(WORDS)] = random.next_u64() as u16;
        }
        if let Ok(disk) = Identified::parse(&words, Defects::none()) {
            assert!(disk.sectors > 0 && disk.sectors <= 1 << 48);
            assert!(disk.sector_bytes.is_power_of_two() && (512..=65_536).contains(&disk.sector_bytes));
            assert!(disk.multiple <= 16 && disk.physical_exponent <= 7);
        }
    }
}
