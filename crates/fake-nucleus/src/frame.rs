//! Frames of the event stream encoding. Pure.
//!
//! `total u32 | headers u32 | crc32 of these 8 u32 | headers | payload | crc32 of all before u32`,
//! big endian. Whatever comes, nothing here panics. The codec is this crate's own on purpose: it
//! shares no code with a client that is tested against it.

/// The bytes before the headers.
pub(crate) const PRELUDE: usize = 12;

/// A frame with neither headers nor payload.
const SMALLEST: usize = 16;

const TYPE_INT: u8 = 4;
const TYPE_TEXT: u8 = 7;

/// A header's value; only what the protocol uses is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i32),
    Text(String),
    Other,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub headers: Vec<(String, Value)>,
    pub payload: Vec<u8>,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a prelude with a bad checksum")]
    PreludeChecksum,
    #[error("a frame with a bad checksum")]
    Checksum,
    #[error("a frame of {0} bytes")]
    Length(usize),
    #[error("headers that do not fit into their frame")]
    Headers,
}

/// The lengths that a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prelude {
    pub total: usize,
    headers: usize,
    bytes: [u8; PRELUDE],
}

impl Prelude {
    /// Reads the first bytes of a frame.
    pub fn read(bytes: [u8; PRELUDE]) -> Result<Self, FrameError> {
        if crc32fast::hash(&bytes[..8]) != number(&bytes[8..]) {
            return Err(FrameError::PreludeChecksum);
        }
        let (total, headers) = (number(&bytes) as usize, number(&bytes[4..]) as usize);
        if total < SMALLEST {
            return Err(FrameError::Length(total));
        }
        if headers > total - SMALLEST {
            return Err(FrameError::Headers);
        }
        Ok(Self { total, headers, bytes })
    }

    /// How many bytes follow.
    pub fn rest(&self) -> usize {
        self.total - PRELUDE
    }
}

impl Frame {
    /// Reads what follows the prelude.
    pub fn read(prelude: &Prelude, rest: &[u8]) -> Result<Self, FrameError> {
        let body = rest.get(..prelude.rest() - 4).ok_or(FrameError::Length(rest.len()))?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&prelude.bytes);
        checksum.update(body);
        if checksum.finalize() != number(&rest[body.len()..]) {
            return Err(FrameError::Checksum);
        }
        let (headers, payload) = body.split_at(prelude.headers);
        Ok(Self { headers: read_headers(headers)?, payload: payload.to_vec() })
    }

    /// The bytes of the frame. Headers of other types than int and text are left out.
    pub fn bytes(&self) -> Vec<u8> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            write_header(&mut headers, name, value);
        }
        assemble(&headers, &self.payload)
    }

    /// The header `name`, whatever its case.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The header `name`, if it is a number.
    pub fn int(&self, name: &str) -> Option<i32> {
        match self.header(name)? {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The header `name`, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.header(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A frame of headers that are encoded already.
pub(crate) fn assemble(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = SMALLEST + headers.len() + payload.len();
    let mut bytes = prelude(length(total), length(headers.len())).to_vec();
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

/// A prelude that is good in itself, whatever the lengths.
pub(crate) fn prelude(total: u32, headers: u32) -> [u8; PRELUDE] {
    let mut bytes = [0; PRELUDE];
    bytes[..4].copy_from_slice(&total.to_be_bytes());
    bytes[4..8].copy_from_slice(&headers.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..8]);
    bytes[8..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The first four bytes as a number; fewer count as nothing.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

fn write_header(into: &mut Vec<u8>, name: &str, value: &Value) {
    let name_length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let value = match value {
        Value::Int(number) => [&[TYPE_INT][..], &number.to_be_bytes()].concat(),
        Value::Text(text) => {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            let text = &text.as_bytes()[..usize::from(length)];
            [&[TYPE_TEXT][..], &length.to_be_bytes(), text].concat()
        }
        Value::Other => return,
    };
    into.push(name_length);
    into.extend_from_slice(&name.as_bytes()[..usize::from(name_length)]);
    into.extend_from_slice(&value);
}

fn read_headers(mut bytes: &[u8]) -> Result<Vec<(String, Value)>, FrameError> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let name_length = usize::from(take(&mut bytes, 1)?[0]);
        let name = text(take(&mut bytes, name_length)?)?;
        headers.push((name, read_value(&mut bytes)?));
    }
    Ok(headers)
}

fn read_value(bytes: &mut &[u8]) -> Result<Value, FrameError> {
    let kind = take(bytes, 1)?[0];
    let length = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        TYPE_INT => 4,
        5 | 8 => 8,
        6 | TYPE_TEXT => {
            let length = take(bytes, 2)?;
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        }
        9 => 16,
        _ => return Err(FrameError::Headers),
    };
    let value = take(bytes, length)?;
    Ok(match kind {
        TYPE_INT => Value::Int(i32::from_be_bytes([value[0], value[1], value[2], value[3]])),
        TYPE_TEXT => Value::Text(text(value)?),
        _ => Value::Other,
    })
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], FrameError> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(FrameError::Headers)?;
    *bytes = rest;
    Ok(taken)
}

fn text(bytes: &[u8]) -> Result<String, FrameError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::Headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Frame {
        let headers = vec![
            (":message-type".to_owned(), Value::Int(-5)),
            ("operation".to_owned(), Value::Text("aws.greengrass#X".to_owned())),
        ];
        Frame { headers, payload: b"{}".to_vec() }
    }

    fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
        let prelude = Prelude::read(*bytes.first_chunk().ok_or(FrameError::Length(bytes.len()))?)?;
        Frame::read(&prelude, &bytes[PRELUDE..])
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&sample().bytes()), Ok(sample()));
    }

    #[test]
    fn no_changed_or_missing_byte_goes_unseen() {
        let good = sample().bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "byte {at}");
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn headers_that_lie_about_their_length_are_refused() {
        let headers = [9, b'x', TYPE_INT, 0];
        assert_eq!(read(&assemble(&headers, b"")), Err(FrameError::Headers));
        assert_eq!(read(&assemble(&[1, b'x', 99], b"")), Err(FrameError::Headers));
        assert_eq!(Prelude::read(prelude(16, 1)), Err(FrameError::Headers));
        assert_eq!(Prelude::read(prelude(15, 0)), Err(FrameError::Length(15)));
    }
}
