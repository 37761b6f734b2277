//! The identifiers that travel on the wire, each parsed once and valid from then on.
//!
//! Owns the syntax of names and ids. Never normalises: what does not parse is refused, so that two
//! spellings can not mean one device.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest thing name, in bytes; AWS IoT's own limit.
pub const MAX_THING_NAME: usize = 128;

/// Longest rotation id, in bytes.
const MAX_ROTATION_ID: usize = 128;

/// What is wrong with an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It has no characters.
    #[error("it is empty")]
    Empty,
    /// It has more bytes than the identifier may have.
    #[error("it is longer than {limit} characters")]
    TooLong {
        /// The most it may have.
        limit: usize,
    },
    /// It has a character outside `[a-zA-Z0-9:_-]`.
    #[error("{0:?} is not one of a-z A-Z 0-9 : _ -")]
    Character(char),
    /// It is not lower-case hex of the right length.
    #[error("it is not {digits} hex digits")]
    NotHex {
        /// How many digits it needs.
        digits: usize,
    },
    /// It is not base64.
    #[error("it is not base64")]
    NotBase64,
}

/// The name of an AWS IoT thing, which is also its MQTT client id: 1–128 of `[a-zA-Z0-9:_-]`.
///
/// Cheap to clone. It is never used as a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThingName(Arc<str>);

impl ThingName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ThingName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        check_identifier(text, MAX_THING_NAME)?;
        Ok(Self(text.into()))
    }
}

/// The cloud's name for one rotation of one thing; the same alphabet and length as a thing name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RotationId(Box<str>);

impl RotationId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RotationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        check_identifier(text, MAX_ROTATION_ID)?;
        Ok(Self(text.into()))
    }
}

fn check_identifier(text: &str, limit: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > limit {
        return Err(IdError::TooLong { limit });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-'))) {
        Some(odd) => Err(IdError::Character(odd)),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        serde_as_text!($name);
    };
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(input)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = IdError::NotHex { digits: 2 * $bytes };
                let bytes = HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).map_err(|_| bad)?;
                bytes.try_into().map(Self).map_err(|_| bad)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0[..4]))
            }
        }

        serde_as_text!($name);
    };
}

text_id!(ThingName);
text_id!(RotationId);

hex_id!(
    /// AWS IoT's certificate id: the SHA-256 of the certificate's DER, 64 hex digits.
    CertificateId,
    32
);
hex_id!(
    /// Which key: the SHA-256 of the DER of its SubjectPublicKeyInfo.
    KeyDigest,
    32
);
hex_id!(
    /// A message id: 128 random bits, on every message that we send.
    Mid,
    16
);
hex_id!(
    /// What a proof of a rotation must be about (`nonce`): 128 random bits.
    Nonce,
    16
);

/// A signature by a device's key (`sig`): base64 on the wire, of 1,024 characters at most.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Box<[u8]>);

/// The longest signature, in bytes: 1,024 characters of base64. RSA-4096 has 512.
const MAX_SIGNATURE: usize = 768;

impl Signature {
    /// A signature that was just made; `None` if it is longer than the wire takes.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= MAX_SIGNATURE).then(|| Self(bytes.into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Signature {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let limit = BASE64.encode_len(MAX_SIGNATURE);
        if text.len() > limit {
            return Err(IdError::TooLong { limit });
        }
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| IdError::NotBase64)?;
        Self::new(bytes).ok_or(IdError::TooLong { limit })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

serde_as_text!(Signature);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_name_has_only_the_characters_aws_allows() {
        assert_eq!("".parse::<ThingName>(), Err(IdError::Empty));
        assert_eq!("a/b".parse::<ThingName>(), Err(IdError::Character('/')));
        assert_eq!("a+".parse::<ThingName>(), Err(IdError::Character('+')));
        assert_eq!("a".repeat(129).parse::<ThingName>(), Err(IdError::TooLong { limit: 128 }));
        assert!("a".repeat(128).parse::<ThingName>().is_ok());
        assert!("Pump_7:left-2".parse::<ThingName>().is_ok());
    }

    #[test]
    fn an_id_in_hex_reads_back_as_it_was_written() {
        let mid = Mid([7; 16]);
        assert_eq!(mid.to_string().parse(), Ok(mid));
        assert_eq!(mid.to_string().to_uppercase().parse(), Ok(mid));
        assert_eq!("07".parse::<Mid>(), Err(IdError::NotHex { digits: 32 }));
    }
}
