//! Writes arguments of scripts as msgpack. By hand, because Redis' reader knows no `bin` type: everything that is
//! bytes must be written as a string, which serde writes for UTF-8 only.

use serde::Serialize;
use trireme_backend::Error;

use super::layout::pack;

/// A msgpack value in the making.
#[derive(Debug, Default)]
pub(crate) struct Packer(Vec<u8>);

impl Packer {
    /// Begins an array of `length` values, which must follow.
    pub(crate) fn array(&mut self, length: usize) -> &mut Self {
        match u16::try_from(length) {
            Ok(short @ 0..=15) => self.0.push(0x90 | short as u8),
            Ok(middle) => self.long(0xdc, &middle.to_be_bytes()),
            Err(_) => self.long(0xdd, &(length as u32).to_be_bytes()),
        }
        self
    }

    /// A number; whatever does not fit Lua's was bounded before.
    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        match value {
            0..=0x7f => self.0.push(value as u8),
            -32..=-1 => self.0.push(value as i8 as u8),
            _ => self.long(0xd3, &value.to_be_bytes()),
        }
        self
    }

    /// Text or bytes.
    pub(crate) fn bytes(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        match u16::try_from(value.len()) {
            Ok(short @ 0..=31) => self.0.push(0xa0 | short as u8),
            Ok(middle) => self.long(0xda, &middle.to_be_bytes()),
            // payloads are bounded by megabytes
            Err(_) => self.long(0xdb, &(value.len() as u32).to_be_bytes()),
        }
        self.0.extend_from_slice(value);
        self
    }

    /// A list of texts.
    pub(crate) fn list<T: AsRef<[u8]>>(&mut self, values: &[T]) -> &mut Self {
        self.array(values.len());
        for value in values {
            self.bytes(value);
        }
        self
    }

    /// True or false.
    pub(crate) fn flag(&mut self, value: bool) -> &mut Self {
        self.0.push(0xc2 | u8::from(value));
        self
    }

    /// A value of numbers and texts only.
    pub(crate) fn value<T: Serialize>(&mut self, value: &T) -> Result<&mut Self, Error> {
        self.0.extend_from_slice(&pack(value)?);
        Ok(self)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn long(&mut self, kind: u8, value: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_reads_what_it_writes() {
        let mut packer = Packer::default();
        packer.array(3).int(-1).int(1_700_000_000_000).list(&[
            "a".to_owned(),
            "b".repeat(40),
            "c".repeat(70_000),
        ]);
        let (one, two, three): (i64, i64, Vec<String>) = rmp_serde::from_slice(packer.as_slice()).unwrap();
        assert_eq!((one, two), (-1, 1_700_000_000_000));
        assert_eq!(three.iter().map(String::len).collect::<Vec<_>>(), [1, 40, 70_000]);
        for number in [0, 1, 127, 128, 255, -32, -33, 1 << 53, -(1 << 53)] {
            let mut packer = Packer::default();
            packer.array(20);
            for _ in 0..20 {
                packer.int(number);
            }
            assert_eq!(rmp_serde::from_slice::<Vec<i64>>(packer.as_slice()).unwrap(), [number; 20]);
        }
        let mut flags = Packer::default();
        flags.array(2).flag(true).flag(false);
        assert_eq!(rmp_serde::from_slice::<(bool, bool)>(flags.as_slice()).unwrap(), (true, false));
    }
}
