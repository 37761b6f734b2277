use std::task::{Context, Poll, Waker};

use super::*;
use crate::{
    error::{CallError, ProtocolError},
    options::QueueLimits,
    queue::Item,
};

const RESPONSE: &str = "aws.greengrass#XResponse";
const EVENT: &str = "aws.greengrass#Y";

fn message(
    stream: StreamId,
    model: Option<&'static str>,
    payload: &'static str,
) -> Message<'static> {
    let payload = payload.as_bytes();
    Message { kind: Kind::Application, is_last: false, stream, model, payload }
}

fn last(message: Message<'static>) -> Message<'static> {
    Message { is_last: true, ..message }
}

fn error(stream: StreamId) -> Message<'static> {
    let message = last(message(stream, Some("aws.greengrass#ServiceError"), "{}"));
    Message { kind: Kind::ApplicationError, ..message }
}

fn call(demux: &mut Demux) -> (Ticket, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (demux.enter(Waiter::Call { response: RESPONSE, answer }), answered)
}

/// A call that has been written.
fn open_call(demux: &mut Demux) -> (StreamId, oneshot::Receiver<Answer>) {
    let (ticket, answered) = call(demux);
    (demux.open(ticket).expect("a number").expect("waits"), answered)
}

struct Subscribed {
    ticket: Ticket,
    stream: StreamId,
    queue: Arc<Queue>,
    has_begun: oneshot::Receiver<()>,
    has_ended: oneshot::Receiver<End>,
}

fn subscribe(demux: &mut Demux) -> Subscribed {
    let (began, has_begun) = oneshot::channel();
    let (end, has_ended) = oneshot::channel();
    let queue = Arc::new(Queue::new(QueueLimits::default()));
    let to = Arc::clone(&queue);
    let subscriber =
        Subscriber { response: RESPONSE, event: EVENT, queue: to, began: Some(began), end };
    let ticket = demux.enter(Waiter::Subscription(subscriber));
    let stream = demux.open(ticket).expect("a number").expect("waits");
    Subscribed { ticket, stream, queue, has_begun, has_ended }
}

impl Subscribed {
    fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        while let Poll::Ready(item) = self.queue.poll(&mut Context::from_waker(Waker::noop())) {
            items.push(item);
        }
        items
    }
}

fn event(payload: &str) -> Item {
    Item::Event(payload.into())
}

#[test]
fn numbers_are_given_when_written_without_gaps_for_those_who_have_gone() {
    let mut demux = Demux::new(1);
    let (first, _first) = call(&mut demux);
    let (gone, _gone) = call(&mut demux);
    let (third, _third) = call(&mut demux);
    demux.leave(gone);
    assert_eq!(demux.open(third), Ok(Some(1)));
    assert_eq!(demux.open(gone), Ok(None));
    assert_eq!(demux.open(first), Ok(Some(2)));
}

#[test]
fn answers_find_those_who_wait_in_any_order_and_each_only_once() {
    let mut demux = Demux::new(1);
    let (one, mut first) = open_call(&mut demux);
    let (two, mut second) = open_call(&mut demux);
    // Classic ends the stream with the answer, lite does not.
    demux.receive(last(message(two, Some(RESPONSE), "2"))).expect("goes on");
    demux.receive(message(one, Some(RESPONSE), "1")).expect("goes on");
    demux.receive(message(one, Some(RESPONSE), "late")).expect("goes on");
    demux.receive(message(99, Some(RESPONSE), "unknown")).expect("goes on");
    demux.receive(error(99)).expect("goes on");
    assert_eq!(first.try_recv(), Ok(Ok(b"1".to_vec())));
    assert_eq!(second.try_recv(), Ok(Ok(b"2".to_vec())));
    assert_eq!(demux.held(), 0);
}

#[test]
fn an_answer_needs_no_type_but_must_not_have_a_wrong_one() {
    let mut demux = Demux::new(1);
    let (one, mut first) = open_call(&mut demux);
    let (two, mut second) = open_call(&mut demux);
    demux.receive(message(one, None, "{}")).expect("goes on");
    demux.receive(message(two, Some("a\nlie"), "{}")).expect("goes on");
    assert_eq!(first.try_recv(), Ok(Ok(b"{}".to_vec())));
    let why = "it is of the type a\\nlie instead of aws.greengrass#XResponse".to_owned();
    assert_eq!(second.try_recv(), Ok(Err(Failure::Malformed(why))));
}

#[test]
fn a_refusal_reaches_the_caller_whatever_its_shape() {
    let mut demux = Demux::new(1);
    let (stream, mut answered) = open_call(&mut demux);
    demux.receive(error(stream)).expect("goes on");
    let Ok(Err(Failure::Refused(refusal))) = answered.try_recv() else { panic!() };
    assert!(matches!(refusal.into_error(true), CallError::Service(_)));
    assert_eq!((demux.held(), demux.has_control()), (0, false));
}

#[test]
fn a_caller_who_has_gone_leaves_nothing_and_a_late_answer_does_no_harm() {
    let mut demux = Demux::new(1);
    let (ticket, _answered) = call(&mut demux);
    let stream = demux.open(ticket).expect("a number").expect("waits");
    demux.leave(ticket);
    assert_eq!((demux.held(), demux.has_control()), (0, false));
    demux.receive(last(message(stream, Some(RESPONSE), "{}"))).expect("goes on");
}

