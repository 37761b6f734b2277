//! The adapter of AWS against an independent peer: moto, which plays DynamoDB, SQS, SNS, AWS Private CA
//! and AWS IoT's registry. `MOTO_PYTHON` names a Python that has it (`make test-aws`); without it these
//! tests are not run. Where moto is wrong or has nothing there is a face of the
//! cloud in memory, which boto3 has compared with moto.

mod fake;
mod lambda;
mod moto;

use std::time::Duration;

use certrelay::{
    keys::{KeyKind, PrivateKey},
    schedule::Timestamp,
    wire::{CertificateId, ThingName},
    x509,
};
use certrelay_cloud::{
    decide::{issue::csr_pem, report::Note, request::Order},
    functions::{Done, complete, due, issue, request, sweep},
    memory::{Authority, Ca, Memory, World},
    ports::{
        Attachment, Audits, CallError, Failure, Finding, Outbox, PutError, Queue, Records,
        Registry, Status,
    },
    record::{Blob, Key, Old, Record},
    settings::Settings,
};
use lambda::Function;
use moto::Moto;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_900_000_000_000);

const DAY: Duration = Duration::from_secs(86_400);

fn name(text: &str) -> ThingName {
    text.parse().expect("a name")
}

fn why<T: std::fmt::Debug>(result: Result<T, CallError>) -> Failure {
    result.expect_err("it fails").why
}

fn record(seq: u32, due: Timestamp) -> Record {
    let old = Old {
        id: CertificateId([u8::try_from(seq).expect("few"); 32]),
        key: certrelay::wire::KeyDigest([1; 32]),
        spki: Blob(vec![1; 91]),
        not_after: NOW,
        is_exclusive: false,
    };
    let mut record = Record::begin(name("press-9"), old, None, [1; 16], due);
    record.key.seq = seq;
    record
}

/// One moto for all: it takes seconds to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs moto: make test-aws runs it"]
async fn official() {
    let moto = Moto::start();
    records_are_written_by_one_of_those_who_read_them(&moto).await;
    a_list_goes_on_where_its_page_ended(&moto).await;
    a_days_budget_is_never_overdrawn(&moto).await;
    notes_are_kept_until_they_are_forgotten_and_the_team_is_told(&moto).await;
    batches_of_any_size_reach_their_queue(&moto).await;
    certificates_are_deleted_only_when_nothing_hangs_on_them(&moto).await;
    a_rotation_goes_from_an_order_to_its_end(&moto).await;
    the_program_does_the_same_by_its_environment(&moto);
    as_a_lambda_function_it_gives_back_what_failed_and_nothing_else(&moto).await;
    the_memory_does_what_moto_does_and_what_moto_has_wrong_as_boto3_sees_it(&moto);
    the_adapter_reads_what_moto_has_not(&moto).await;
}

async fn records_are_written_by_one_of_those_who_read_them(moto: &Moto) {
    let aws = moto.aws();
    assert_eq!(aws.latest(&name("press-9")).await, Ok(None));
    let first = record(1, NOW);
    assert_eq!(aws.put(&first).await, Ok(()));
    assert_eq!(aws.put(&first).await, Err(PutError::Raced));
    assert_eq!(aws.latest(&name("press-9")).await, Ok(Some(first.clone())));
    let second = first.clone().into_state(first.state.clone());
    let both = [aws.put(&second).await, aws.put(&second).await];
    assert_eq!(both, [Ok(()), Err(PutError::Raced)]);
    assert_eq!(aws.put(&record(12, NOW)).await, Ok(()));
    assert_eq!(aws.put(&record(2, NOW)).await, Ok(()));
    let latest = aws.latest(&name("press-9")).await.expect("an answer").expect("a record");
    assert_eq!(latest.key.seq, 12, "the newest, not the last in the alphabet");
}

async fn a_list_goes_on_where_its_page_ended(moto: &Moto) {
    let aws = moto.aws();
    for seq in 20..40 {
        aws.put(&record(seq, NOW + DAY * seq)).await.expect("written");
    }
    let due = aws.due(NOW + DAY * 29, None).await.expect("a page");
    let seqs: Vec<_> = due.items.iter().map(|key| key.seq).filter(|seq| *seq >= 20).collect();
    assert_eq!(seqs, (20..30).collect::<Vec<_>>(), "those that are due, the longest due first");
    let under_way = aws.under_way(None).await.expect("a page").items;
    assert!(under_way.contains(&CertificateId([39; 32])));
    let over = record(20, NOW);
    let ended = certrelay_cloud::record::Ended { code: "x".to_owned(), at: NOW };
    let over = over.into_state(certrelay_cloud::record::State::Abandoned(ended));
    aws.put(&over).await.expect("written");
    let due = aws.due(NOW + DAY * 29, None).await.expect("a page").items;
    assert!(due.iter().all(|key| key.seq != 20), "what is over is due no more");
}

