use aws_smithy_eventstream::frame::{read_message_from, write_message_to};
use aws_smithy_types::{
    DateTime,
    event_stream::{Header, HeaderValue, Message},
};
use proptest::{collection::vec, prelude::*};

use super::*;

const CAP: usize = 4096;

/// What is left of a frame when its bytes have gone on.
type Owned = (Vec<(Vec<u8>, Option<i32>, Option<Vec<u8>>)>, Vec<u8>);

fn own(frame: Frame<'_>) -> Result<Owned, FrameError> {
    let own = |(name, value): (&[u8], Value<'_>)| match value {
        Value::Int32(number) => (name.to_vec(), Some(number), None),
        Value::String(text) => (name.to_vec(), None, Some(text.to_vec())),
        Value::Other => (name.to_vec(), None, None),
    };
    let headers = frame.headers().map(|header| header.map(own));
    Ok((headers.collect::<Result<_, _>>()?, frame.payload.to_vec()))
}

/// Feeds bytes in pieces; what came, and what was wrong in the end.
fn decode(bytes: &[u8], piece: usize) -> (Vec<Owned>, Option<FrameError>) {
    let (mut decoder, mut frames) = (Decoder::new(CAP), Vec::new());
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.frame().and_then(|frame| frame.map(own).transpose()) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(decoder.held() <= 2 * (CAP + piece.len()), "{} bytes held", decoder.held());
    }
    (frames, None)
}

fn frame() -> Vec<u8> {
    let mut out = Vec::new();
    let headers = [("number", HeaderOut::Int32(-7)), ("text", HeaderOut::String("grün"))];
    encode(&mut out, &headers, b"payload");
    assert_eq!(out.len(), size_of(&headers, 7));
    out
}

/// A frame whose headers are these bytes, right or wrong, and whose checksums are right.
fn frame_of(headers: &[u8], headers_size: usize, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_length(&mut out, size);
    put_length(&mut out, headers_size);
    put_checksum(&mut out, 0);
    out.extend_from_slice(headers);
    put_checksum(&mut out, 0);
    out
}

fn error_of(bytes: &[u8]) -> Option<FrameError> {
    decode(bytes, bytes.len()).1
}

#[test]
fn a_wrong_checksum_is_seen_in_the_lengths_after_twelve_bytes_and_in_the_rest_at_the_end() {
    let mut bytes = frame();
    bytes[3] ^= 1;
    assert_eq!(error_of(&bytes[..11]), None);
    assert_eq!(error_of(&bytes[..12]), Some(FrameError::PreludeChecksum));
    bytes[3] ^= 1;
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    assert_eq!(error_of(&bytes[..bytes.len() - 1]), None);
    assert_eq!(error_of(&bytes), Some(FrameError::Checksum));
    assert_eq!(error_of(b"HTTP/1.1 400 Bad Request\r\n"), Some(FrameError::PreludeChecksum));
}

#[test]
fn a_length_is_believed_only_within_its_limits_and_judged_before_the_frame_is_there() {
    for size in [CAP + 1, 2 << 30] {
        let too_large = FrameError::TooLarge { size, limit: CAP };
        assert_eq!(error_of(&frame_of(&[], 0, size)[..12]), Some(too_large));
    }
    for size in [0, 15] {
        assert_eq!(error_of(&frame_of(&[], 0, size)[..12]), Some(FrameError::TooShort { size }));
    }
    for headers in [1, u32::MAX as usize] {
        let error = error_of(&frame_of(&[], headers, OVERHEAD)[..12]);
        assert_eq!(error, Some(FrameError::HeadersTooLong));
    }
}

