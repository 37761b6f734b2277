//! How messages reach the functions: the rules, and the queues.

use serde_json::Value;

use super::{
    FUNCTION,
    stack::{Stack, TEMPLATE, entries, number, text, texts},
    yaml,
};

const RULE: &str = "AWS::IoT::TopicRule";

/// Who writes records has so many seconds for it, by their lease.
const LEASE: f64 = 120.0;

/// A function, and a queue that it reads.
pub struct Consumer<'a> {
    /// The queue.
    pub queue: &'a str,
    function: &'a Value,
    source: &'a Value,
}

/// Every function that reads a queue.
pub fn consumers(stack: &Stack) -> impl Iterator<Item = Consumer<'_>> {
    stack.all(FUNCTION).flat_map(|(_, function)| {
        let events = entries(&function["Events"]).map(|(_, event)| event);
        events.filter(|event| event["Type"] == "SQS").map(move |event| {
            let source = &event["Properties"];
            let queue = text(&source["Queue"]).strip_suffix(".Arn").expect("an ARN");
            Consumer { queue, function, source }
        })
    })
}

/// What a rule selects, as (expression, name), and its filter.
fn select(rule: &Value) -> (Vec<(String, String)>, String) {
    let sql = text(&rule["TopicRulePayload"]["Sql"]);
    let (fields, rest) =
        sql.strip_prefix("SELECT ").expect("SELECT").split_once(" FROM '").expect("FROM");
    let fields = fields.split(", ").map(|field| {
        let (expression, name) = field.split_once(" AS ").unwrap_or((field, field));
        (expression.to_owned(), name.to_owned())
    });
    (fields.collect(), rest.strip_suffix('\'').expect("one filter and no more").to_owned())
}

#[test]
fn rules_select_fields_by_name_and_none_that_could_pass_for_the_word_of_aws_iot() {
    let stack = Stack::new();
    for (name, fields) in [
        ("CsrResRule", "CSR csr rotationId core mid sig"),
        ("CrtAckRule", "rotationId core mid certificateId ack sig"),
        ("CrtErrRule", "rotationId core mid certificateId code error"),
    ] {
        let (selected, _) = select(stack.get(name));
        let vouched = [
            ("clientid()", "client"),
            ("principal()", "principal"),
            ("topic(3)", "thing"),
            ("timestamp()", "at"),
        ];
        let wanted: Vec<_> = fields.split(' ').map(|field| (field, field)).chain(vouched).collect();
        let found: Vec<_> =
            selected.iter().map(|(of, name)| (of.as_str(), name.as_str())).collect();
        assert_eq!(found, wanted, "{name}");
    }
    assert_eq!(stack.all(RULE).count(), 3);
}

#[test]
fn the_device_is_the_level_after_the_prefix_however_deep_that_is() {
    for prefix in [
        "a",
        "management/topic",
        "management/core/{thingName}",
        "{thingName}/x",
        "a/b/c/d",
        "a/b/{thingName}/d/e",
        "a/b/c/d/e/f",
    ] {
        let stack = Stack::with(&[("TopicPrefix", prefix)]);
        for (rule, kind) in
            [("CsrResRule", "csr_res"), ("CrtAckRule", "crt_ack"), ("CrtErrRule", "crt_err")]
        {
            let (selected, filter) = select(stack.get(rule));
            assert_eq!(filter, format!("{}/+/{kind}", prefix.replace("{thingName}", "+")));
            let (thing, _) = selected.iter().find(|(_, name)| name == "thing").expect("a thing");
            let level = thing.strip_prefix("topic(").and_then(|it| it.strip_suffix(')'));
            let level: usize = level.and_then(|level| level.parse().ok()).expect("a level");
            let topic = format!("{}/pump-7/{kind}", prefix.replace("{thingName}", "core-1"));
            assert_eq!(topic.split('/').nth(level - 1), Some("pump-7"), "{prefix}");
        }
    }
}

#[test]
fn rules_queue_messages_as_they_are_and_set_aside_what_they_can_not() {
    for (name, rule) in Stack::new().all(RULE) {
        let payload = &rule["TopicRulePayload"];
        assert_eq!(payload["AwsIotSqlVersion"], "2016-03-23", "{name}");
        assert_eq!(payload["RuleDisabled"], "false", "{name}");
        let actions = payload["Actions"].as_array().expect("actions");
        let queue = name.replace("Rule", "Queue");
        for (action, queue) in
            [(&actions[0], queue.as_str()), (&payload["ErrorAction"], "RuleErrors")]
        {
            assert_eq!(entries(action).count(), 1, "{name}");
            assert_eq!(action["Sqs"]["UseBase64"], "false", "{name}");
            assert_eq!(action["Sqs"]["QueueUrl"], queue);
        }
        assert_eq!(actions.len(), 1, "{name}");
    }
}

#[test]
fn a_message_is_tried_five_times_and_kept_after_that_for_longer_than_before() {
    let stack = Stack::new();
    let queues: Vec<_> = consumers(&stack).map(|it| it.queue).collect();
    assert_eq!(queues.len(), 6);
    for queue in queues {
        let properties = stack.get(queue);
        let redrive = &properties["RedrivePolicy"];
        assert_eq!(redrive["maxReceiveCount"], "5", "{queue}");
        let dead = text(&redrive["deadLetterTargetArn"]).strip_suffix(".Arn").expect("an ARN");
        assert_eq!(dead, queue.replace("Queue", "DeadLetters"));
        // A message keeps its age when it is moved.
        let kept = |queue: &Value| number(&queue["MessageRetentionPeriod"]);
        assert!(kept(stack.get(dead)) > kept(properties), "{queue}");
    }
}

#[test]
fn nobody_else_gets_a_message_while_a_function_is_at_it() {
    let stack = Stack::new();
    for it in consumers(&stack) {
        let hidden = number(&stack.get(it.queue)["VisibilityTimeout"]);
        assert!(hidden >= 6.0 * number(&it.function["Timeout"]), "{}", it.queue);
    }
}

#[test]
fn a_batch_is_small_and_what_of_it_went_well_is_not_done_again() {
    let stack = Stack::new();
    for it in consumers(&stack) {
        assert!((1.0..=10.0).contains(&number(&it.source["BatchSize"])), "{}", it.queue);
        let responses = texts(&it.source["FunctionResponseTypes"]);
        assert_eq!(responses, ["ReportBatchItemFailures"], "{}", it.queue);
    }
}

#[test]
fn instances_are_as_many_as_is_said_and_no_fewer_than_lambda_permits() {
    let parameters = &yaml::read(TEMPLATE)["Parameters"];
    assert!(number(&parameters["Concurrency"]["MinValue"]) >= 2.0);
    assert!(number(&parameters["Concurrency"]["Default"]) >= 2.0);
    let stack = Stack::with(&[("Concurrency", "7")]);
    for it in consumers(&stack) {
        assert_eq!(it.source["ScalingConfig"]["MaximumConcurrency"], "7", "{}", it.queue);
    }
}

#[test]
fn who_writes_records_ends_before_its_lease() {
    let stack = Stack::new();
    let mut writers = 0;
    for (name, function) in stack.all(FUNCTION) {
        if super::rights::of(&stack, name).contains("dynamodb:PutItem") {
            writers += 1;
            assert!(number(&function["Timeout"]) < LEASE, "{name}");
        }
    }
    assert_eq!(writers, 5);
}
