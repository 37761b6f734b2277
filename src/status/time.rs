//! Times in a snapshot: RFC 3339, to the second, UTC.

use std::time::UNIX_EPOCH;

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::schedule::Timestamp;

pub(super) fn serialize<S: Serializer>(time: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(time)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(input)?;
    let time = humantime::parse_rfc3339(&text).map_err(de::Error::custom)?;
    let since = time.duration_since(UNIX_EPOCH).map_err(de::Error::custom)?;
    Ok(Timestamp::from_unix_seconds(since.as_secs()))
}

/// The same for times that may be unknown; those are left out.
pub(super) mod option {
    use super::{Deserializer, Serializer, Timestamp, serialize as one};

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => one(time, out),
            None => out.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        super::deserialize(input).map(Some)
    }
}