async fn a_days_budget_is_never_overdrawn(moto: &Moto) {
    let (one, other) = (moto.aws(), moto.aws());
    let mut granted = 0;
    for _ in 0..4 {
        let (a, b) = tokio::join!(one.draw(7, 30, 100), other.draw(7, 30, 100));
        granted += a.expect("an answer") + b.expect("an answer");
    }
    assert_eq!(granted, 100);
    assert_eq!(one.draw(8, 5, 100).await, Ok(5), "another day has its own");
}

async fn notes_are_kept_until_they_are_forgotten_and_the_team_is_told(moto: &Moto) {
    let aws = moto.aws();
    let note =
        Note { key: Key { thing: name("press-9"), seq: 3 }, code: "read-only".into(), at: NOW };
    aws.keep(&note).await.expect("kept");
    aws.keep(&note).await.expect("kept");
    assert_eq!(aws.notes(None).await.expect("a page").items, [note]);
    let swept = sweep::sweep(&aws, || true, NOW).await.expect("it goes well");
    assert_eq!(swept.notes, 1);
    assert_eq!(aws.notes(None).await.expect("a page").items, []);
    let mail = moto.receive("mails").await.expect("SNS has handed it over");
    assert!(mail.contains("read-only: 1") && mail.contains("press-9 (rotation 3)"), "{mail}");
}

async fn batches_of_any_size_reach_their_queue(moto: &Moto) {
    let aws = moto.aws();
    let messages: Vec<_> = (0..23).map(|n| format!("message {n}")).collect();
    aws.enqueue(Queue::Audit, &messages).await.expect("taken");
    let mut received = Vec::new();
    while let Some(message) = moto.receive("audit").await {
        received.push(message);
    }
    received.sort_by_key(|message| message[8..].parse::<u32>().expect("a number"));
    assert_eq!(received, messages);
}

async fn certificates_are_deleted_only_when_nothing_hangs_on_them(moto: &Moto) {
    let aws = moto.aws();
    let core = moto.id("core-1");
    assert_eq!(why(aws.delete(core).await), Failure::Conflict, "it is ACTIVE");
    let missing = CertificateId([9; 32]);
    assert_eq!(why(aws.certificate(missing).await), Failure::NotFound);
    assert_eq!(why(aws.set_active(missing, false).await), Failure::NotFound);
    let things = aws.things_of(core).await.expect("a list");
    assert_eq!(things, [Attachment { thing: name("core-1"), is_exclusive: false }]);
    assert_eq!(aws.policies_of(core).await.expect("a list").len(), 2);
    for (thing, speaks) in [("core-1", true), ("core-10", false), ("press-1", false)] {
        assert_eq!(aws.speaks_for(core, &name(thing)).await, Ok(speaks));
    }
    for (core, device, is) in
        [("core-1", "press-1", true), ("core-2", "press-1", false), ("core-1", "press-2", false)]
    {
        assert_eq!(aws.is_associated(&name(core), &name(device)).await, Ok(is));
    }
    assert_eq!(aws.core_of(&name("press-1")).await, Ok(Some(name("core-1"))));
    let (key, token) = (PrivateKey::generate(KeyKind::P256).expect("a key"), "one");
    let csr = csr_pem(&key.csr(&name("press-1")).expect("a CSR"));
    let created = aws.create(&csr, token).await.expect("made");
    let der = pem::parse(&created.pem).expect("PEM").into_contents();
    assert_eq!(x509::read_certificate(&der).expect("a certificate").key, key.digest());
    let registered = aws.certificate(created.id).await.expect("registered");
    assert_eq!(registered.status, Status::Inactive);
    aws.attach_policy(created.id, "device").await.expect("attached");
    aws.attach_policy(created.id, "device").await.expect("attached twice");
    assert_eq!(why(aws.delete(created.id).await), Failure::Conflict, "a policy hangs on it");
    aws.detach_policy(created.id, "device").await.expect("detached");
    aws.delete(created.id).await.expect("deleted");
    assert_eq!(why(aws.certificate(created.id).await), Failure::NotFound);
}

