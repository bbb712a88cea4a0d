//! stub
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);
impl Fingerprint {
    pub const fn from_bytes(b: [u8; 32]) -> Self {
        Self(b)
    }
}
