//! JSON as it stands.
//!
//! A [`Value`] that serde_json reads is not always what its text says: an object whose first key is the name under which
//! serde_json hands over raw texts is read once more, out of that key's value, with the bound on nesting begun anew. Who
//! chooses keys would choose types by it, and how much of the stack is used. What strangers wrote is therefore read by
//! this.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value as its text says it, whatever its keys are called.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain(pub Value);

/// What a text says.
///
/// # Errors
/// Those of [`serde_json::from_str`]; nesting deeper than 127 levels is one.
pub fn read(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).map(|Plain(value)| value)
}

/// A value, for `deserialize_with`.
///
/// # Errors
/// Those of the deserializer.
pub fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Plain::deserialize(deserializer).map(|Plain(value)| value)
}

/// A value that may be absent or `null`, for `deserialize_with`.
///
/// # Errors
/// Those of the deserializer.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Ok(Some(value(deserializer)?).filter(|value| !value.is_null()))
}

/// The members of an object, for `deserialize_with`.
///
/// # Errors
/// Those of the deserializer; anything but an object.
pub fn members<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match value(deserializer)? {
        Value::Object(members) => Ok(members),
        _ => Err(D::Error::custom("not an object")),
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsItStands).map(Self)
    }
}

struct AsItStands;

impl<'de> Visitor<'de> for AsItStands {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Plain(member))) = members.next_entry()? {
            all.insert(name, member);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The name that serde_json gives a special meaning.
    const RAW: &str = "$serde_json::private::RawValue";

    #[test]
    fn a_value_is_what_its_text_says() {
        for text in [
            "null",
            "[true,false,-1,0.1,1e300,18446744073709551615,\"é\\u0000\\n\"]",
            "{\"z\":{\"b\":[],\"a\":{}},\"a\":\" \",\"z\":2}",
        ] {
            assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
        for text in ["", "{", "[1,]", "{\"a\":1,}", "1 2", &"[".repeat(200)] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_key_means_anything() {
        let text = json!({ RAW: "[1]" }).to_string();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!([1]), "why this is here");
        assert_eq!(read(&text).unwrap(), json!({ RAW: "[1]" }));
        assert_eq!(read(&format!("[{text}]")).unwrap(), json!([{ RAW: "[1]" }]));
    }
}