#[test]
fn a_header_that_is_cut_off_or_unknown_is_an_error_and_the_last_item() {
    let headers = |bytes: &[u8]| error_of(&frame_of(bytes, bytes.len(), OVERHEAD + bytes.len()));
    for cut_off in
        [&b"\x02a"[..], b"\x01a", b"\x01a\x04\0\0\0", b"\x01a\x07\0\x05xxxx", b"\x01a\x09"]
    {
        assert_eq!(headers(cut_off), Some(FrameError::HeaderCutOff), "{cut_off:?}");
    }
    assert_eq!(headers(b"\x01a\x0a"), Some(FrameError::HeaderType(10)));
    let mut headers = Headers { rest: b"\x01a\x0a\x01a\x01" };
    assert!(headers.next().expect("an item").is_err());
    assert!(headers.next().is_none());
}

#[test]
fn a_large_frame_leaves_no_large_buffer_behind() {
    let mut decoder = Decoder::new(1 << 20);
    let mut bytes = Vec::new();
    encode(&mut bytes, &[], &[0; 1_000_000]);
    decoder.push(&bytes);
    assert!(decoder.frame().expect("valid").is_some());
    assert!(decoder.frame().expect("valid").is_none());
    assert_eq!(decoder.held(), 0);
}

fn header() -> impl Strategy<Value = Header> {
    let value = prop_oneof![
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<i8>().prop_map(HeaderValue::Byte),
        any::<i16>().prop_map(HeaderValue::Int16),
        any::<i32>().prop_map(HeaderValue::Int32),
        any::<i64>().prop_map(HeaderValue::Int64),
        vec(any::<u8>(), 0..40).prop_map(|bytes| HeaderValue::ByteArray(bytes.into())),
        ".{0,20}".prop_map(|text| HeaderValue::String(text.into())),
        (0..1_900_000_000_i64).prop_map(|s| HeaderValue::Timestamp(DateTime::from_secs(s))),
        any::<u128>().prop_map(HeaderValue::Uuid),
    ];
    ("[:a-z-]{1,20}", value).prop_map(|(name, value)| Header::new(name, value))
}

fn expected(message: &Message) -> Owned {
    let own = |header: &Header| {
        let text = header.value().as_string().ok().map(|text| text.as_str().as_bytes().to_vec());
        (header.name().as_str().into(), header.value().as_int32().ok(), text)
    };
    (message.headers().iter().map(own).collect(), message.payload().to_vec())
}

proptest! {
    #[test]
    fn frames_of_another_encoder_are_read_the_same_in_whatever_pieces_they_come(
        messages in vec((vec(header(), 0..6), vec(any::<u8>(), 0..300)), 1..5),
        piece in 1..700_usize,
    ) {
        let mut bytes = Vec::new();
        let mut all = Vec::new();
        for (headers, payload) in messages {
            let message = Message::new_from_parts(headers, payload);
            write_message_to(&message, &mut bytes).expect("valid");
            all.push(expected(&message));
        }
        prop_assert_eq!(decode(&bytes, piece), (all, None));
    }

    #[test]
    fn another_decoder_reads_our_frames(
        text in ".{0,40}", number in any::<i32>(), payload in vec(any::<u8>(), 0..300),
    ) {
        let headers = [("text", HeaderOut::String(&text)), ("number", HeaderOut::Int32(number))];
        let mut bytes = b"before".to_vec();
        encode(&mut bytes, &headers, &payload);
        let message = read_message_from(&bytes[6..]).expect("valid");
        prop_assert_eq!(bytes.len() - 6, size_of(&headers, payload.len()));
        prop_assert_eq!(message.headers()[0].value().as_string().unwrap().as_str(), text);
        prop_assert_eq!(message.headers()[1].value().as_int32(), Ok(number));
        prop_assert_eq!(&message.payload()[..], &payload[..]);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_hold_more_than_its_cap(
        mut bytes in vec(any::<u8>(), 0..600), flips in vec(any::<(u16, u8)>(), 0..4),
        piece in 1..100_usize,
    ) {
        decode(&bytes, piece);
        bytes = frame().repeat(3);
        for (at, flip) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= flip;
        }
        decode(&bytes, piece);
    }
}
