//! OTLP's messages, written as protobuf by hand: every attempt of every traced run has a span, so that what one costs
//! is a share of what a task costs. The numbers are those of `opentelemetry/proto/trace/v1/trace.proto`,
//! `common/v1/common.proto`, `resource/v1/resource.proto` and `collector/trace/v1/trace_service.proto` (OTLP 1.x).

use std::borrow::Cow;

/// Types of fields on the wire.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A whole number.
    Int(i64),
    /// A number with fractions.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// A list of one text.
    OneOf(Cow<'a, str>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`varint`] writes.
fn length(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Bytes, a text, or a message that is written already.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A `KeyValue` as `field` of the message that `out` is.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &Value<'_>) {
    // tags of fields up to 15 have one byte
    let text = |text: &str| 1 + length(text.len()) + text.len();
    let any = match value {
        Value::Text(value) => text(value),
        Value::OneOf(value) => {
            let any = text(value);
            let list = 1 + length(any) + any;
            1 + length(list) + list
        }
        Value::Int(value) => 1 + length(*value as u64 as usize),
        Value::Number(_) => 9,
        Value::Flag(_) => 2,
    };
    tag(out, field, BYTES);
    varint(out, (text(key) + 1 + length(any) + any) as u64);
    bytes(out, 1, key.as_bytes());
    tag(out, 2, BYTES);
    varint(out, any as u64);
    match value {
        Value::Text(value) => bytes(out, 1, value.as_bytes()),
        Value::Flag(value) => number(out, 2, u64::from(*value)),
        Value::Int(value) => number(out, 3, *value as u64),
        Value::Number(value) => fixed64(out, 4, value.to_bits()),
        Value::OneOf(value) => {
            let any = text(value);
            tag(out, 5, BYTES);
            varint(out, (1 + length(any) + any) as u64);
            tag(out, 1, BYTES);
            varint(out, any as u64);
            bytes(out, 1, value.as_bytes());
        }
    }
}

/// The request that exports spans: `resource` and `scope` are messages, `spans` are the fields of a `ScopeSpans`.
pub(super) fn request(resource: &[u8], scope: &[u8], spans: &[u8]) -> Vec<u8> {
    let framed = |message: &[u8]| 1 + length(message.len()) + message.len();
    let of_scope = framed(scope) + spans.len();
    let of_resource = framed(resource) + 1 + length(of_scope) + of_scope;
    let mut out = Vec::with_capacity(1 + length(of_resource) + of_resource);
    tag(&mut out, 1, BYTES);
    varint(&mut out, of_resource as u64);
    bytes(&mut out, 1, resource);
    tag(&mut out, 2, BYTES);
    varint(&mut out, of_scope as u64);
    bytes(&mut out, 1, scope);
    out.extend_from_slice(spans);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_protobufs_documentation_shows_them() {
        let mut out = Vec::new();
        number(&mut out, 1, 150);
        assert_eq!(out, [0x08, 0x96, 0x01]);
        let mut out = Vec::new();
        bytes(&mut out, 2, b"testing");
        assert_eq!(out, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        for value in [0, 1, 127, 128, 16_383, 16_384, usize::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value as u64);
            assert_eq!(out.len(), length(value), "{value}");
        }
    }

    /// Reads a message to its end, and gives its fields' numbers and, of those that have a length, what is in them.
    fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
        let read = |message: &mut &[u8]| {
            let (mut value, mut shift) = (0_u64, 0);
            loop {
                let byte = message[0];
                *message = &message[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        let mut found = Vec::new();
        while !message.is_empty() {
            let tag = read(&mut message);
            let size = match tag as u32 & 7 {
                VARINT => {
                    read(&mut message);
                    0
                }
                FIXED64 => 8,
                FIXED32 => 4,
                _ => read(&mut message) as usize,
            };
            let (inner, rest) = message.split_at(size);
            found.push((tag >> 3, inner));
            message = rest;
        }
        found
    }

    #[test]
    fn attributes_are_as_protoc_encodes_them() {
        // printf 'attributes { key: "k" value { array_value { values { string_value: "x" } } } }' | protoc --encode
        let mut out = Vec::new();
        attribute(&mut out, 9, "k", &Value::OneOf("x".into()));
        assert_eq!(out, [0x4a, 12, 0x0a, 1, b'k', 0x12, 7, 0x2a, 5, 0x0a, 3, 0x0a, 1, b'x']);
        let mut out = Vec::new();
        attribute(&mut out, 9, "k", &Value::Int(-1));
        let minus_one = [0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(out[..7], [0x4a, 16, 0x0a, 1, b'k', 0x12, 11]);
        assert_eq!(out[7..], minus_one);
    }

    #[test]
    fn lengths_that_were_foretold_are_right() {
        let long = "x".repeat(300);
        let mut out = Vec::new();
        let values = [
            Value::from("x"),
            long.clone().into(),
            5_i64.into(),
            (-5_i64).into(),
            0.5.into(),
            true.into(),
            Value::OneOf("stop".into()),
            Value::OneOf(long.clone().into()),
        ];
        for value in &values {
            attribute(&mut out, 9, "key", value);
        }
        let attributes = fields(&out);
        assert_eq!(attributes.len(), values.len());
        for (field, attribute) in attributes {
            let parts = fields(attribute);
            let numbers: Vec<_> = parts.iter().map(|(number, _)| *number).collect();
            assert_eq!((field, numbers.as_slice()), (9, [1, 2].as_slice()));
            for (kind, any) in fields(parts[1].1) {
                // of a list, what is in its one value
                let inner = if kind == 5 { fields(fields(any)[0].1)[0].1 } else { any };
                assert!(kind != 5 || inner == b"stop" || inner == long.as_bytes());
            }
        }
        let request = request(b"", b"", &out);
        let [(1, of_resource)] = fields(&request)[..] else { panic!("one ResourceSpans") };
        let [(1, b""), (2, of_scope)] = fields(of_resource)[..] else { panic!("Resource and ScopeSpans") };
        assert_eq!(fields(of_scope).len(), 1 + values.len());
    }
}
