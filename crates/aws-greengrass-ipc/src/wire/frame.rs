//! Frames of the event stream encoding: cut out of a stream of bytes, and put together.
//!
//! Owns the bytes of the one frame that is not complete yet. Invariants: the length of a frame is
//! believed only after its checksum and the cap have been looked at, so at most one frame of the
//! cap's size is ever held; after an error nothing more is read. Never panics on what came.

use std::ops::Range;

/// Lengths and their checksum.
const PRELUDE: usize = 12;

/// The prelude and the checksum at the end.
const OVERHEAD: usize = PRELUDE + 4;

/// A buffer that one large frame has blown up is given back when it is empty.
const KEPT: usize = 64 * 1024;

/// Bytes that are no frame. The stream can't be read further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The checksum of the lengths is wrong: most likely this is no event stream at all.
    #[error("the checksum of a frame's lengths is wrong")]
    PreludeChecksum,
    /// The checksum of the whole frame is wrong.
    #[error("the checksum of a frame is wrong")]
    Checksum,
    /// The frame is larger than is accepted.
    #[error("a frame has {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// The length that it announced.
        size: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The frame claims to be shorter than an empty one.
    #[error("a frame has only {size} bytes")]
    TooShort {
        /// The length that it announced.
        size: usize,
    },
    /// The headers are said to be longer than the frame.
    #[error("the headers of a frame are said to be longer than the frame")]
    HeadersTooLong,
    /// A header ends in its middle.
    #[error("a header of a frame is cut off")]
    HeaderCutOff,
    /// A header has a type that the encoding does not know, so its length is unknown too.
    #[error("a header of a frame is of the unknown type {0}")]
    HeaderType(u8),
}

/// A complete frame, in the bytes of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    headers: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The headers, in order; an error is the last item.
    pub fn headers(self) -> Headers<'a> {
        Headers { rest: self.headers }
    }
}

/// The value of a header. Those types that the protocol does not use are told apart no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Int32(i32),
    String(&'a [u8]),
    Other,
}

/// Iterates over the headers of a frame.
#[derive(Debug, Clone)]
pub(crate) struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a [u8], Value<'a>), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let header = self.read();
        if header.is_err() {
            self.rest = &[];
        }
        Some(header)
    }
}

impl<'a> Headers<'a> {
    fn read(&mut self) -> Result<(&'a [u8], Value<'a>), FrameError> {
        let length = self.array::<1>()?;
        let name = self.take(usize::from(length[0]))?;
        let [kind] = self.array::<1>()?;
        Ok((name, self.value(kind)?))
    }

    fn value(&mut self, kind: u8) -> Result<Value<'a>, FrameError> {
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => return Ok(Value::Int32(i32::from_be_bytes(self.array()?))),
            5 | 8 => 8,
            6 | 7 => usize::from(u16::from_be_bytes(self.array()?)),
            9 => 16,
            unknown => return Err(FrameError::HeaderType(unknown)),
        };
        let bytes = self.take(length)?;
        Ok(if kind == 7 { Value::String(bytes) } else { Value::Other })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(FrameError::HeaderCutOff)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(FrameError::HeaderCutOff)?;
        self.rest = rest;
        Ok(bytes)
    }
}

/// Cuts frames out of bytes as they come.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// What of the buffer has been given out.
    done: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder that accepts frames of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), done: 0, limit }
    }

    /// Takes bytes in. [`Decoder::frame`] has to be called until it gives nothing.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some(range) = self.complete()? else {
            self.give_back();
            return Ok(None);
        };
        self.done = range.end;
        open(&self.buffer[range]).map(Some)
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_in_frame(&self) -> bool {
        self.done < self.buffer.len()
    }

    /// How much memory is held.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    fn complete(&self) -> Result<Option<Range<usize>>, FrameError> {
        let rest = &self.buffer[self.done..];
        let Some(prelude) = rest.first_chunk() else { return Ok(None) };
        let size = check_prelude(prelude, self.limit)?;
        Ok((rest.len() >= size).then(|| self.done..self.done + size))
    }

    fn give_back(&mut self) {
        if self.done == self.buffer.len() && self.buffer.capacity() > KEPT {
            (self.buffer, self.done) = (Vec::new(), 0);
        }
    }
}

/// The size of the frame, if the prelude holds.
fn check_prelude(prelude: &[u8; PRELUDE], limit: usize) -> Result<usize, FrameError> {
    let [size, headers, checksum] = words(prelude);
    if crc32fast::hash(&prelude[..8]) != checksum {
        return Err(FrameError::PreludeChecksum);
    }
    let (size, headers) = (as_usize(size), as_usize(headers));
    if size > limit {
        return Err(FrameError::TooLarge { size, limit });
    }
    let room = size.checked_sub(OVERHEAD).ok_or(FrameError::TooShort { size })?;
    if headers > room { Err(FrameError::HeadersTooLong) } else { Ok(size) }
}

/// Opens a frame whose prelude holds and whose bytes are all there.
fn open(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let short = FrameError::TooShort { size: frame.len() };
    let (body, checksum) = frame.split_last_chunk().ok_or(short.clone())?;
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return Err(FrameError::Checksum);
    }
    let (prelude, body) = body.split_first_chunk::<PRELUDE>().ok_or(short)?;
    let [_, headers, _] = words(prelude);
    let (headers, payload) =
        body.split_at_checked(as_usize(headers)).ok_or(FrameError::HeadersTooLong)?;
    Ok(Frame { headers, payload })
}

fn words(prelude: &[u8; PRELUDE]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *prelude;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_be_bytes)
}

/// A length that is too large for this machine is over every limit.
fn as_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// Puts a frame together at the end of `out`.
///
/// The names and texts of headers are our own, and short: their lengths fit.
pub(crate) fn encode(out: &mut Vec<u8>, headers: &[(&str, HeaderOut<'_>)], payload: &[u8]) {
    let start = out.len();
    let headers_size: usize = headers.iter().map(header_size).sum();
    let size = size(headers_size, payload.len());
    out.reserve(size);
    put_length(out, size);
    put_length(out, headers_size);
    put_checksum(out, start);
    for header in headers {
        put_header(out, header);
    }
    out.extend_from_slice(payload);
    put_checksum(out, start);
}

/// The size of a frame with such headers and such a payload.
pub(crate) fn size_of(headers: &[(&str, HeaderOut<'_>)], payload: usize) -> usize {
    size(headers.iter().map(header_size).sum(), payload)
}

/// A header to send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HeaderOut<'a> {
    Int32(i32),
    String(&'a str),
}

fn size(headers: usize, payload: usize) -> usize {
    OVERHEAD.saturating_add(headers).saturating_add(payload)
}

fn header_size((name, value): &(&str, HeaderOut<'_>)) -> usize {
    let value = match value {
        HeaderOut::Int32(_) => 4,
        HeaderOut::String(text) => 2 + text.len(),
    };
    2 + name.len() + value
}

fn put_header(out: &mut Vec<u8>, (name, value): &(&str, HeaderOut<'_>)) {
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
    match value {
        HeaderOut::Int32(number) => {
            out.push(4);
            out.extend_from_slice(&number.to_be_bytes());
        }
        HeaderOut::String(text) => {
            out.push(7);
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_checksum(out: &mut Vec<u8>, start: usize) {
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
