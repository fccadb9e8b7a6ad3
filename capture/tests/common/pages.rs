//! How kernels told their pages apart, and how a page is made what its kind says.

use super::{Machine, STRUCT_PAGE};

/// How a kernel told its pages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    V4_3,
    V4_9,
    V6_1,
    V6_4,
    V6_6,
    V6_9,
    V6_11,
    V6_12,
    V7_1,
}

impl Era {
    pub const ALL: [Era; 9] =
        [Era::V4_3, Era::V4_9, Era::V6_1, Era::V6_4, Era::V6_6, Era::V6_9, Era::V6_11, Era::V6_12, Era::V7_1];

    pub fn named(name: &str) -> Era {
        let names = ["4.3", "4.9", "6.1", "6.4", "6.6", "6.9", "6.11", "6.12", "7.1"];
        Era::ALL[names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("no kernel {name}"))]
    }

    /// Values of page types: buddy, offline, unaccepted, hugetlb, slab.
    fn types(self) -> [Option<u32>; 5] {
        match self {
            Era::V4_3 => [Some(-128i32 as u32), None, None, None, None],
            Era::V4_9 => [Some(-128i32 as u32), Some(-256i32 as u32), None, None, None],
            Era::V6_1 | Era::V6_4 | Era::V6_6 => [Some(!0x80), Some(!0x100), None, None, None],
            Era::V6_9 => [Some(!0x80), Some(!0x100), None, Some(!0x800), None],
            Era::V6_11 => [Some(!0x4000_0000), Some(!0x2000_0000), None, Some(!0x0800_0000), Some(!0x0400_0000)],
            Era::V6_12 => [Some(0xf0 << 24), Some(0xf1 << 24), None, Some(0xf4 << 24), Some(0xf5 << 24)],
            Era::V7_1 => [Some(0xf0 << 24), Some(0xf1 << 24), Some(0xf7 << 24), Some(0xf4 << 24), Some(0xf5 << 24)],
        }
    }

    pub(super) fn vmcoreinfo(self) -> String {
        let mut text = String::from(
            "NUMBER(PG_lru)=4\nNUMBER(PG_private)=13\nNUMBER(PG_swapcache)=10\nNUMBER(PG_swapbacked)=19\n\
             NUMBER(PG_hwpoison)=22\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\nOFFSET(page.mapping)=24\n\
             OFFSET(page.lru)=8\nOFFSET(page._mapcount)=48\nOFFSET(page.private)=40\nNUMBER(PG_head_mask)=65536\n",
        );
        for (key, value) in ["BUDDY", "OFFLINE", "UNACCEPTED", "HUGETLB", "SLAB"].iter().zip(self.types()) {
            if let Some(value) = value {
                text += &format!("NUMBER(PAGE_{key}_MAPCOUNT_VALUE)={}\n", value as i32);
            }
        }
        if self.types()[4].is_none() {
            text += "NUMBER(PG_slab)=9\n";
        }
        text += match self {
            Era::V4_3 => {
                "OFFSET(page.compound_dtor)=8\nOFFSET(page.compound_order)=16\nSYMBOL(free_huge_page)=ffffffff81234560\n"
            }
            Era::V4_9 => "OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=18\nNUMBER(HUGETLB_PAGE_DTOR)=2\n",
            Era::V6_1 => "OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=17\nNUMBER(HUGETLB_PAGE_DTOR)=2\n",
            Era::V6_4 => "OFFSET(folio._folio_dtor)=80\nOFFSET(folio._folio_order)=81\nNUMBER(HUGETLB_PAGE_DTOR)=2\n",
            Era::V6_6 => "NUMBER(PG_hugetlb)=8\n",
            Era::V6_9 | Era::V6_11 | Era::V6_12 | Era::V7_1 => "",
        };
        text + match self {
            Era::V4_3 => "",
            Era::V7_1 => "OFFSET(page.compound_info)=8\n",
            _ => "OFFSET(page.compound_head)=8\n",
        }
    }
}

impl Machine {
    fn or64(&mut self, phys: u64, bits: u64) {
        self.put64(phys, self.get64(phys) | bits);
    }

    /// Makes page `pfn` what `kinds` say.
    pub fn set(&mut self, pfn: u64, kinds: &[&str]) {
        let page = self.struct_page(pfn);
        let types = self.era.types();
        for kind in kinds {
            let (name, order) = kind.split_once(':').map_or((*kind, 0), |(n, o)| (n, o.parse().unwrap()));
            let era = self.era;
            let of = |index: usize| types[index].unwrap_or_else(|| panic!("{era:?} has no {name}")).to_le_bytes();
            match name {
                "buddy" => {
                    self.put(page + 48, &of(0));
                    self.put64(page + 40, order);
                }
                "typed-with-data" => self.put(page + 48, &(types[0].unwrap() | 0x1234).to_le_bytes()),
                "offline" => self.put(page + 48, &of(1)),
                "unaccepted" => self.put(page + 48, &of(2)),
                "slab" => match types[4] {
                    Some(value) => self.put(page + 48, &value.to_le_bytes()),
                    None => self.or64(page, 1 << 9),
                },
                "lru" => self.or64(page, 1 << 4),
                "private" => self.or64(page, 1 << 13),
                "swapcache" => self.or64(page, 1 << 10),
                "swapbacked" => self.or64(page, 1 << 19),
                "waiters" => self.or64(page, 1 << 7),
                "hwpoison" => self.or64(page, 1 << 22),
                "anon" => self.or64(page + 24, 0xffff_8880_0000_0001),
                "file" => self.or64(page + 24, 0xffff_8880_0000_0000),
                "tail" => self.or64(page + 8, 1),
                "compound" => self.compound(pfn, order, 1),
                "hugetlb" => {
                    self.compound(pfn, order, 2);
                    match self.era {
                        Era::V6_6 => self.or64(page + STRUCT_PAGE, 1 << 8),
                        Era::V6_9 | Era::V6_11 | Era::V6_12 | Era::V7_1 => self.put(page + 48, &of(3)),
                        _ => {}
                    }
                }
                _ => panic!("no kind {name}"),
            }
        }
    }

    fn compound(&mut self, pfn: u64, order: u64, dtor: u8) {
        let page = self.struct_page(pfn);
        self.or64(page, 1 << 16);
        // Before 4.4 a tail had no such pointer.
        let tails = if self.era == Era::V4_3 { 0 } else { (1u64 << order).min(0x600 - pfn) };
        for tail in 1..tails {
            self.put64(page + tail * STRUCT_PAGE + 8, page | 1);
        }
        let second = page + STRUCT_PAGE;
        match self.era {
            Era::V4_3 => {
                self.put64(second + 8, if dtor == 2 { 0xffff_ffff_8123_4560 } else { 0xffff_ffff_8100_0000 });
                self.put64(second + 16, order);
            }
            Era::V4_9 => {
                self.put(second + 16, &u16::from(dtor).to_le_bytes());
                self.put(second + 18, &(order as u16).to_le_bytes());
            }
            Era::V6_1 | Era::V6_4 => self.put(second + 16, &[dtor, order as u8]),
            _ => self.put(second, &[order as u8]),
        }
    }
}
