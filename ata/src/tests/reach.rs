//! Memory that one table cannot describe (X05): each hazard with a twin of the driver that has it.

use super::*;

/// A request whose memory is in more pieces than a table has regions: several commands, each covered by its table.
fn many_pieces(defects: Defects) {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.disk(defects, |task, disk| {
            let sink = Sink::new();
            let pieces: Vec<usize> = (0..700).map(|n| if n % 3 == 0 { 1024 } else { 512 }).collect();
            let blocks: usize = pieces.iter().sum::<usize>() / 512;
            go(&disk, scattered(40, &pieces, sink.to(0))).unwrap();
            let done = sink.watch(task, &rig.machine, &disk, 1, Duration::from_secs(200)).remove(0);
            assert_eq!(rig.host.with(|host| host.breaches()), [], "a command beyond its table");
            assert_eq!(done.result, Ok(()));
            assert!(bytes(&done.request) == pattern(0, 40, blocks as u64));
            assert_eq!(rig.log(0).len(), 3);
        });
    }
}

#[test]
fn x05_more_pieces_than_a_table_has_regions() {
    many_pieces(GOOD);
}

#[test]
fn x05_more_pieces_than_a_table_has_regions_control() {
    assert!(caught("a command beyond its table", || many_pieces(Defects::one(Defect::IssuesBeyondTable))));
}

/// A machine whose memory lies on both sides of 4 GiB.
fn straddling() -> Config {
    Config { ram: 16 << 20, ram_base: (4 << 30) - (4 << 20), ..Config::default() }
}

/// Pieces below and above 4 GiB in turn.
fn around_4_gib(lba: u64, completion: Completion) -> (Request, u64) {
    // All that is left below is held while pieces above are taken.
    let high = |bytes: usize| {
        let mut held = Vec::new();
        loop {
            let buf = buffer(bytes);
            if buf.segment().addr >= 1 << 32 {
                return buf;
            }
            held.push(buf);
        }
    };
    let highs: Vec<DmaBuf> = (0..3).map(|_| high(96 << 10)).collect();
    let mut list: Vec<Piece> = Vec::new();
    for high in highs {
        list.push(buffer(8192).into());
        list.push(high.into());
    }
    assert!(list.iter().any(|piece| piece.segment().addr < 1 << 32));
    let bytes: usize = list.iter().map(Piece::len).sum();
    (Request::new(Op::Read, lba, (bytes / 512) as u32, Data::List(list), completion), bytes as u64 / 512)
}

/// Memory beyond what the bus master reaches goes through the bounce buffer, whatever is beside it.
fn above_4_gib(defects: Defects) {
    let rig = Rig::with(straddling(), Settings::default());
    rig.disk(defects, |task, disk| {
        let sink = Sink::new();
        let (request, blocks) = around_4_gib(300, sink.to(0));
        go(&disk, request).unwrap();
        let mut done = sink.watch(task, &rig.machine, &disk, 1, Duration::from_secs(200)).remove(0);
        assert_eq!(rig.host.with(|host| host.breaches()), [], "memory that is not the request's");
        assert_eq!(done.result, Ok(()));
        assert!(bytes(&done.request) == pattern(0, 300, blocks));
        // And back, from the same memory, to another place.
        done.request.op = Op::Write;
        done.request.lba = 4000;
        go(&disk, done.request).unwrap();
        assert_eq!(sink.one(task).result, Ok(()));
        assert!((0..blocks).all(|n| rig.disk.read_sector(4000 + n) == Disk::pattern(seed(0), 300 + n)));
    });
}

#[test]
fn x05_memory_beyond_4_gib() {
    above_4_gib(GOOD);
}

#[test]
fn x05_memory_beyond_4_gib_control() {
    assert!(caught("memory that is not the request's", || above_4_gib(Defects::one(Defect::CutsAddresses))));
}

/// One long piece, which crosses several multiples of 64 KiB.
fn across_64_kib(defects: Defects) {
    let rig = Rig::new();
    rig.disk(defects, |task, disk| {
        let sink = Sink::new();
        for offset in [0usize, 512, 4096, 65_024] {
            let piece = Piece::new(buffer(300 << 10), offset, 200 << 10);
            let request = Request::new(Op::Read, 7, 400, piece.into(), sink.to(0));
            go(&disk, request).unwrap();
            let done = sink.watch(task, &rig.machine, &disk, 1, Duration::from_secs(200)).remove(0);
            assert_eq!(rig.host.with(|host| host.breaches()), [], "a region across 64 KiB");
            assert_eq!(done.result, Ok(()));
            assert!(bytes(&done.request) == pattern(0, 7, 400));
        }
    });
}

#[test]
fn x05_regions_do_not_cross_64_kib() {
    across_64_kib(GOOD);
}

#[test]
fn x05_regions_do_not_cross_64_kib_control() {
    assert!(caught("a region across 64 KiB", || across_64_kib(Defects::one(Defect::CrossesBoundary))));
}
