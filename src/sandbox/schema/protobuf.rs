//! Reads objects that come in Protobuf: `kubectl create namespace` and others with a client of their kind send it, and
//! do not fall back to JSON.
//!
//! The envelope is `k8s.io/apimachinery/pkg/runtime.Unknown`; messages are read by the fields' numbers. Answers are
//! always JSON, which those clients read.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Scalar, Shape, Type};

/// What an envelope starts with.
const MAGIC: &[u8] = b"k8s\0";

/// An object in its envelope.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    raw: &'a [u8],
}

/// Opens an envelope; `None` where there is none.
pub fn open(body: &[u8]) -> Option<Envelope<'_>> {
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    for field in fields(body.strip_prefix(MAGIC)?)? {
        match field {
            (1, Payload::Bytes(meta)) => {
                for part in fields(meta)? {
                    match part {
                        (1, Payload::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Payload::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Some(envelope)
}

impl Envelope<'_> {
    /// Reads the object as `shape`; `None` where it is broken.
    pub fn read(&self, shape: &Shape) -> Option<Value> {
        let mut members = Map::new();
        message(self.raw, shape.as_type()?, &[], &mut members)?;
        members.insert("apiVersion".into(), self.api_version.as_str().into());
        members.insert("kind".into(), self.kind.as_str().into());
        Some(Value::Object(members))
    }
}

enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Splits a message into its fields; `None` where it is broken.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Payload<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let payload = match tag & 7 {
            0 => Payload::Varint(varint(&mut bytes)?),
            1 => Payload::Fixed64(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Payload::Bytes(take(&mut bytes, length)?)
            }
            5 => Payload::Varint(u64::from(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?))),
            _ => return None,
        };
        found.push((tag >> 3, payload));
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(first)
}

fn utf8(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Reads a message into `members`. `outer`: the numbers of the messages that are inlined in JSON.
fn message(bytes: &[u8], of: &Type, outer: &[u64], members: &mut Map<String, Value>) -> Option<()> {
    for (number, payload) in fields(bytes)? {
        let place = [outer, &[number]].concat();
        if let Some((name, field)) = of.fields.iter().find(|(_, field)| field.numbers == place) {
            put(payload, name, &field.shape, members)?;
        } else if let (true, Payload::Bytes(inner)) =
            (of.fields.values().any(|field| field.numbers.starts_with(&place)), payload)
        {
            message(inner, of, &place, members)?;
        }
    }
    Some(())
}

fn put(payload: Payload<'_>, name: &str, shape: &Shape, members: &mut Map<String, Value>) -> Option<()> {
    match shape {
        Shape::List { of, .. } => {
            let item = value(payload, of)?;
            let list = members.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut()?.extend(item);
        }
        Shape::Map { of, .. } => {
            let Payload::Bytes(entry) = payload else { return None };
            let (mut key, mut member) = (String::new(), None);
            for part in fields(entry)? {
                match part {
                    (1, Payload::Bytes(text)) => key = utf8(text)?,
                    (2, payload) => member = value(payload, of)?,
                    _ => {}
                }
            }
            let map = members.entry(name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(key, member.unwrap_or_else(|| "".into()));
        }
        _ => {
            if let Some(value) = value(payload, shape)? {
                members.insert(name.to_owned(), value);
            }
        }
    }
    Some(())
}

/// Reads one value; the inner `None` is a time that is not set.
fn value(payload: Payload<'_>, shape: &Shape) -> Option<Option<Value>> {
    #[allow(clippy::cast_possible_wrap)]
    let signed = |number: u64| number as i64;
    let number = |bytes: &[u8], wanted: u64| -> Option<i64> {
        let found = fields(bytes)?.into_iter().find_map(|(number, payload)| match payload {
            Payload::Varint(value) if number == wanted => Some(signed(value)),
            _ => None,
        });
        Some(found.unwrap_or(0))
    };
    let text = |bytes: &[u8], wanted: u64| -> Option<String> {
        let found = fields(bytes)?.into_iter().find_map(|(number, payload)| match payload {
            Payload::Bytes(text) if number == wanted => Some(utf8(text)),
            _ => None,
        });
        found.unwrap_or(Some(String::new()))
    };
    Some(Some(match (payload, shape) {
        (Payload::Varint(value), Shape::Scalar(Scalar::Bool)) => (value != 0).into(),
        (Payload::Varint(value), Shape::Scalar(Scalar::Int32 | Scalar::Int64)) => signed(value).into(),
        (Payload::Fixed64(bits), Shape::Scalar(Scalar::Number)) => f64::from_bits(bits).into(),
        (Payload::Bytes(bytes), Shape::Scalar(Scalar::Text)) => utf8(bytes)?.into(),
        (Payload::Bytes(bytes), Shape::Scalar(Scalar::Bytes)) => {
            base64::engine::general_purpose::STANDARD.encode(bytes).into()
        }
        (Payload::Bytes(bytes), Shape::Scalar(Scalar::Quantity)) => text(bytes, 1)?.into(),
        (Payload::Bytes(bytes), Shape::Scalar(Scalar::IntOrString)) => match number(bytes, 1)? {
            0 => number(bytes, 2)?.into(),
            _ => text(bytes, 3)?.into(),
        },
        (Payload::Bytes([]), Shape::Scalar(Scalar::Time | Scalar::MicroTime)) => return Some(None),
        (Payload::Bytes(bytes), Shape::Scalar(kind @ (Scalar::Time | Scalar::MicroTime))) => {
            let nanoseconds = i32::try_from(number(bytes, 2)?).ok()?;
            let time = Timestamp::new(number(bytes, 1)?, nanoseconds).ok()?;
            match kind {
                Scalar::MicroTime => format!("{time:.6}").into(),
                _ => format!("{time:.0}").into(),
            }
        }
        // `RawExtension` and `FieldsV1`: JSON in a field of its own.
        (Payload::Bytes(bytes), Shape::Any { .. }) => {
            serde_json::from_str(&text(bytes, 1)?).unwrap_or_else(|_| Value::Object(Map::new()))
        }
        (Payload::Bytes(bytes), Shape::Builtin(_) | Shape::Inline(_)) => {
            let mut members = Map::new();
            message(bytes, shape.as_type()?, &[], &mut members)?;
            Value::Object(members)
        }
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::open;
    use crate::sandbox::schema::builtin;

    /// What Go makes of a Namespace named `shop`, cut down to what matters.
    #[test]
    fn an_envelope_is_opened_and_read() {
        let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x0e\x0a\x08\x0a\x04shop\x42\x00\x12\x00\x1a\x00\x1a\x00\x22\x00";
        let envelope = open(body).unwrap();
        assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "Namespace"));
        let shape = builtin().object("", "v1", "Namespace").unwrap();
        assert_eq!(
            envelope.read(&shape).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {}, "status": {}})
        );
        for broken in [&body[..20], b"k8s\0\xff", b"{}"] {
            assert!(open(broken).is_none());
        }
    }
}
