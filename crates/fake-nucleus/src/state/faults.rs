//! What goes wrong because the test wants it to.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Failure, Next, Out, State, StreamKey};
use crate::{
    fault::{self, Fault, WrongAnswer},
    message::{APPLICATION_MESSAGE, Outgoing, TERMINATE_STREAM},
};

impl State {
    /// Something goes wrong.
    pub fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::EndStreams => self.end_streams(),
            Fault::StopReading(pause) => {
                for connection in self.connections.values_mut() {
                    connection.paused_until = Some(Instant::now() + pause);
                }
            }
            Fault::Answer { operation, with, times } => self.armed.push((operation, with, times)),
            fault => self.write_to_all(&fault),
        }
    }

    /// Answers a request wrongly, if that is due. Says whether that was all.
    pub(super) fn is_answered_by_fault(&mut self, key: StreamKey, operation: &str) -> bool {
        match fault::take(&mut self.armed, operation) {
            None => return false,
            Some(WrongAnswer::Nothing) => {}
            Some(WrongAnswer::Error { code, message }) => {
                self.fail(key, &Failure::coded(code, message));
            }
            Some(WrongAnswer::InternalServerError) => self.fail(key, &Failure::Internal),
            Some(WrongAnswer::EventFirst) => {
                self.event(key, "IoTCoreMessage", &early_event());
                return false;
            }
            Some(WrongAnswer::Close) => self.put(key.connection, Out::Close),
        }
        true
    }

    /// What becomes of a CONNECT, if that is to go wrong.
    pub(super) fn connect_fault(&mut self) -> Option<Next> {
        fault::take(&mut self.armed, "CONNECT").map(|with| match with {
            WrongAnswer::Nothing => Next::Read,
            _ => Next::Close,
        })
    }

    fn write_to_all(&mut self, fault: &Fault) {
        for connection in self.numbers() {
            for out in fault.writes(self.mode()) {
                self.put(connection, out);
            }
        }
    }

    fn end_streams(&mut self) {
        for (key, _) in self.listeners() {
            self.send(key, &Outgoing::bare(APPLICATION_MESSAGE, TERMINATE_STREAM, key.stream));
            self.close_stream(key);
        }
    }

    /// The events of a flood: for each subscription to IoT Core where they go, and one of them.
    pub fn flood_events(&self, size: usize) -> Vec<(tokio::sync::mpsc::Sender<Out>, Vec<u8>)> {
        let payload = data_encoding::BASE64.encode(&vec![b'x'; size]);
        let event = |(key, topic): (StreamKey, String)| {
            let body = json!({"message": {"topicName": topic, "payload": payload}});
            let model = Some("IoTCoreMessage");
            let event = Outgoing::json(APPLICATION_MESSAGE, 0, key.stream, model, &body);
            let to = self.connections.get(&key.connection)?.outbox.clone();
            Some((to, event.bytes(self.mode())))
        };
        self.listeners().into_iter().filter_map(event).collect()
    }
}

fn early_event() -> Value {
    json!({"message": {"topicName": "early", "payload": ""}})
}
