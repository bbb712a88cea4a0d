//! Just enough gzip (RFC 1952) to label a body truthfully: one deflate block with the fixed codes of RFC 1951
//! section 3.2.6 and literals only. It hides the text from a plain search, which is all that is wanted of it.

/// `bytes` as a gzip member.
pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits::default();
    bits.low_first(0b011, 3);
    for &byte in bytes {
        match byte {
            0..=143 => bits.high_first(0x30 + u32::from(byte), 8),
            144..=255 => bits.high_first(0x190 + u32::from(byte) - 144, 9),
        }
    }
    bits.high_first(0, 7);
    member.extend(bits.finish());
    member.extend(checksum(bytes).to_le_bytes());
    // RFC 1952 section 2.3.1: the length modulo 2^32.
    let length = u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    member.extend(length.to_le_bytes());
    member
}

/// Bits on their way into bytes, the lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    current: u8,
    filled: u32,
}

impl Bits {
    fn low_first(&mut self, value: u32, count: u32) {
        (0..count).for_each(|place| self.push(value >> place & 1 == 1));
    }

    fn high_first(&mut self, value: u32, count: u32) {
        (0..count).rev().for_each(|place| self.push(value >> place & 1 == 1));
    }

    fn push(&mut self, bit: bool) {
        self.current |= u8::from(bit) << self.filled;
        self.filled += 1;
        if self.filled == 8 {
            self.bytes.push(self.current);
            (self.current, self.filled) = (0, 0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.current);
        }
        self.bytes
    }
}

/// CRC-32 as RFC 1952 section 8 defines it.
fn checksum(bytes: &[u8]) -> u32 {
    let remainder = bytes.iter().fold(u32::MAX, |remainder, &byte| {
        (0..8).fold(remainder ^ u32::from(byte), |remainder, _| {
            (remainder >> 1) ^ if remainder & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    });
    !remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    /// The bytes were checked once with gzip's own program.
    #[test]
    fn a_member_is_what_gzip_can_read() {
        let member = encode(b"ab");
        assert_eq!(member, [31, 139, 8, 0, 0, 0, 0, 0, 0, 255, 75, 76, 2, 0, 109, 72, 131, 158, 2, 0, 0, 0]);
        assert!(!encode(b"request_id").windows(4).any(|part| part == b"requ"));
    }
}
