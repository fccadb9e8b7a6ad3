//! A kernel's keys that exist only in memory.

use crate::keys::{KeyId, Keys, Listed, USER_RING};
use std::collections::BTreeMap;
use std::io;

/// Keys that are recorded, and refused as the test wants it.
#[derive(Clone, Debug, Default)]
pub struct FakeKeys {
    /// The keys that there are, rings among them.
    pub keys: Vec<Listed>,
    /// What is in which ring.
    pub rings: BTreeMap<KeyId, Vec<KeyId>>,
    /// The errnos with which a type of key is refused, or everything for a ring, by its name.
    pub refuses: BTreeMap<String, i32>,
    /// Everything that was asked, one line each.
    pub journal: Vec<String>,
}

impl FakeKeys {
    /// Those of a kernel that has these rings.
    pub fn with_rings(names: &[&str]) -> FakeKeys {
        let mut keys = FakeKeys::default();
        for name in names {
            keys.put("keyring", name, USER_RING);
        }
        keys.rings.clear();
        keys
    }

    /// Has one more key in a ring.
    pub fn put(&mut self, kind: &str, description: &str, ring: KeyId) -> KeyId {
        let id = KeyId(i32::try_from(self.keys.len()).unwrap_or(i32::MAX).saturating_add(100));
        let kind = kind.chars().take(9).collect();
        self.keys.push(Listed { id, kind, description: description.to_owned() });
        self.rings.entry(ring).or_default().push(id);
        id
    }

    fn name(&self, ring: KeyId) -> String {
        let listed = self.keys.iter().find(|key| key.id == ring);
        listed.map_or_else(|| "@u".to_owned(), |key| key.description.clone())
    }
}

impl Keys for FakeKeys {
    fn add(&mut self, kind: &str, description: &str, payload: &[u8], ring: KeyId) -> io::Result<KeyId> {
        let name = self.name(ring);
        self.journal.push(format!("add {kind} {description} {} to {name}", String::from_utf8_lossy(payload)));
        match self.refuses.get(kind).or_else(|| self.refuses.get(&name)) {
            Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
            None => Ok(self.put(kind, description, ring)),
        }
    }

    fn unlink(&mut self, key: KeyId, ring: KeyId) -> io::Result<()> {
        self.journal.push(format!("unlink {} from {}", self.name(key), self.name(ring)));
        self.rings.entry(ring).or_default().retain(|id| *id != key);
        Ok(())
    }

    fn members(&self, ring: KeyId) -> io::Result<Vec<KeyId>> {
        Ok(self.rings.get(&ring).cloned().unwrap_or_default())
    }

    fn all(&self) -> io::Result<Vec<Listed>> {
        Ok(self.keys.clone())
    }
}
