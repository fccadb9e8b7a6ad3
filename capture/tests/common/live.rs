//! Part of a recipe: the kernel's own table of symbols, and the list of its live patches.

use super::{IMAGE, Machine, UTS, virt};

/// First byte and length of the memory in which all of it lies.
pub const MEMORY: (u64, usize) = (LIVE, 0x3000);
/// The list of patches begins here.
pub const HEAD: u64 = LIVE + 0x2000;
/// The patches, one every 128 bytes, each with its name behind the place of its list.
pub const PATCHES: u64 = LIVE + 0x2100;

const LIVE: u64 = IMAGE + 0xa_0000;
const COUNT: u64 = LIVE;
const BASE: u64 = LIVE + 8;
const INDEX: u64 = LIVE + 0x100;
const TABLE: u64 = LIVE + 0x400;
const ADDRESSES: u64 = LIVE + 0xc00;
const NAMES: u64 = LIVE + 0x1000;

/// How the kernel writes addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    Absolute,
    Relative,
    AbsolutePercpu,
}

impl Machine {
    /// A kernel with these live patches, the first one loaded first; without live patching, if there is no list.
    pub fn live_patches(&mut self, patches: Option<&[&str]>, addresses: Addresses) {
        let long = "a_long_name_".repeat(30);
        // A per-cpu variable, what is known, one whose length takes two bytes, and perhaps the list.
        let mut symbols = vec![
            ("Afixed_percpu_data".to_owned(), 0x40),
            ("Dinit_uts_ns".to_owned(), virt(IMAGE + UTS)),
            (format!("t{long}"), virt(LIVE)),
        ];
        symbols.extend(patches.map(|_| ("dklp_patches".to_owned(), virt(HEAD))));
        self.tokens();
        self.put64(COUNT, symbols.len() as u64 | 0xdead << 32);
        let base = virt(IMAGE);
        self.put64(BASE, base);
        let mut names = Vec::new();
        for (number, (name, address)) in symbols.iter().enumerate() {
            let packed = pack(name);
            match u8::try_from(packed.len()).ok().filter(|length| *length < 128) {
                Some(length) => names.push(length),
                None => names.extend([packed.len() as u8 | 0x80, (packed.len() >> 7) as u8]),
            }
            names.extend(packed);
            let at = number as u64;
            match addresses {
                Addresses::Absolute => self.put64(ADDRESSES + at * 8, *address),
                Addresses::Relative => {
                    self.put(ADDRESSES + at * 4, &(address.wrapping_sub(base) as u32).to_le_bytes());
                }
                Addresses::AbsolutePercpu => {
                    let offset = match *address < base {
                        true => *address as i32,
                        false => -1 - (*address - base) as i32,
                    };
                    self.put(ADDRESSES + at * 4, &offset.to_le_bytes());
                }
            }
        }
        self.put(NAMES, &names);
        let tables: &[(&str, u64)] = match addresses {
            Addresses::Absolute => &[("kallsyms_addresses", ADDRESSES)],
            _ => &[("kallsyms_offsets", ADDRESSES), ("kallsyms_relative_base", BASE)],
        };
        for (name, at) in [
            ("kallsyms_num_syms", COUNT),
            ("kallsyms_names", NAMES),
            ("kallsyms_token_table", TABLE),
            ("kallsyms_token_index", INDEX),
        ]
        .iter()
        .chain(tables)
        {
            self.vmcoreinfo += &format!("SYMBOL({name})={:x}\n", virt(*at));
        }
        self.list(patches.unwrap_or_default());
    }

    /// A token for each printable letter, and two for what occurs more often.
    fn tokens(&mut self) {
        let mut table = Vec::new();
        for token in 0..=255u8 {
            self.put(INDEX + u64::from(token) * 2, &(table.len() as u16).to_le_bytes());
            match token {
                1 => table.extend(b"klp_"),
                2 => table.extend(b"_uts"),
                b'!'..=b'~' => table.push(token),
                _ => {}
            }
            table.push(0);
        }
        self.put(TABLE, &table);
    }

    /// A ring of patches behind its head.
    fn list(&mut self, patches: &[&str]) {
        let node = |number: usize| match number < patches.len() {
            true => PATCHES + number as u64 * 128,
            false => HEAD,
        };
        self.put64(HEAD, virt(node(0)));
        for (number, name) in patches.iter().enumerate() {
            let at = node(number);
            self.put64(at, virt(node(number + 1)));
            self.put64(at + 16, virt(at + 64));
            self.put(at + 64, &[name.as_bytes(), &[0]].concat());
        }
    }
}

fn pack(name: &str) -> Vec<u8> {
    name.replace("klp_", "\u{1}").replace("_uts", "\u{2}").into_bytes()
}
