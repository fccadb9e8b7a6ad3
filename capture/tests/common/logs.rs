//! Parts of a log's recipe: what happened to the lockless ring, and the record buffer of kernels before 5.10.

use std::collections::VecDeque;

use super::{DESCS, IMAGE, Machine, PRB, virt};

/// First byte and length of the memory in which every part of every log lies.
pub const MEMORY: [(u64, usize); 2] = [(IMAGE + PRB, 0x7000), (BUFFER, 0x1000)];

/// Where `clear_seq` and its latch are.
const CLEAR: u64 = IMAGE + 0x8_8000;
/// `log_buf`, its length and indices, one every 8 bytes; the buffer itself.
const VARIABLES: u64 = IMAGE + 0x8_9000;
const BUFFER: u64 = IMAGE + 0x9_0000;

impl Machine {
    /// Puts record `id` of the lockless ring into `state`.
    pub fn log_state(&mut self, id: u64, state: u64) {
        self.put64(IMAGE + DESCS + id * 24, id | state << 62);
    }

    /// Record `sequence` was the next one when the lockless ring was cleared. With `latch`, a counter, the kernel keeps
    /// two copies of that number, of which only one is good.
    pub fn log_cleared(&mut self, sequence: u64, latch: Option<u32>) {
        self.vmcoreinfo += &format!("OFFSET(printk_info.seq)=0\nSYMBOL(clear_seq)={:x}\n", virt(CLEAR));
        let Some(counter) = latch else { return self.put64(CLEAR, sequence) };
        self.vmcoreinfo += "SIZE(latched_seq)=24\nOFFSET(latched_seq.val)=8\n";
        self.put(CLEAR, &counter.to_le_bytes());
        let good = u64::from(counter & 1);
        self.put64(CLEAR + 8 + 8 * good, sequence);
        self.put64(CLEAR + 8 + 8 * (1 - good), 1 << 40);
    }

    /// The same kernel without its lockless ring.
    pub fn without_log(&mut self) {
        self.vmcoreinfo = self.vmcoreinfo.replace("SYMBOL(prb)=", "NO_PRB=");
    }

    /// Replaces the log by a record buffer.
    pub fn record_buffer(&mut self, log: &RecordBuffer) {
        self.without_log();
        let name = log.name;
        self.vmcoreinfo += &format!(
            "SIZE({name})={}\nOFFSET({name}.ts_nsec)=0\nOFFSET({name}.len)=8\nOFFSET({name}.text_len)=10\n",
            log.header(),
        );
        if log.callers {
            self.vmcoreinfo += &format!("OFFSET({name}.caller_id)=16\n");
        }
        self.put64(VARIABLES, virt(BUFFER));
        let numbers = [
            ("log_buf_len", log.bytes.len()),
            ("log_first_idx", log.first),
            ("log_next_idx", log.next),
            ("clear_idx", log.clear),
        ];
        self.vmcoreinfo += &format!("SYMBOL(log_buf)={:x}\n", virt(VARIABLES));
        for (at, (name, number)) in (VARIABLES + 8..).step_by(8).zip(numbers) {
            // What lies behind a variable is none of its business.
            self.put64(at, number as u64 | 0xdead << 32);
            self.vmcoreinfo += &format!("SYMBOL({name})={:x}\n", virt(at));
        }
        self.put(BUFFER, &log.bytes);
    }
}

/// The log of a kernel from 3.5 to 5.9, written as it was then.
#[derive(Clone, Debug)]
pub struct RecordBuffer {
    /// `log` or `printk_log`.
    pub name: &'static str,
    /// Whether records tell who logged them.
    pub callers: bool,
    pub bytes: Vec<u8>,
    pub first: usize,
    pub next: usize,
    pub clear: usize,
    /// Places of the records that are there.
    pub places: VecDeque<usize>,
}

impl RecordBuffer {
    /// An empty one of `len` bytes.
    pub fn new(len: usize) -> RecordBuffer {
        let bytes = vec![0xee; len];
        RecordBuffer { name: "printk_log", callers: true, bytes, first: 0, next: 0, clear: 0, places: VecDeque::new() }
    }

    fn header(&self) -> usize {
        if self.callers { 24 } else { 16 }
    }

    /// Logs a record; the oldest make room for it.
    pub fn push(&mut self, ts: u64, caller: u32, text: &[u8]) {
        // A dictionary follows the text, and a record begins at a multiple of 8.
        let len = (self.header() + text.len() + 5).next_multiple_of(8);
        while !self.has_room(len + self.header()) {
            let gone = self.places.pop_front().unwrap();
            let first = self.places.front().copied().unwrap_or(self.next);
            // A clear that has been overtaken moves along.
            if self.clear == gone {
                self.clear = first;
            }
            self.first = first;
        }
        if self.next + len + self.header() > self.bytes.len() {
            let end = self.next + self.header();
            self.bytes[self.next..end].fill(0);
            self.clear = if self.clear == self.next { 0 } else { self.clear };
            self.first = if self.places.is_empty() { 0 } else { self.first };
            self.next = 0;
        }
        let record = &mut self.bytes[self.next..][..len];
        record.fill(b'd');
        record[..8].copy_from_slice(&ts.to_le_bytes());
        record[8..10].copy_from_slice(&(len as u16).to_le_bytes());
        record[10..12].copy_from_slice(&(text.len() as u16).to_le_bytes());
        if self.callers {
            record[16..20].copy_from_slice(&caller.to_le_bytes());
        }
        let at = if self.callers { 24 } else { 16 };
        record[at..at + text.len()].copy_from_slice(text);
        self.places.push_back(self.next);
        self.next += len;
    }

    fn has_room(&self, len: usize) -> bool {
        let free = if self.places.is_empty() || self.next > self.first {
            (self.bytes.len() - self.next).max(self.first)
        } else {
            self.first - self.next
        };
        free >= len
    }

    /// `dmesg --clear`.
    pub fn clear(&mut self) {
        self.clear = self.next;
    }
}
