//! Tables that partitioning tools wrote, and images made by an independent writer.

use bytemuck::bytes_of;
use gpt_disk_types::{
    BlockSize, Crc32, GptHeader, GptPartitionEntry, GptPartitionEntryArray, GptPartitionEntryArrayLayout,
    GptPartitionEntrySize, GptPartitionName, GptPartitionType, Lba, LbaLe, MasterBootRecord, U32Le, guid,
};

/// The whole image of a golden file, and its block size.
pub fn load(text: &str) -> (Vec<u8>, u32) {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let (blocks, size) = lines.next().unwrap().split_once(' ').unwrap();
    let size: usize = size.parse().unwrap();
    let mut image = vec![0; blocks.parse::<usize>().unwrap() * size];
    for line in lines {
        let (at, hex) = line.split_once(": ").unwrap();
        let at = at.parse::<usize>().unwrap() * size;
        for (byte, digits) in image[at..].iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
    }
    (image, size as u32)
}

pub const GPT_512: &str = include_str!("golden/gpt-512.hex");
pub const MBR_EXTENDED: &str = include_str!("golden/mbr-extended.hex");

/// A GPT to write.
pub struct Image {
    pub block_size: u32,
    pub blocks: u64,
    pub entry_size: u32,
    pub entries: u32,
    pub parts: Vec<(u64, u64, &'static str)>,
}

impl Image {
    pub fn new(block_size: u32, parts: &[(u64, u64, &'static str)]) -> Self {
        Self { block_size, blocks: 512, entry_size: 128, entries: 128, parts: parts.to_vec() }
    }

    /// The image, with `change` applied to both headers before their checksums are made.
    pub fn write(&self, change: impl Fn(&mut GptHeader)) -> Vec<u8> {
        let size = self.block_size as usize;
        let mut image = vec![0; self.blocks as usize * size];
        image[..512].copy_from_slice(bytes_of(&MasterBootRecord::protective_mbr(self.blocks)));
        let array_blocks = (self.entries as u64 * u64::from(self.entry_size)).div_ceil(size as u64);
        let last = self.blocks - 1;
        for (at, alternate, array) in [(1, last, 2), (last, 1, last - array_blocks)] {
            let layout = GptPartitionEntryArrayLayout {
                start_lba: Lba(array),
                entry_size: GptPartitionEntrySize::new(self.entry_size).unwrap(),
                num_entries: self.entries,
            };
            let mut storage = vec![0; array_blocks as usize * size];
            let mut table =
                GptPartitionEntryArray::new(layout, BlockSize::new(self.block_size).unwrap(), &mut storage).unwrap();
            for (index, (first, end, name)) in self.parts.iter().enumerate() {
                *table.get_partition_entry_mut(index as u32).unwrap() = GptPartitionEntry {
                    partition_type_guid: GptPartitionType(guid!("0fc63daf-8483-4772-8e79-3d69d8477de4")),
                    starting_lba: LbaLe::from_u64(*first),
                    ending_lba: LbaLe::from_u64(*end),
                    name: name.parse::<GptPartitionName>().unwrap(),
                    ..GptPartitionEntry::default()
                };
            }
            let crc: Crc32 = table.calculate_crc32();
            let mut header = GptHeader {
                my_lba: LbaLe::from_u64(at),
                alternate_lba: LbaLe::from_u64(alternate),
                first_usable_lba: LbaLe::from_u64(2 + array_blocks),
                last_usable_lba: LbaLe::from_u64(last - array_blocks - 1),
                partition_entry_lba: LbaLe::from_u64(array),
                number_of_partition_entries: U32Le::from_u32(self.entries),
                size_of_partition_entry: U32Le::from_u32(self.entry_size),
                partition_entry_array_crc32: crc,
                ..GptHeader::default()
            };
            change(&mut header);
            header.update_header_crc32();
            let at = at as usize * size;
            image[at..at + 92].copy_from_slice(bytes_of(&header));
            let array = array as usize * size;
            image[array..array + storage.len()].copy_from_slice(&storage);
        }
        image
    }
}