/// The event of a topic rule, for a message of press-1's that core-1 relays.
fn event(moto: &Moto, mut payload: Value, at: Timestamp) -> Vec<u8> {
    payload["thing"] = json!("press-1");
    payload["client"] = json!("core-1#2");
    payload["principal"] = json!(moto.id("core-1"));
    payload["at"] = json!(at.0);
    payload.to_string().into_bytes()
}

async fn a_rotation_goes_from_an_order_to_its_end(moto: &Moto) {
    let (aws, settings) = (moto.aws(), Settings::default());
    let old = moto.id("press-1");
    let order = serde_json::to_string(&Order { certificate_id: old, hold_until: None });
    let order = order.expect("an order");
    let done = request::request(&aws, &settings, order.as_bytes(), [3; 16], NOW).await;
    assert_eq!(done, Ok(Done::Did("requested")));
    let again = request::request(&aws, &settings, order.as_bytes(), [3; 16], NOW).await;
    assert_eq!(again, Ok(Done::Nothing));

    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let csr = csr_pem(&key.csr(&name("press-1")).expect("a CSR"));
    let csr = event(moto, json!({ "CSR": csr }), NOW);
    assert_eq!(issue::issue(&aws, &settings, &csr, NOW).await, Ok(Done::Did("issued")));
    let again = issue::issue(&aws, &settings, &csr, NOW).await;
    assert_eq!(again, Ok(Done::Did("sent again")));
    let made = |record: &Record| record.state.made().expect("made").clone();
    let read = async || aws.latest(&name("press-1")).await.expect("an answer").expect("a record");
    let new = made(&read().await);
    assert_eq!(new.key, key.digest());
    assert_eq!(aws.certificate(new.id).await.expect("registered").status, Status::Active);
    assert_eq!(aws.policies_of(new.id).await.expect("a list").len(), 2);

    let ack = event(moto, json!({ "certificateId": new.id, "ack": "named" }), NOW);
    assert_eq!(complete::complete(&aws, &settings, &ack, NOW).await, Ok(Done::Did("acked")));
    let key = serde_json::to_string(&read().await.key).expect("a key");
    let at = async |days: u32| due::due(&aws, &settings, key.as_bytes(), NOW + DAY * days).await;
    assert_eq!(at(6).await, Ok(Done::Nothing));
    assert_eq!(aws.certificate(old).await.expect("there").status, Status::Active);
    assert_eq!(at(7).await, Ok(Done::Did("deactivated")));
    assert_eq!(aws.certificate(old).await.expect("there").status, Status::Inactive);
    assert_eq!(at(13).await, Ok(Done::Nothing));
    assert_eq!(at(14).await, Ok(Done::Did("retired")));
    assert_eq!(why(aws.certificate(old).await), Failure::NotFound);
    assert_eq!(read().await.state.name(), "retired");
    moto.set_id("press-1", new.id);

    let topics = moto.published();
    let kinds = ["csr_req", "crt", "crt", "result"];
    assert_eq!(topics, kinds.map(|kind| format!("management/topic/press-1/{kind}")));
}

