//! A guest made by hand: registers, message slot, one channel with its rings, all at fixed places.

use undercroft_hosts::Disk;
use undercroft_hosts::hyperv::{BadGpa, Breach, Controller, Counts, Flat, Guest, Hyperv, Interrupt, Knobs, Settings};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};

pub const HYPERCALL: u64 = 0x1000;
pub const SIMP: u64 = 0x2000;
pub const SIEFP: u64 = 0x3000;
pub const INPUT: u64 = 0x4000;
/// A page for data.
pub const DATA: u64 = 0x8000;
/// The rings of channel 1: for the host, and for the guest.
pub const FIRST_PAGE: u64 = 0x100;
pub const VECTOR: u8 = 0x40;
pub const HANDLE: u32 = 0xe1e10;
pub const SLOT: u64 = SIMP + 2 * 256;
const FLAGS: u64 = SIEFP + 2 * 256;

/// The guest with its host.
pub struct Hand {
    pub host: Hyperv,
    pub guest: Flat,
    /// Pages of each ring, with the control page.
    pub pages: u64,
    /// Where the next packet goes, and where the next one comes.
    pub sent: u32,
    pub got: u32,
    /// The connection to signal.
    pub connection: u32,
    pub transaction: u64,
    /// Bytes of a storage packet.
    pub payload: usize,
}

/// A packet from the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub kind: u16,
    pub flags: u16,
    pub transaction: u64,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// SRB status, SCSI status, bytes moved.
    pub fn status(&self) -> (u8, u8, u32) {
        (self.payload[14], self.payload[15], self.u32(24))
    }
}

pub fn message(kind: u32, body: &[u32]) -> Vec<u8> {
    [kind, 0].iter().chain(body).flat_map(|word| word.to_le_bytes()).collect()
}

/// A disk of 32,768 patterned sectors without its unit attention.
pub fn disk() -> Target {
    let mut target = Target::new().with(0, Lun::new(Disk::patterned(32768, 1), LunSettings::default()));
    target.execute(undercroft_hosts::scsi::Unit::Number(0), &[0; 6], &[]);
    target
}

impl Hand {
    pub fn new(knobs: Knobs) -> Self {
        let mut host = Hyperv::new(Settings { vps: 2, ..Settings::default() });
        host.knobs = knobs;
        host.add_controller(Controller::scsi(1, disk()));
        let guest = Flat::new(16 << 20);
        Self { host, guest, pages: 17, sent: 0, got: 0, connection: 0x2001, transaction: 1, payload: 64 }
    }

    pub fn wrmsr(&mut self, register: u32, value: u64) -> bool {
        self.host.wrmsr(&self.guest, 0, register, value).is_ok()
    }

    /// Hypercall page and interrupt controller.
    pub fn registers(&mut self) {
        for (register, value) in [
            (0x4000_0000, 1 << 63 | 0x1234),
            (0x4000_0001, HYPERCALL | 1),
            (0x4000_0083, SIMP | 1),
            (0x4000_0082, SIEFP | 1),
            (0x4000_0092, u64::from(VECTOR)),
            (0x4000_0080, 1),
        ] {
            assert!(self.wrmsr(register, value));
        }
    }

    pub fn breaches(&self) -> &[Breach] {
        self.host.breaches()
    }

    pub fn counts(&self) -> Counts {
        self.host.counts()
    }

    pub fn interrupts(&mut self) -> Vec<Interrupt> {
        self.host.take_interrupts()
    }

    pub fn call(&mut self, control: u64, input: u64) -> u64 {
        self.host.hypercall(&self.guest, 0, control, input, 0)
    }

    pub fn work(&mut self) {
        while self.host.work(&self.guest, usize::MAX) {}
    }

    pub fn post_on(&mut self, connection: u32, bytes: &[u8]) -> u64 {
        let header: Vec<u8> =
            [connection, 0, 1, bytes.len() as u32].iter().flat_map(|word| word.to_le_bytes()).collect();
        self.guest.write(INPUT, &[header, bytes.to_vec()].concat()).unwrap();
        self.call(0x5c, INPUT)
    }

    pub fn post(&mut self, kind: u32, body: &[u32]) -> u64 {
        self.post_on(1, &message(kind, body))
    }

    /// Takes the message in the slot, with its header.
    pub fn slot(&mut self) -> Option<Vec<u8>> {
        if self.guest.load(SLOT).unwrap() == 0 {
            return None;
        }
        let mut header = [0; 16];
        self.guest.read(SLOT, &mut header).unwrap();
        let mut payload = vec![0; usize::from(header[4]).min(240)];
        self.guest.read(SLOT + 16, &mut payload).unwrap();
        self.guest.store(SLOT, 0).unwrap();
        if self.guest.load(SLOT + 4).unwrap() & 1 << 8 != 0 {
            assert!(self.wrmsr(0x4000_0084, 0));
        }
        Some([header.to_vec(), payload].concat())
    }

