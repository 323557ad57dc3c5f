//! Readers of values: the types of JSON that each type of field is read from.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use super::{ReadJson, object, trim};

/// The largest number of entries of a list in a response.
const MAX_ENTRIES: usize = 10_000;

/// A type that reads values of a field.
pub trait Reader: for<'de> Deserialize<'de> {
    /// The type of the field.
    type Value;

    /// Returns the value that was read.
    fn into_value(self) -> Self::Value;

    /// Reads the value of a key, `None` for null.
    fn value<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Self::Value>, A::Error> {
        Ok(map.next_value::<Option<Self>>()?.map(Self::into_value))
    }

    /// Reads the list of a key. Null is an empty list, and a value is a list of one.
    fn list<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Vec<Self::Value>, A::Error> {
        Ok(map.next_value::<Entries<Self>>()?.0)
    }

    /// Reads the entries of an array, without nulls. Rejects more than any response of SCM has, because a small entry takes
    /// many times the memory of its JSON.
    fn entries<'de, A: SeqAccess<'de>>(mut array: A) -> Result<Vec<Self::Value>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = array.next_element::<Option<Self>>()? {
            entries.extend(entry.map(Self::into_value));
            if entries.len() > MAX_ENTRIES {
                return Err(A::Error::invalid_length(entries.len(), &"fewer entries"));
            }
        }
        Ok(entries)
    }
}

/// Implements a [`Reader`] by the [`ValueVisitor`] of the type.
macro_rules! reader {
    ($name:ident $(<$generic:ident: $bound:path>)?, $value:ty, $read:ident) => {
        impl<'de $(, $generic: $bound)?> Deserialize<'de> for $name $(<$generic>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.$read(ValueVisitor(PhantomData::<Self>))
            }
        }

        impl $(<$generic: $bound>)? Reader for $name $(<$generic>)? {
            type Value = $value;

            fn into_value(self) -> Self::Value {
                self.0
            }
        }
    };
}

/// Reads values of a type `T`.
struct ValueVisitor<T>(PhantomData<T>);

/// A text, unchanged.
pub struct Text(String);

reader!(Text, String, deserialize_str);

impl Visitor<'_> for ValueVisitor<Text> {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }
}

/// An id, without blanks around it. A number is an id, too.
pub struct Id(String);

reader!(Id, String, deserialize_any);

impl Visitor<'_> for ValueVisitor<Id> {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Id, E> {
        Ok(Id(trim(text).to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Id, E> {
        Ok(Id(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Id, E> {
        Ok(Id(number.to_string()))
    }
}

/// A bool, as such, as 0 or 1, or as text.
pub struct Flag(bool);

reader!(Flag, bool, deserialize_any);

impl Visitor<'_> for ValueVisitor<Flag> {
    type Value = Flag;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Flag, E> {
        Ok(Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Flag, E> {
        match number {
            0 | 1 => Ok(Flag(number == 1)),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Flag, E> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Flag(true)),
            "false" | "0" => Ok(Flag(false)),
            _ => Err(E::invalid_type(Unexpected::Other("a text"), &self)),
        }
    }
}

/// An integer, as such or as text.
pub struct Number<T>(T);

/// An integer type of a field.
pub trait Integer: TryFrom<i128> {}

impl<T: TryFrom<i128>> Integer for T {}

reader!(Number<T: Integer>, T, deserialize_any);

impl<T: Integer> ValueVisitor<Number<T>> {
    fn convert<E: Error>(&self, number: impl Into<i128>) -> Result<Number<T>, E> {
        let number = T::try_from(number.into());
        number.map(Number).map_err(|_| E::invalid_value(Unexpected::Other("a number out of range"), self))
    }
}

impl<T: Integer> Visitor<'_> for ValueVisitor<Number<T>> {
    type Value = Number<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number<T>, E> {
        self.convert(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number<T>, E> {
        self.convert(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number<T>, E> {
        match text.trim().parse::<i128>() {
            Ok(number) => self.convert(number),
            Err(_) => Err(E::invalid_type(Unexpected::Other("a text"), &self)),
        }
    }
}

/// An object that is a message.
pub struct Object<M>(M);

reader!(Object<M: ReadJson>, M, deserialize_map);

impl<'de, M: ReadJson> Visitor<'de> for ValueVisitor<Object<M>> {
    type Value = Object<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<M>, A::Error> {
        object(map).map(Object)
    }
}

/// A list of values, or one value, or null.
struct Entries<R: Reader>(Vec<R::Value>);

impl<'de, R: Reader> Deserialize<'de> for Entries<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<R>(PhantomData<R>);

        impl<R: Reader> EntriesVisitor<R> {
            fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Entries<R>, D::Error> {
                Ok(Entries(vec![R::deserialize(deserializer)?.into_value()]))
            }
        }

        impl<'de, R: Reader> Visitor<'de> for EntriesVisitor<R> {
            type Value = Entries<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E: Error>(self) -> Result<Entries<R>, E> {
                Ok(Entries(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Entries<R>, A::Error> {
                R::entries(array).map(Entries)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entries<R>, A::Error> {
                Self::one(MapAccessDeserializer::new(map))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Entries<R>, E> {
                Self::one(text.into_deserializer())
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Entries<R>, E> {
                Self::one(flag.into_deserializer())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Entries<R>, E> {
                Self::one(number.into_deserializer())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Entries<R>, E> {
                Self::one(number.into_deserializer())
            }
        }
        deserializer.deserialize_any(EntriesVisitor(PhantomData))
    }
}

/// Reads a list that is one text: the entries are separated by `;` or `,`. Empty entries are ignored.
pub fn split<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Vec<String>, A::Error> {
    let texts = Text::list(map)?;
    let entries = texts.iter().flat_map(|text| text.split([';', ','])).map(trim);
    Ok(entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
}

/// Reads an acknowledgement, which has to be `word` in any case, and there only once. `previous` is the value so far.
pub fn acknowledgement<'de, A: MapAccess<'de>>(
    map: &mut A,
    word: &'static str,
    previous: &str,
) -> Result<String, A::Error> {
    let text = Text::value(map)?.unwrap_or_default();
    if previous.is_empty() && text.eq_ignore_ascii_case(word) {
        Ok(text)
    } else {
        Err(A::Error::custom("no acknowledgement, or two"))
    }
}
