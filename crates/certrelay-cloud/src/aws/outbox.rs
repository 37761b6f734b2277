//! What is sent: to devices by AWS IoT, to queues, to the support team.

use aws_sdk_iotdataplane::primitives::Blob;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;

use super::{Aws, errors};
use crate::ports::{Call, CallError, Failure, Outbox, Queue};

/// Messages in a batch, as SQS takes them.
const BATCH: usize = 10;

/// The longest subject of an SNS mail.
const SUBJECT: usize = 100;

impl Aws {
    fn url(&self, queue: Queue) -> &str {
        let [audit, rotate, due] = &self.config.queues;
        match queue {
            Queue::Audit => audit,
            Queue::Rotate => rotate,
            Queue::Due => due,
        }
    }

    async fn batch(&self, queue: Queue, messages: &[String]) -> Result<(), CallError> {
        let call = Call::SendMessage;
        let invalid = |error: &dyn std::error::Error| CallError {
            call,
            why: Failure::Invalid(error.to_string()),
        };
        let entry = |(n, body): (usize, &String)| {
            SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(body).build()
        };
        let entries: Result<Vec<_>, _> = messages.iter().enumerate().map(entry).collect();
        let entries = entries.map_err(|error| invalid(&error))?;
        let request = self.sqs.send_message_batch().queue_url(self.url(queue));
        let answer = request.set_entries(Some(entries)).send().await.map_err(errors::of(call))?;
        // The whole comes again then: what was taken is taken twice, which every function bears.
        match answer.failed().first() {
            None => Ok(()),
            Some(failed) => {
                let why =
                    Failure::Unavailable(format!("a message was not taken: {}", failed.code()));
                Err(CallError { call, why })
            }
        }
    }
}

impl Outbox for Aws {
    async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), CallError> {
        let request = self.data.publish().topic(topic).qos(1).payload(Blob::new(payload));
        request.send().await.map(drop).map_err(errors::of(Call::Publish))
    }

    async fn enqueue(&self, queue: Queue, messages: &[String]) -> Result<(), CallError> {
        for batch in messages.chunks(BATCH) {
            self.batch(queue, batch).await?;
        }
        Ok(())
    }

    async fn notify(&self, subject: &str, text: &str) -> Result<(), CallError> {
        let subject: String = subject.chars().filter(char::is_ascii).take(SUBJECT).collect();
        let request = self.sns.publish().topic_arn(&self.config.support_topic);
        let done = request.subject(subject).message(text).send().await;
        done.map(drop).map_err(errors::of(Call::Notify))
    }
}