    /// Takes all messages: their types and first words.
    pub fn messages(&mut self) -> Vec<(u32, Vec<u32>)> {
        let mut all = Vec::new();
        self.work();
        while let Some(bytes) = self.slot() {
            let words: Vec<u32> =
                bytes[16..].chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
            all.push((words[0], words.get(2..).unwrap_or_default().to_vec()));
            self.work();
        }
        all
    }

    /// Messages of a type.
    pub fn types(&mut self) -> Vec<u32> {
        self.messages().iter().map(|(kind, _)| *kind).collect()
    }

    pub fn contact(&mut self, version: u32) -> bool {
        let (connection, word) = if version >= 0x5_0000 { (4, 2) } else { (1, 0) };
        self.post_on(connection, &message(14, &[version, 0, word, 0, 0, 0, 0, 0]));
        let answer = self.messages();
        assert_eq!(answer[0].0, 15);
        answer[0].1[0] & 0xff == 1
    }

    /// A list of the ring's pages, in as many messages as it takes.
    pub fn gpadl(&mut self, channel: u32, handle: u32, first: u64, pages: u64) {
        let data: Vec<u8> = [pages * 4096].into_iter().chain(first..first + pages).flat_map(u64::to_le_bytes).collect();
        let (head, rest) = data.split_at(data.len().min(27 * 8));
        let size = (data.len() as u32) | 1 << 16;
        self.post_on(1, &[message(8, &[channel, handle, size]), head.to_vec()].concat());
        for (at, part) in rest.chunks(28 * 8).enumerate() {
            self.post_on(1, &[message(9, &[at as u32, handle]), part.to_vec()].concat());
        }
    }

    pub fn prepare_rings(&mut self) {
        for page in 0..2 * self.pages {
            self.guest.write((FIRST_PAGE + page) * 4096, &[0; 4096]).unwrap();
        }
        self.guest.store(self.control(false) + 64, 1).unwrap();
        (self.sent, self.got) = (0, 0);
    }

    pub fn open_message(channel: u32, handle: u32, vp: u32, start: u32) -> Vec<u8> {
        let mut bytes = message(5, &[channel, 0xabcd, handle, vp, start]);
        bytes.resize(148, 0);
        bytes
    }

    /// Control page of the ring for the host, or for the guest.
    pub fn control(&self, for_guest: bool) -> u64 {
        (FIRST_PAGE + if for_guest { self.pages } else { 0 }) * 4096
    }

    fn size(&self) -> u32 {
        (self.pages as u32 - 1) * 4096
    }

    /// Up to an open channel 1.
    pub fn open(knobs: Knobs) -> Self {
        Self::open_pages(knobs, 17)
    }

    pub fn open_pages(knobs: Knobs, pages: u64) -> Self {
        let mut hand = Self::new(knobs);
        hand.pages = pages;
        hand.registers();
        assert!(hand.contact(hand.host.knobs.version));
        hand.post(3, &[]);
        assert_eq!(hand.types(), [1, 4]);
        hand.open_channel();
        hand
    }

    pub fn open_channel(&mut self) {
        self.prepare_rings();
        self.gpadl(1, HANDLE, FIRST_PAGE, 2 * self.pages);
        self.post_on(1, &Self::open_message(1, HANDLE, 0, self.pages as u32));
        assert_eq!(self.messages(), [(10, vec![1, HANDLE, 0]), (6, vec![1, 0xabcd, 0])]);
        self.interrupts();
    }

    /// Up to an initialised storage device.
    pub fn ready(knobs: Knobs) -> Self {
        let mut hand = Self::open(knobs);
        hand.initialise(0x0600);
        hand
    }

    pub fn initialise(&mut self, version: u16) {
        for (operation, word) in [(7, 0), (9, u32::from(version)), (10, 0), (8, 0)] {
            let answer = self.ask(operation, word);
            assert_eq!((answer.kind, answer.u32(0), answer.u32(8)), (0xb, 1, 0), "operation {operation}");
            if operation == 9 && version < 0x0501 {
                self.payload = 48;
            }
        }
    }

    /// A packet of initialisation and its answer.
    pub fn ask(&mut self, operation: u32, word: u32) -> Packet {
        let mut payload = vec![0; self.payload];
        payload[..4].copy_from_slice(&operation.to_le_bytes());
        payload[4] = 1;
        payload[12..16].copy_from_slice(&word.to_le_bytes());
        self.send(6, 1, &[], &payload);
        self.receive().unwrap()
    }