fn the_program_does_the_same_by_its_environment(moto: &Moto) {
    let order =
        serde_json::to_string(&Order { certificate_id: moto.id("press-1"), hold_until: None });
    let said = moto.run("request", &order.expect("an order"));
    assert!(said.contains(r#"Did("requested")"#), "{said}");
    let said = moto.run("sweep", "");
    assert!(said.contains(r#"Did("swept")"#), "{said}");
    let said = moto.run("request", r#"{"certificateId":"?"}"#);
    assert!(said.contains("the message can't be read"), "{said}");
}

async fn as_a_lambda_function_it_gives_back_what_failed_and_nothing_else(moto: &Moto) {
    let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
    let order = Order { certificate_id: moto.id("press-1"), hold_until: None };
    let order = serde_json::to_string(&order).expect("an order");
    let function = Function::start(moto, "request");
    let messages = [("good", order.as_str()), ("bad", "?"), ("also good", order.as_str())];
    assert_eq!(function.receive(&messages, minute), ["bad"]);
    // There is no time for any: all go back before they are begun.
    assert_eq!(function.receive(&messages, second), ["good", "bad", "also good"]);
    assert_eq!(function.receive(&messages[..1], minute), [""; 0]);

    let function = Function::start(moto, "audit");
    let found = json!([{ "checkName": "DEVICE_CERTIFICATE_AGE_CHECK" }]);
    let audit = json!({ "taskId": "task-7", "taskStatus": "COMPLETED", "auditDetails": found });
    let sns = json!({
        "SignatureVersion": "1", "Timestamp": "2026-01-02T12:45:07.000Z", "Signature": "",
        "SigningCertUrl": "", "MessageId": "id", "Message": audit.to_string(),
        "MessageAttributes": {}, "Type": "Notification", "UnsubscribeUrl": "",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:audits", "Subject": null
    });
    let event = json!({ "Records": [{
        "EventVersion": "1.0", "EventSource": "aws:sns", "EventSubscriptionArn": "", "Sns": sns
    }] });
    assert_eq!(function.invoke(&event, minute)["batchItemFailures"], json!([]));
    let job = moto.receive("audit").await.expect("a job");
    assert!(job.contains("task-7") && job.contains("DEVICE_CERTIFICATE_AGE_CHECK"), "{job}");

    let function = Function::start(moto, "sweep");
    let hourly = json!({ "source": "aws.events", "detail-type": "Scheduled Event", "detail": {} });
    assert_eq!(function.invoke(&hourly, minute)["batchItemFailures"], json!([]));
}

/// A cloud in memory with 600 findings and seven devices of a core.
fn memory() -> Memory {
    let mut world = World::new(Authority::new("a CA").expect("a CA"), NOW);
    let finding = |n: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Finding { certificate: CertificateId(id), expires: Some(NOW + DAY * u32::from(n)) }
    };
    let key = ("task".to_owned(), "DEVICE_CERTIFICATE_EXPIRING_CHECK".to_owned());
    world.findings.insert(key, (0..600).map(finding).collect());
    for n in 0..7 {
        world.associations.insert((name("core-1"), name(&format!("device-{n}"))));
    }
    Memory::new(world)
}

fn the_memory_does_what_moto_does_and_what_moto_has_wrong_as_boto3_sees_it(moto: &Moto) {
    let memory = memory();
    let url = format!("http://{}", fake::serve(memory.clone()));
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let csr = csr_pem(&key.csr(&name("press-1")).expect("a CSR"));
    let checked = Authority::new("another").expect("a CA").sign(&csr, NOW, DAY).expect("signed");
    moto.check(&url, &json!({ "csr": csr, "checked": checked }));
    let published = memory.world().published.clone();
    assert_eq!(published, [("management/topic/press-1/crt".to_owned(), b"{}".to_vec())]);
}

async fn the_adapter_reads_what_moto_has_not(moto: &Moto) {
    let memory = memory();
    let aws = moto.aws_at(&format!("http://{}", fake::serve(memory.clone()))).await;
    let (check, mut token, mut found) = ("DEVICE_CERTIFICATE_EXPIRING_CHECK", None, Vec::new());
    loop {
        let page = aws.findings("task", check, token.as_deref()).await.expect("a page");
        found.extend(page.items);
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 600);
    assert_eq!(found[7].expires, Some(NOW + DAY * 7));
    for (core, device, is) in
        [("core-1", "device-6", true), ("core-1", "device-7", false), ("core-2", "device-1", false)]
    {
        assert_eq!(aws.is_associated(&name(core), &name(device)).await, Ok(is), "{core} {device}");
    }
    assert_eq!(aws.core_of(&name("device-1")).await, Ok(None));
    let key = PrivateKey::generate(KeyKind::P256).expect("a key");
    let csr = csr_pem(&key.csr(&name("press-1")).expect("a CSR"));
    let made = aws.create(&csr, "token").await.expect("made");
    let der = pem::parse(&made.pem).expect("PEM").into_contents();
    let facts = x509::read_certificate(&der).expect("a certificate");
    assert_eq!((facts.id, facts.key), (made.id, key.digest()));
    assert_eq!(aws.certificate(made.id).await.expect("there").status, Status::Inactive);
    let to = Attachment { thing: name("press-1"), is_exclusive: true };
    aws.attach_thing(made.id, &to).await.expect("attached");
    assert_eq!(aws.things_of(made.id).await, Ok(vec![to.clone()]));
    aws.detach_thing(made.id, &to.thing).await.expect("asked for");
    assert_eq!(why(aws.delete(made.id).await), Failure::Conflict, "AWS detaches later");
    {
        let mut world = memory.world();
        world.now = world.now + DAY;
    }
    assert_eq!(aws.delete(made.id).await, Ok(()));
    assert!(matches!(why(aws.create("no CSR", "token").await), Failure::Invalid(_)));
    aws.publish("management/topic/press-1/crt", b"{}").await.expect("published");
    let (topic, payload) = memory.world().published.pop_back().expect("it came");
    assert_eq!((topic.as_str(), payload.as_slice()), ("management/topic/press-1/crt", &b"{}"[..]));
}
