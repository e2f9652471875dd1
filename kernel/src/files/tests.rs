//! File systems that mkfs made, and the same after somebody has changed them. Sums that overflow go round
//! here as they do in the image (`profile.dev.package` in the workspace's `Cargo.toml`).

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

use undercroft_hal::{Lent, Task};
use undercroft_hosts::{Config, Machine};

use super::part::{Below, Part};
use super::{Error, Item, Mounted, ext4, manifest, store};
use crate::pattern::Random;

std::thread_local! {
    /// Accesses that an operation may take when it is not bounded: then it is called endless.
    static ENDLESS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Whether the bound is off; panics when an operation does not end without it.
pub(super) fn unbounded_access() -> bool {
    let Some(left) = ENDLESS.get() else { return false };
    assert!(left > 0, "the operation does not end");
    ENDLESS.set(Some(left - 1));
    true
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let mut command = Command::new(program);
    let system = std::format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.env("PATH", system).env("MTOOLS_SKIP_CHECK", "1").args(arguments).arg(path);
    let output = command.output().unwrap_or_else(|_| panic!("this test needs {program}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A directory that goes when the test ends.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(std::format!("undercroft-files-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("tree/DEEP/ER")).unwrap();
        std::fs::create_dir_all(path.join("tree/A name that is long")).unwrap();
        for (at, size) in [0, 1, 511, 1024, 5000, 70_000].into_iter().enumerate() {
            let mut bytes = std::vec![0; size];
            crate::pattern::fill(&mut bytes, at as u64, 0);
            for directory in ["", "DEEP/ER/", "A name that is long/"] {
                std::fs::write(path.join(std::format!("tree/{directory}FILE{at}.BIN")), &bytes).unwrap();
            }
        }
        Self(path)
    }

    /// An image of `kib` KiB, made by a command to which its path is added.
    fn image(&self, kib: u64, make: &[&str]) -> Vec<u8> {
        let path = self.0.join("image");
        std::fs::File::create(&path).unwrap().set_len(kib << 10).unwrap();
        let tree = self.0.join("tree").to_string_lossy().into_owned();
        let arguments: Vec<_> = make[1..].iter().map(|word| word.replace("TREE", &tree)).collect();
        run(make[0], &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &path);
        if make[0].ends_with("vfat") {
            let image = path.to_string_lossy().into_owned();
            for entry in ["DEEP", "A name that is long", "FILE1.BIN", "FILE5.BIN"] {
                let from = self.0.join("tree").join(entry).to_string_lossy().into_owned();
                run("mcopy", &["-s", "-Q", "-i", &image, &from], Path::new("::/"));
            }
        }
        std::fs::read(&path).unwrap()
    }

    fn ext4(&self, features: &str) -> Vec<u8> {
        self.image(4096, &["mkfs.ext4", "-q", "-F", "-b", "1024", "-O", features, "-d", "TREE"])
    }

    fn fat(&self, kib: u64, bits: &str) -> Vec<u8> {
        self.image(kib, &["mkfs.vfat", "--invariant", "-F", bits, "-s", "1"])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// With a task's token on loan.
fn with_lent(test: impl FnOnce(&Task, Lent)) {
    Machine::new(Config::default()).run(|cx| cx.lend(|lent| test(cx, lent)));
}

fn part(lent: &Lent, bytes: &Rc<RefCell<Vec<u8>>>, writable: bool) -> Part {
    let len = bytes.borrow().len() as u64;
    Part::new(lent.clone(), Below::Memory(Rc::clone(bytes)), len, writable)
}

fn memory(bytes: &[u8]) -> Rc<RefCell<Vec<u8>>> {
    Rc::new(RefCell::new(bytes.to_vec()))
}

/// Lists and reads everything, down to eight directories: how many files there are. Goes on after errors, and ends with the first.
fn read_all(mounted: &Mounted) -> Result<u64, Error> {
    let (mut files, mut left, mut result) = (0, std::vec![(String::new(), 0)], Ok(()));
    while let Some((path, depth)) = left.pop() {
        let items = mounted.list(&path).unwrap_or_else(|error| {
            result = Err(error);
            Vec::new()
        });
        for Item { name, directory, other, .. } in items.into_iter().take(200) {
            let below = std::format!("{path}/{name}");
            if directory && depth < 8 && left.len() < 50 {
                left.push((below, depth + 1));
            } else if !directory && !other {
                match mounted.read(&below, |_| ()) {
                    Ok(_) => files += 1,
                    Err(error) => result = Err(error),
                }
            }
        }
    }
    result.map(|()| files)
}

#[test]
fn what_mkfs_made_is_read() {
    let scratch = Scratch::new();
    with_lent(|_, lent| {
        for (image, name, files) in [
            (scratch.ext4("none,extents,filetype"), "ext4", 18),
            (scratch.ext4("has_journal"), "ext4", 18),
            (scratch.fat(2048, "12"), "fat", 14),
            (scratch.fat(6144, "16"), "fat", 14),
            (scratch.fat(34_816, "32"), "fat", 14),
        ] {
            let mounted = Mounted::mount(part(&lent, &memory(&image), false)).unwrap().unwrap();
            assert_eq!((mounted.name(), read_all(&mounted)), (name, Ok(files)));
            let mut seen = Vec::new();
            assert_eq!(mounted.read("A name that is long/FILE4.BIN", |part| seen.extend_from_slice(part)), Ok(5000));
            assert!(crate::pattern::matches(&seen, 4, 0));
            assert_eq!(mounted.read("DEEP/NO.BIN", |_| ()), Err(Error::NotFound));
            assert!(mounted.read("DEEP", |_| ()).is_err() && mounted.list("FILE1.BIN").is_err());
            assert_eq!(mounted.read(manifest::NAME, |_| ()), Err(Error::NotFound));
        }
        for nothing in [std::vec![0; 1 << 20], std::vec![0xff; 1 << 20], std::vec![0; 100]] {
            assert!(Mounted::mount(part(&lent, &memory(&nothing), false)).unwrap().is_none());
        }
    });
}

#[test]
fn what_is_stored_is_found_and_a_changed_byte_is_named() {
    let scratch = Scratch::new();
    with_lent(|_, lent| {
        for (kib, bits) in [(2048, "12"), (6144, "16"), (34_816, "32")] {
            let bytes = memory(&scratch.fat(kib, bits));
            let mount = |writable| Mounted::mount(part(&lent, &bytes, writable)).unwrap().unwrap();
            assert_eq!(store::store(&mount(false), 9), Err(Error::Disk(undercroft_block::Error::ReadOnly)));
            let mounted = mount(true);
            store::store(&mounted, 9).unwrap();
            let Mounted::Fat(fat) = mounted else { panic!("FAT") };
            fat.unmount().unwrap();
            assert_eq!(store::find(&mount(false), 9), Ok(()));
            assert!(store::find(&mount(false), 10).is_err());
            assert_eq!(read_all(&mount(false)), Ok(14 + store::stored(9).count() as u64));
            std::fs::write(scratch.0.join("stored"), &*bytes.borrow()).unwrap();
            run("fsck.vfat", &["-n"], &scratch.0.join("stored"));
            // The middle of a file that was written, wherever it lies.
            let file = store::stored(9).find(|file| file.bytes == 4097).unwrap();
            let mut wanted = [0; 64];
            crate::pattern::fill(&mut wanted, file.seed, 1024);
            let at = bytes.borrow().windows(64).position(|window| window == wanted).unwrap();
            bytes.borrow_mut()[at + 5] ^= 1;
            assert_eq!(store::find(&mount(false), 9), Err((file.path, None)));
        }
    });
}

/// Changes that lie where the file systems keep their numbers.
fn mutate(bytes: &mut [u8], places: &[usize], random: &mut Random) {
    for _ in 0..=random.below(30) {
        let at = match random.below(4) {
            0 => random.below(512) as usize,
            1 => 1024 + random.below(512) as usize,
            _ => places[random.below(places.len() as u64) as usize],
        };
        bytes[at] = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => random.next() as u8,
            _ => bytes[at] ^ (1 << random.below(8)),
        };
    }
}

#[test]
fn file_systems_that_lie_end_in_errors() {
    const ROUNDS: u64 = 250;
    let scratch = Scratch::new();
    with_lent(|_, lent| {
        for image in [
            // Without checksums, so that the lies are believed.
            scratch.ext4("none,extents,filetype"),
            scratch.ext4("none,filetype,has_journal,dir_index"),
            scratch.fat(1024, "12"),
            scratch.fat(4608, "16"),
            scratch.fat(34_816, "32"),
        ] {
            let places: Vec<usize> = (0..image.len().min(600 << 10)).filter(|at| image[*at] != 0).collect();
            let (mut good, mut bad) = (0, 0);
            let bytes = memory(&image);
            for round in 0..ROUNDS {
                let mut random = Random::new(round);
                bytes.borrow_mut().copy_from_slice(&image);
                mutate(&mut bytes.borrow_mut(), &places, &mut random);
                let result = Mounted::mount(part(&lent, &bytes, true)).and_then(|mounted| {
                    let Some(mounted) = mounted else { return Err(Error::Unsupported) };
                    let read = read_all(&mounted);
                    if matches!(mounted, Mounted::Fat(_)) {
                        let stored = store::store(&mounted, round);
                        let _ = store::find(&mounted, round);
                        stored?;
                    }
                    read
                });
                *(if result.is_ok() { &mut good } else { &mut bad }) += 1;
            }
            assert!(good > ROUNDS / 100 && bad > ROUNDS / 20, "{good} good, {bad} bad: the changes miss or kill");
        }
    });
}

/// A directory whose chain comes back to itself.
fn goes_round() {
    let scratch = Scratch::new();
    with_lent(|_, lent| {
        let mut image = scratch.fat(6144, "16");
        // The first cluster of DEEP, from its entry in the root, and its place in the first table.
        let at = image.windows(11).position(|name| name == b"DEEP       ").unwrap();
        let cluster = u16::from_le_bytes([image[at + 26], image[at + 27]]);
        let reserved = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
        let link = reserved + 2 * usize::from(cluster);
        image[link..link + 2].copy_from_slice(&cluster.to_le_bytes());
        // Full, so that its end is not seen before.
        let first = image.windows(11).position(|name| name == b".          ").unwrap();
        let entry: Vec<u8> = image[at..at + 32].to_vec();
        for place in (first + 64..first + 512).step_by(32) {
            image[place..place + 32].copy_from_slice(&entry);
        }
        let mounted = Mounted::mount(part(&lent, &memory(&image), false)).unwrap().unwrap();
        assert_eq!(mounted.list("DEEP"), Err(Error::TooMuch));
        assert!(mounted.list("").is_ok(), "the next operation is not to blame");
    });
}

#[test]
fn a_chain_that_goes_round_ends() {
    goes_round();
}

#[test]
#[should_panic(expected = "the operation does not end")]
fn a_chain_that_goes_round_ends_control() {
    // Of 6 MiB no operation takes a million accesses unless it goes round.
    ENDLESS.set(Some(1_000_000));
    goes_round();
}

#[test]
fn numbers_that_would_take_all_memory_are_refused() {
    let scratch = Scratch::new();
    with_lent(|_, lent| {
        let image = scratch.ext4("none,extents,filetype");
        let with = |at: usize, value: u32| {
            let bytes = memory(&image);
            bytes.borrow_mut()[1024 + at..1028 + at].copy_from_slice(&value.to_le_bytes());
            Mounted::mount(part(&lent, &bytes, false)).map(|mounted| mounted.is_some())
        };
        assert_eq!(with(0, 0), Ok(true), "the number of inodes is not looked at");
        // Blocks, their size, and blocks in a group.
        assert_eq!(with(4, u32::MAX), Err(Error::Corrupt));
        assert_eq!((with(24, 7), with(24, u32::MAX)), (Err(Error::Corrupt), Err(Error::Corrupt)));
        assert_eq!(with(32, 0), Err(Error::Corrupt));
        // Many groups of few blocks in a partition that is large.
        let mut large = image.clone();
        large[1024 + 4..1028 + 4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        large[1024 + 32..1028 + 32].copy_from_slice(&1_u32.to_le_bytes());
        let part = Part::new(lent.clone(), Below::Memory(memory(&large)), 1 << 40, false);
        assert_eq!(ext4::Mounted::mount(part).map(drop), Err(Error::TooMuch));
    });
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new();
    std::os::unix::fs::symlink("FILE1.BIN", scratch.0.join("tree/LINK")).unwrap();
    std::os::unix::fs::symlink("DEEP", scratch.0.join("tree/LINKED")).unwrap();
    with_lent(|_, lent| {
        let image = scratch.ext4("none,extents,filetype");
        let mounted = Mounted::mount(part(&lent, &memory(&image), false)).unwrap().unwrap();
        let others: Vec<_> = mounted.list("/").unwrap().into_iter().filter(|item| item.other).collect();
        assert_eq!(others.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["LINK", "LINKED"]);
        for path in ["LINK", "LINKED/ER/FILE1.BIN"] {
            assert_eq!(mounted.read(path, |_| ()), Err(Error::Unsupported), "{path}");
        }
    });
}

#[test]
fn nothing_outside_of_a_partition_is_reached_and_a_loan_ends() {
    let mut kept = None;
    with_lent(|_, lent| {
        let part = part(&lent, &memory(&[7; 4096]), true);
        for (at, len) in [(4095, 2), (4096, 1), (u64::MAX, 1), (u64::MAX - 1, 4)] {
            assert_eq!(part.read(at, &mut [0; 8][..len]), Err(Error::Corrupt), "{at}");
            assert_eq!(part.write(at, &[0; 8][..len]), Err(Error::Corrupt), "{at}");
        }
        assert_eq!(part.read(4090, &mut [0; 6]), Ok(()));
        kept = Some(part);
    });
    let cancelled = Err(Error::Disk(undercroft_block::Error::Cancelled));
    assert_eq!(kept.unwrap().read(0, &mut [0; 6]), cancelled);
    assert_eq!(
        Error::Disk(undercroft_block::Error::Cancelled).to_string(),
        undercroft_block::Error::Cancelled.to_string()
    );
}