#[test]
fn events_and_the_answer_are_told_apart_by_type_in_whatever_order_they_come() {
    let mut demux = Demux::new(7);
    let mut subscribed = subscribe(&mut demux);
    let stream = subscribed.stream;
    demux.receive(message(stream, Some(EVENT), "early")).expect("goes on");
    assert!(subscribed.has_begun.try_recv().is_err());
    demux.receive(message(stream, Some(RESPONSE), "{}")).expect("goes on");
    assert!(subscribed.has_begun.try_recv().is_ok());
    demux.receive(message(stream, Some(EVENT), "then")).expect("goes on");
    demux.receive(message(stream, Some(RESPONSE), "again")).expect("goes on");
    demux.receive(message(stream, Some("what"), "{}")).expect("goes on");
    let active = Item::Active { generation: 7 };
    assert_eq!(subscribed.items(), [event("early"), active, event("then")]);
    assert_eq!(subscribed.queue.shed(), 1);
}

#[test]
fn who_leaves_a_subscription_ends_it_at_the_nucleus_also_before_the_answer() {
    let mut demux = Demux::new(1);
    let pending = subscribe(&mut demux);
    demux.leave(pending.ticket);
    assert_eq!(demux.control(), Some(Control::Terminate(1)));
    let active = subscribe(&mut demux);
    demux.receive(message(2, Some(RESPONSE), "{}")).expect("goes on");
    demux.leave(active.ticket);
    demux.leave(active.ticket);
    assert_eq!(demux.control(), Some(Control::Terminate(2)));
    assert_eq!((demux.control(), demux.held()), (None, 0));
}

#[test]
fn a_stream_that_the_nucleus_ended_is_never_terminated() {
    let mut demux = Demux::new(1);
    let mut ended = subscribe(&mut demux);
    demux.receive(message(1, Some(RESPONSE), "{}")).expect("goes on");
    demux.receive(last(message(1, None, ""))).expect("goes on");
    let mut failed = subscribe(&mut demux);
    demux.receive(message(2, Some(RESPONSE), "{}")).expect("goes on");
    demux.receive(error(2)).expect("goes on");
    let mut refused = subscribe(&mut demux);
    demux.receive(error(3)).expect("goes on");
    let mut unanswered = subscribe(&mut demux);
    demux.receive(last(message(4, None, ""))).expect("goes on");

    assert_eq!(ended.has_ended.try_recv(), Ok(End::Ended(None)));
    assert!(matches!(failed.has_ended.try_recv(), Ok(End::Ended(Some(_)))));
    assert!(matches!(refused.has_ended.try_recv(), Ok(End::Refused(_))));
    assert_eq!(unanswered.has_ended.try_recv(), Ok(End::Ended(None)));
    assert_eq!(ended.items(), [Item::Active { generation: 1 }]);
    assert!(unanswered.has_begun.try_recv().is_err() && unanswered.items().is_empty());
    for ended in [ended, failed, refused, unanswered] {
        demux.leave(ended.ticket);
    }
    assert_eq!((demux.control(), demux.held()), (None, 0));
}

#[test]
fn pings_are_answered_once_with_what_they_brought() {
    let mut demux = Demux::new(1);
    for payload in [&b"one"[..], b"two"] {
        let ping = Message { kind: Kind::Ping, is_last: false, stream: 0, model: None, payload };
        demux.receive(ping).expect("goes on");
    }
    assert_eq!(demux.control(), Some(Control::Pong(b"two".to_vec())));
    assert_eq!(demux.control(), None);
}

#[test]
fn messages_of_the_connection_that_have_no_place_end_it() {
    let connection = |kind| {
        let payload = br#"{"message":"bad"}"#;
        Demux::new(1).receive(Message { kind, is_last: false, stream: 0, model: None, payload })
    };
    assert_eq!(connection(Kind::PingResponse), Ok(()));
    for kind in [Kind::ProtocolError, Kind::InternalError] {
        assert_eq!(connection(kind), Err(ConnectError::Aborted("bad".to_owned())));
    }
    for kind in [Kind::Connect, Kind::ConnectAck { is_accepted: true }] {
        let error = connection(kind).expect_err("no place");
        assert!(matches!(error, ConnectError::Protocol(ProtocolError::Message(_))));
    }
}

#[test]
fn the_end_of_the_connection_tells_everyone_what_was_written_and_what_was_not() {
    let mut demux = Demux::new(1);
    let (_, mut written) = open_call(&mut demux);
    let (_, mut unwritten) = call(&mut demux);
    let mut subscribed = subscribe(&mut demux);
    demux.close();
    let (_, mut late) = call(&mut demux);
    assert_eq!(written.try_recv(), Ok(Err(Failure::Lost)));
    assert_eq!(unwritten.try_recv(), Ok(Err(Failure::NotWritten)));
    assert_eq!(late.try_recv(), Ok(Err(Failure::NotWritten)));
    assert_eq!(subscribed.has_ended.try_recv(), Ok(End::Lost));
    demux.leave(subscribed.ticket);
    assert_eq!((demux.held(), demux.has_control()), (0, false));
}

#[test]
fn when_all_numbers_are_used_up_the_connection_ends() {
    let mut demux = Demux::new(1);
    demux.last_stream = StreamId::MAX - 1;
    let (last, _) = open_call(&mut demux);
    assert_eq!(last, StreamId::MAX);
    let (ticket, mut answered) = call(&mut demux);
    assert_eq!(demux.open(ticket), Err(ConnectError::StreamsExhausted));
    assert_eq!(answered.try_recv(), Ok(Err(Failure::NotWritten)));
}
