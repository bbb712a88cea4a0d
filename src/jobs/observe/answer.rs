//! The fields of a poll's answer that tell about a job's life, in both shapes of the API behind.
//! Everything else is skipped, and a field of an unexpected type reads as absent: an odd answer must not end
//! anything, and must not hide what the rest of it says.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// xAI's object; with `data`, the outside of CometAPI's wrapper.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Job<'a> {
    #[serde(borrow)]
    pub(super) request_id: Scalar<'a>,
    #[serde(borrow)]
    pub(super) status: Scalar<'a>,
    #[serde(borrow)]
    pub(super) code: Scalar<'a>,
    #[serde(borrow)]
    pub(super) message: Scalar<'a>,
    #[serde(borrow)]
    pub(super) error: Loose<'a, Failure<'a>>,
    #[serde(borrow)]
    pub(super) video: Loose<'a, Video<'a>>,
    #[serde(borrow)]
    pub(super) usage: Loose<'a, Usage<'a>>,
    #[serde(borrow)]
    pub(super) data: Loose<'a, Box<Task<'a>>>,
}

/// The relay's record of a job, with xAI's object in it once there is one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Task<'a> {
    #[serde(borrow)]
    pub(super) task_id: Scalar<'a>,
    #[serde(borrow)]
    pub(super) status: Scalar<'a>,
    /// The URL of the video on success: its being there says nothing about failure.
    #[serde(borrow)]
    pub(super) fail_reason: Scalar<'a>,
    #[serde(borrow)]
    pub(super) finish_time: Scalar<'a>,
    #[serde(borrow)]
    pub(super) data: Loose<'a, Job<'a>>,
}

/// `error`, where it is an object.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Failure<'a> {
    #[serde(borrow)]
    pub(super) code: Scalar<'a>,
    #[serde(borrow)]
    pub(super) message: Scalar<'a>,
}

/// `video`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Video<'a> {
    #[serde(borrow)]
    pub(super) url: Scalar<'a>,
    #[serde(borrow)]
    pub(super) duration: Scalar<'a>,
    #[serde(borrow)]
    pub(super) respect_moderation: Scalar<'a>,
    #[serde(borrow)]
    pub(super) file_output: Loose<'a, File<'a>>,
}

/// Where the video was stored, for a submission with `storage_options`; `url` may then be null.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct File<'a> {
    #[serde(borrow)]
    pub(super) file_id: Scalar<'a>,
    #[serde(borrow)]
    pub(super) public_url: Scalar<'a>,
}

/// `usage`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage<'a> {
    #[serde(borrow)]
    pub(super) cost_in_usd_ticks: Scalar<'a>,
}

/// Any JSON value, of which only what we can use is kept: an object of the kind that is wanted here, or a scalar.
#[derive(Default)]
pub(super) enum Loose<'a, T> {
    Object(T),
    Text(Cow<'a, str>),
    Whole(u64),
    Real(f64),
    Bool(bool),
    /// Absent, null, a list or a negative integer.
    #[default]
    Other,
}

/// A value that is no object.
pub(super) type Scalar<'a> = Loose<'a, IgnoredAny>;

impl<T> Loose<'_, T> {
    /// The object, if it is one.
    pub(super) fn object(&self) -> Option<&T> {
        match self {
            Self::Object(object) => Some(object),
            Self::Text(_) | Self::Whole(_) | Self::Real(_) | Self::Bool(_) | Self::Other => None,
        }
    }

    /// The text, if it is one that is not blank.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            Self::Object(_) | Self::Whole(_) | Self::Real(_) | Self::Bool(_) | Self::Other => None,
        }
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Loose<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keep(PhantomData))
    }
}

/// Makes a [`Loose`] of whatever comes. Objects go to `T` as maps, so that a list is never taken for a struct.
struct Keep<'a, T>(PhantomData<Loose<'a, T>>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Keep<'a, T> {
    type Value = Loose<'a, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Loose::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Loose::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Loose::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Loose::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(number).map_or(Loose::Other, Loose::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Loose::Real(number))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Loose::Bool(truth))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Loose::Other)
    }
}
