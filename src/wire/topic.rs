//! The topics: `{prefix}/{clientId}/{kind}`, the same on both brokers.
//!
//! The only place that builds or takes apart a topic. A topic that is not exactly ours is no topic
//! of ours; there is no partial match.

use std::fmt;

use super::ids::{IdError, ThingName};

/// AWS IoT refuses a topic with more slashes.
const MAX_SLASHES: usize = 7;

/// AWS IoT refuses a longer topic, in bytes.
const MAX_TOPIC: usize = 256;

/// The six kinds of message; each goes in one direction only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Cloud to device: make a new key and send its CSR.
    CsrReq,
    /// Device to cloud: the CSR.
    CsrRes,
    /// Cloud to device: the certificate.
    Crt,
    /// Device to cloud: the certificate is in use.
    CrtAck,
    /// Device to cloud: something went wrong.
    CrtErr,
    /// Cloud to gateway: what became of an uplink message (optional).
    Result,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::CsrReq, Self::CsrRes, Self::Crt, Self::CrtAck, Self::CrtErr, Self::Result];

    /// The topic's last segment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CsrReq => "csr_req",
            Self::CsrRes => "csr_res",
            Self::Crt => "crt",
            Self::CrtAck => "crt_ack",
            Self::CrtErr => "crt_err",
            Self::Result => "result",
        }
    }

    /// Whether the kind goes from a device to the cloud.
    pub fn is_uplink(self) -> bool {
        matches!(self, Self::CsrRes | Self::CrtAck | Self::CrtErr)
    }

    fn parse(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == segment)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with a topic prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// A segment is empty, or a slash leads or trails.
    #[error("it has an empty segment")]
    EmptySegment,
    /// A segment is not a plain name.
    #[error("the segment {segment:?} is not allowed: {why}")]
    Segment {
        /// The segment.
        segment: String,
        /// What is wrong with it.
        why: IdError,
    },
    /// With the client id and the kind it would have more than 7 slashes, or 256 bytes.
    #[error("with /<clientId>/csr_req after it the topic is over AWS IoT's 7 slashes or 256 bytes")]
    TooLong,
}

/// The topics under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// Parses a prefix such as `management/topic` or `management/core/{thingName}`, in which
    /// `{thingName}` stands for the core's name.
    pub fn parse(prefix: &str, core: &ThingName) -> Result<Self, PrefixError> {
        let segments: Vec<&str> = prefix.split('/').collect();
        let mut parsed = Vec::with_capacity(segments.len());
        for segment in &segments {
            let segment = if *segment == "{thingName}" { core.as_str() } else { segment };
            check_segment(segment)?;
            parsed.push(segment);
        }
        let prefix = parsed.join("/");
        let longest = prefix.len() + "/".len() + super::ids::MAX_THING_NAME + "/csr_req".len();
        if segments.len() - 1 + 2 > MAX_SLASHES || longest > MAX_TOPIC {
            return Err(PrefixError::TooLong);
        }
        Ok(Self { prefix })
    }

    /// The topic of one kind for one device.
    pub fn topic(&self, name: &ThingName, kind: Kind) -> String {
        format!("{}/{name}/{kind}", self.prefix)
    }

    /// The filter that matches one kind for every device.
    pub fn filter(&self, kind: Kind) -> String {
        format!("{}/+/{kind}", self.prefix)
    }

    /// Takes a topic apart; `None` when it is not one of ours.
    pub fn read(&self, topic: &str) -> Option<(ThingName, Kind)> {
        let rest = topic.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        let (name, kind) = rest.split_once('/')?;
        Some((name.parse().ok()?, Kind::parse(kind)?))
    }
}

fn check_segment(segment: &str) -> Result<(), PrefixError> {
    match segment.parse::<ThingName>() {
        Ok(_) => Ok(()),
        Err(IdError::Empty) => Err(PrefixError::EmptySegment),
        Err(why) => Err(PrefixError::Segment { segment: segment.to_owned(), why }),
    }
}

/// Where the core loops its QoS 0 probe through the cloud's broker.
pub fn probe_topic(core: &ThingName) -> String {
    format!("certrelay/{core}/probe")
}

/// Where the core loops its barrier through the local broker.
pub fn barrier_topic(core: &ThingName) -> String {
    format!("certrelay/{core}/barrier")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> ThingName {
        "core-1".parse().expect("a valid name")
    }

    #[test]
    fn a_topic_reads_back_as_the_device_and_kind_it_was_made_for() {
        let topics = Topics::parse("management/core/{thingName}", &core()).expect("valid");
        let pump: ThingName = "pump:7".parse().expect("valid");
        for kind in Kind::ALL {
            let topic = topics.topic(&pump, kind);
            assert_eq!(topics.read(&topic), Some((pump.clone(), kind)));
        }
        assert_eq!(topics.topic(&pump, Kind::Crt), "management/core/core-1/pump:7/crt");
        assert_eq!(topics.filter(Kind::CrtAck), "management/core/core-1/+/crt_ack");
    }

    #[test]
    fn a_topic_that_is_not_exactly_ours_is_none_of_ours() {
        let topics = Topics::parse("management/topic", &core()).expect("valid");
        for topic in [
            "management/topic/a/crt/x",
            "management/topic/a/b/crt",
            "management/topic//crt",
            "management/topic/a/CRT",
            "management/topics/a/crt",
            "management/topica/crt",
            "x/management/topic/a/crt",
            "management/topic/a+/crt",
            "",
        ] {
            assert_eq!(topics.read(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_prefix_that_a_broker_would_refuse_or_misread_is_refused() {
        let parse = |prefix: &str| Topics::parse(prefix, &core());
        assert_eq!(parse(""), Err(PrefixError::EmptySegment));
        assert_eq!(parse("/a"), Err(PrefixError::EmptySegment));
        assert_eq!(parse("a/"), Err(PrefixError::EmptySegment));
        assert!(matches!(parse("a/+"), Err(PrefixError::Segment { .. })));
        assert!(matches!(parse("a/#"), Err(PrefixError::Segment { .. })));
        assert!(matches!(parse("$aws/x"), Err(PrefixError::Segment { .. })));
        assert!(parse("a/b/c/d/e/f").is_ok());
        assert_eq!(parse("a/b/c/d/e/f/g"), Err(PrefixError::TooLong));
        assert_eq!(parse(&"a".repeat(128)), Err(PrefixError::TooLong));
    }
}