    fn raw_write(&self, at: u32, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let offset = (at + index as u32) % self.size();
            self.guest.write(self.control(false) + 4096 + u64::from(offset), &[*byte]).unwrap();
        }
    }

    pub fn raw_read(&self, at: u32, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            let offset = (at + index as u32) % self.size();
            self.guest.read(self.control(true) + 4096 + u64::from(offset), std::slice::from_mut(byte)).unwrap();
        }
    }

    /// The bytes of a packet with its trailer.
    pub fn packet(&self, kind: u16, flags: u16, extension: &[u8], payload: &[u8]) -> Vec<u8> {
        let offset = 16 + extension.len();
        let len = (offset + payload.len()).next_multiple_of(8);
        let header = [kind, offset as u16 / 8, len as u16 / 8, flags].map(u16::to_le_bytes).concat();
        let mut bytes =
            [header, self.transaction.to_le_bytes().to_vec(), extension.to_vec(), payload.to_vec()].concat();
        bytes.resize(len, 0);
        bytes.extend((u64::from(self.sent) << 32).to_le_bytes());
        bytes
    }

    /// Puts bytes in the ring without telling anybody.
    pub fn put(&mut self, bytes: &[u8]) {
        self.raw_write(self.sent, bytes);
        self.sent = (self.sent + bytes.len() as u32) % self.size();
        self.guest.store(self.control(false), self.sent).unwrap();
        self.transaction += 1;
    }

    pub fn signal(&mut self) {
        assert_eq!(self.call(0x1005d, u64::from(self.connection)), 0);
        self.work();
    }

    pub fn send(&mut self, kind: u16, flags: u16, extension: &[u8], payload: &[u8]) {
        let bytes = self.packet(kind, flags, extension, payload);
        self.put(&bytes);
        self.signal();
    }

    /// A command that reads into, or writes from, the page for data.
    pub fn command(&self, cdb: &[u8], direction: u8, len: u32) -> (Vec<u8>, Vec<u8>) {
        let mut payload = vec![0; self.payload];
        payload[0] = 3;
        payload[4] = 1;
        let long = self.payload == 64;
        payload[12] = if long { 0x34 } else { 36 };
        payload[20] = cdb.len() as u8;
        payload[21] = if long { 0x14 } else { 0x12 };
        payload[22] = direction;
        payload[24..28].copy_from_slice(&len.to_le_bytes());
        payload[28..28 + cdb.len()].copy_from_slice(cdb);
        if long {
            payload[52] = [0x88, 0x48, 8][usize::from(direction)];
            payload[56] = 60;
        }
        let mut extension = Vec::new();
        if len > 0 {
            extension.extend([0, 1, len, 0].iter().flat_map(|word: &u32| word.to_le_bytes()));
            let pages = u64::from(len).div_ceil(4096);
            extension.extend((0..pages).flat_map(|page| (DATA / 4096 + page).to_le_bytes()));
        }
        (extension, payload)
    }

    /// Sends a command; its answer, if there is one.
    pub fn execute(&mut self, cdb: &[u8], direction: u8, len: u32) -> Option<Packet> {
        let (extension, payload) = self.command(cdb, direction, len);
        self.send(if len > 0 { 9 } else { 6 }, 1, &extension, &payload);
        self.receive()
    }

    pub fn read(&mut self, lba: u8) -> Option<Packet> {
        self.execute(&[0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0], 1, 512)
    }

    pub fn data(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.guest.read(DATA, &mut data).unwrap();
        data
    }

    /// Takes the next packet from the ring, if it makes sense.
    pub fn receive(&mut self) -> Option<Packet> {
        let published = self.guest.load(self.control(true)).unwrap();
        if published == self.got {
            return None;
        }
        let mut header = [0; 16];
        self.raw_read(self.got, &mut header);
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (offset, len) = (usize::from(half(2)) * 8, usize::from(half(4)) * 8);
        let mut body = vec![0; len + 8];
        self.raw_read(self.got, &mut body);
        assert_eq!(body[len..], (u64::from(self.got) << 32).to_le_bytes(), "the trailer");
        self.got = (self.got + len as u32 + 8) % self.size();
        self.guest.store(self.control(true) + 4, self.got).unwrap();
        Some(Packet {
            kind: half(0),
            flags: half(6),
            transaction: u64::from_le_bytes(header[8..].try_into().unwrap()),
            payload: body[offset..len].to_vec(),
        })
    }

    /// Takes a channel's event flag.
    pub fn take_flag(&mut self, channel: u32) -> bool {
        let word = self.guest.load(FLAGS).unwrap();
        self.guest.store(FLAGS, word & !(1 << channel)).unwrap();
        word >> channel & 1 != 0
    }

    pub fn bad(gpa: u64, len: usize) -> Breach {
        Breach::Memory(BadGpa { gpa, len })
    }
}
