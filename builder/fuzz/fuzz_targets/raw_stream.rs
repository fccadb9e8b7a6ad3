//! Arbitrary records behind the header of a flattened stream: their measure lies within the device, or they are refused.

#![no_main]

use kdump_builder::kdumpctl::recover::stream::measure;
use libfuzzer_sys::fuzz_target;
use std::io::Write;

fuzz_target!(|records: &[u8]| {
    let mut bytes = b"makedumpfile\0\0\0\0".to_vec();
    bytes.extend([1_i64, 1].map(i64::to_be_bytes).concat());
    bytes.resize(4096, 0);
    bytes.extend(records);
    let mut device = tempfile::tempfile().unwrap();
    device.write_all(&bytes).unwrap();
    for end in [bytes.len() as u64, 4096, u64::MAX] {
        if let Ok(stream) = measure(&device, 0, end) {
            assert!(stream.length <= end.max(4096) && stream.data <= stream.length);
        }
    }
});
