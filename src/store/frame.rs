//! How a value stands in the file: a CRC-32 over key and value, little-endian, then the value.
//!
//! The database checks its pages; this also catches a value that stands under another key, and
//! what a fault of ours or of the memory wrote. Pure.

const CRC_BYTES: usize = 4;

/// How many bytes an entry adds to what the store holds.
pub(super) fn entry_bytes(key: &str, value: &[u8]) -> u64 {
    (key.len() + CRC_BYTES + value.len()) as u64
}

pub(super) fn frame(key: &str, value: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(CRC_BYTES + value.len());
    framed.extend_from_slice(&crc(key, value).to_le_bytes());
    framed.extend_from_slice(value);
    framed
}

/// The value, if it is what was once framed under this key.
pub(super) fn unframe<'f>(key: &str, framed: &'f [u8]) -> Option<&'f [u8]> {
    let (stored, value) = framed.split_first_chunk::<CRC_BYTES>()?;
    (u32::from_le_bytes(*stored) == crc(key, value)).then_some(value)
}

fn crc(key: &str, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_opens_only_under_its_own_key_and_unaltered(
            key in "[a-z]{1,9}", value: Vec<u8>, at: proptest::sample::Index, bit in 0u8..8,
        ) {
            let mut framed = frame(&key, &value);
            prop_assert_eq!(unframe(&key, &framed), Some(&value[..]));
            prop_assert_eq!(unframe(&format!("{key}-2"), &framed), None);
            prop_assert_eq!(entry_bytes(&key, &value), (key.len() + framed.len()) as u64);
            let at = at.index(framed.len());
            framed[at] ^= 1 << bit;
            prop_assert_eq!(unframe(&key, &framed), None);
            prop_assert_eq!(unframe(&key, &framed[..at.min(CRC_BYTES - 1)]), None);
        }
    }
}
