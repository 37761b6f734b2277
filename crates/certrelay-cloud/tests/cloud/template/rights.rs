//! What each function may do.

use std::collections::{BTreeMap, BTreeSet};

use certrelay_cloud::ports::Call;
use serde_json::Value;

use super::{
    FUNCTION,
    stack::{Stack, text, texts},
};
use crate::{audits, errors, stories};

/// What IAM can't hold to a resource: its reference names none for these.
const UNSCOPED: [&str; 4] = [
    // About the account's findings.
    "iot:ListAuditFindings",
    // The certificate does not exist yet.
    "iot:CreateCertificateFromCsr",
    "iot:RegisterCertificateWithoutCA",
    // Its target may be a certificate, a group or an identity.
    "iot:ListAttachedPolicies",
];

/// What holds a right to its kind of resource, where names are not known beforehand.
const KINDS: [&str; 3] = [
    "arn:PARTITION:iot:REGION:ACCOUNTID:cert/*",
    "arn:PARTITION:iot:REGION:ACCOUNTID:thing/*",
    "arn:PARTITION:greengrass:REGION:ACCOUNTID:coreDevices:*",
];

/// Rights that go with another call, and that no call is named after: to read the budget that is drawn
/// from, the newer name of an API whose older one AWS asks for as well, the key of a topic.
const IMPLIED: [&str; 4] =
    ["dynamodb:GetItem", "iot:ListPrincipalThingsV2", "kms:Decrypt", "kms:GenerateDataKey"];

/// The statements of a role.
fn statements(role: &Value) -> impl Iterator<Item = &Value> {
    role["Policies"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().expect("a list"))
}

fn role_of<'a>(stack: &'a Stack, function: &str) -> &'a Value {
    let role = text(&stack.get(function)["Role"]).strip_suffix(".Arn").expect("an ARN");
    assert_eq!(role, format!("{function}Role"), "a role of its own");
    stack.get(role)
}

/// The actions that a function may take.
pub fn of(stack: &Stack, function: &str) -> BTreeSet<String> {
    let all = statements(role_of(stack, function));
    all.flat_map(|it| texts(&it["Action"])).map(str::to_owned).collect()
}

/// Where a function may take an action.
fn whereto<'a>(stack: &'a Stack, function: &str, action: &str) -> Vec<&'a str> {
    statements(role_of(stack, function))
        .filter(|it| texts(&it["Action"]).contains(&action))
        .flat_map(|it| texts(&it["Resource"]))
        .collect()
}

/// The rights of all functions but those that each has for its log and its queue.
fn granted(stack: &Stack) -> BTreeMap<&str, BTreeSet<String>> {
    const CONSUMES: [&str; 3] =
        ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];
    stack
        .all(FUNCTION)
        .map(|(name, _)| {
            let mut actions = of(stack, name);
            actions.retain(|it| !it.starts_with("logs:") && !CONSUMES.contains(&it.as_str()));
            (name, actions)
        })
        .collect()
}

fn check(stack: &Stack, wanted: &[(&str, &str)]) {
    let mut granted = granted(stack);
    for (function, actions) in wanted {
        let actions = actions.split_whitespace().map(str::to_owned).collect();
        assert_eq!(granted.remove(function), Some(actions), "{function}");
    }
}

#[test]
fn a_function_may_do_what_its_work_needs_and_no_more() {
    let all = [
        ("Audit", "iot:ListAuditFindings dynamodb:Query dynamodb:GetItem dynamodb:UpdateItem sqs:SendMessage"),
        (
            "Request",
            "iot:DescribeCertificate iot:ListPrincipalThings iot:ListPrincipalThingsV2 iot:Publish
             dynamodb:PutItem dynamodb:Query",
        ),
        (
            "Issue",
            "iot:CreateCertificateFromCsr iot:DescribeCertificate iot:ListAttachedPolicies iot:AttachPolicy
             iot:AttachThingPrincipal iot:UpdateCertificate
             iot:ListPrincipalThings iot:ListPrincipalThingsV2 iot:Publish
             greengrass:ListClientDevicesAssociatedWithCoreDevice
             dynamodb:PutItem dynamodb:Query",
        ),
        (
            "Complete",
            "iot:ListPrincipalThings iot:ListPrincipalThingsV2 iot:Publish
             greengrass:ListClientDevicesAssociatedWithCoreDevice
             dynamodb:PutItem dynamodb:Query",
        ),
        (
            "Report",
            "iot:ListPrincipalThings iot:ListPrincipalThingsV2 iot:Publish
             iot:DescribeCertificate iot:UpdateCertificate
             iot:ListAttachedPolicies iot:DetachPolicy iot:DetachThingPrincipal iot:DeleteCertificate
             greengrass:ListClientDevicesAssociatedWithCoreDevice
             dynamodb:PutItem dynamodb:Query",
        ),
        (
            "Sweep",
            "dynamodb:Query dynamodb:DeleteItem sqs:SendMessage sns:Publish
             kms:Decrypt kms:GenerateDataKey",
        ),
        (
            "Due",
            "iot:DescribeCertificate iot:ListAttachedPolicies iot:AttachPolicy iot:AttachThingPrincipal
             iot:UpdateCertificate iot:DetachPolicy iot:DetachThingPrincipal iot:DeleteCertificate
             iot:Publish dynamodb:PutItem dynamodb:Query",
        ),
    ];
    let stack = Stack::new();
    check(&stack, &all);
    assert_eq!(granted(&stack).len(), all.len());
}

/// The right that a call needs; none that depends on the source of associations, which is tested by
/// itself.
fn right_to(call: Call) -> Option<String> {
    match call {
        Call::DescribeThing => None,
        Call::ListClientDevices => {
            Some("greengrass:ListClientDevicesAssociatedWithCoreDevice".to_owned())
        }
        Call::Publish => Some("iot:Publish".to_owned()),
        Call::Notify => Some("sns:Publish".to_owned()),
        call => Some(format!("{}:{}", call.service(), call.as_str())),
    }
}

#[test]
fn a_function_may_make_every_call_that_it_was_seen_to_make() {
    let seen =
        stories::calls().into_iter().chain(audits::calls()).chain(errors::calls_of_a_sweep());
    let stack = Stack::new();
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (function, call) in seen {
        let Some(right) = right_to(call) else { continue };
        assert!(of(&stack, function).contains(&right), "{function} may not {right}");
        used.entry(function).or_default().insert(right);
    }
    // And none is there that nobody has use for.
    for (function, granted) in granted(&stack) {
        let mut unused = granted.difference(&used[function]);
        assert_eq!(unused.find(|it| !IMPLIED.contains(&it.as_str())), None, "{function}");
    }
}

#[test]
fn with_a_private_ca_only_issue_asks_that_ca_and_nobody_asks_aws_iot() {
    let ca = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/0a1b";
    let stack = Stack::with(&[("Issuer", ca)]);
    for (function, actions) in granted(&stack) {
        let asks = actions.contains("acm-pca:IssueCertificate");
        assert_eq!(asks, function == "Issue");
        assert_eq!(actions.contains("iot:RegisterCertificateWithoutCA"), asks, "{function}");
        assert!(!actions.contains("iot:CreateCertificateFromCsr"), "{function}");
    }
    assert_eq!(whereto(&stack, "Issue", "acm-pca:IssueCertificate"), [ca]);
    assert_eq!(whereto(&stack, "Issue", "acm-pca:GetCertificate"), [ca]);
    let mut issues = statements(role_of(&stack, "Issue"))
        .filter(|it| texts(&it["Action"]).contains(&"acm-pca:IssueCertificate"));
    let template = issues.next().map(|it| &it["Condition"]["StringEquals"]["acm-pca:TemplateArn"]);
    let template = template.and_then(|arn| arn.as_str()).expect("it is held to a template");
    assert!(template.ends_with(":acm-pca:::template/EndEntityCertificate/V1"), "{template}");
}

#[test]
fn an_association_is_read_from_where_it_is_and_nowhere_else() {
    let greengrass = "greengrass:ListClientDevicesAssociatedWithCoreDevice";
    for (association, used) in [
        ("greengrass", greengrass),
        ("attribute:gateway", "iot:DescribeThing"),
        ("table:cores", "dynamodb:GetItem"),
    ] {
        let stack = Stack::with(&[("Association", association)]);
        for function in ["Request", "Issue", "Complete", "Report"] {
            let actions = of(&stack, function);
            // Greengrass lists the devices of a core, not the core of a device: to begin needs no list.
            let lists = used == greengrass && function != "Request";
            assert_eq!(actions.contains(greengrass), lists, "{function}");
            assert_eq!(actions.contains("iot:DescribeThing"), used == "iot:DescribeThing");
            let tables = whereto(&stack, function, "dynamodb:GetItem");
            let other = "arn:PARTITION:dynamodb:REGION:ACCOUNTID:table/cores";
            assert_eq!(
                tables.contains(&other),
                used == "dynamodb:GetItem",
                "{function}: {tables:?}"
            );
        }
    }
}

#[test]
fn functions_say_to_devices_what_the_cloud_has_to_say_and_under_its_prefix_alone() {
    for (prefix, topics) in
        [("management/topic", "management/topic/*"), ("a/{thingName}/b", "a/*/b/*")]
    {
        let stack = Stack::with(&[("TopicPrefix", prefix)]);
        for (function, kinds) in [
            ("Audit", &[][..]),
            ("Request", &["csr_req"]),
            ("Issue", &["crt", "result"]),
            ("Complete", &["result"]),
            ("Report", &["result"]),
            ("Sweep", &[]),
            ("Due", &["csr_req", "crt"]),
        ] {
            let wanted: Vec<_> = kinds
                .iter()
                .map(|kind| format!("arn:PARTITION:iot:REGION:ACCOUNTID:topic/{topics}/{kind}"))
                .collect();
            assert_eq!(whereto(&stack, function, "iot:Publish"), wanted, "{function}");
        }
    }
}

#[test]
fn a_wildcard_stands_only_where_names_are_not_known_beforehand() {
    let ca = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/0a1b";
    for chosen in [
        &[][..],
        &[("Issuer", ca), ("Association", "attribute:gateway")],
        &[("Association", "table:cores"), ("ManageAuditConfiguration", "true")],
    ] {
        let stack = Stack::with(chosen);
        for (name, role) in stack.all("AWS::IAM::Role") {
            for statement in statements(role) {
                let actions = texts(&statement["Action"]);
                assert!(actions.iter().all(|action| !action.contains('*')), "{name}: {actions:?}");
                for resource in
                    texts(&statement["Resource"]).into_iter().filter(|it| it.contains('*'))
                {
                    let is_topic =
                        actions == ["iot:Publish"] && resource.contains(":topic/management/");
                    let is_unscoped =
                        resource == "*" && actions.iter().all(|action| UNSCOPED.contains(action));
                    let is_kind = KINDS.contains(&resource);
                    assert!(
                        is_topic || is_unscoped || is_kind,
                        "{name}: {actions:?} on {resource}"
                    );
                }
            }
        }
    }
}

#[test]
fn functions_take_the_messages_of_their_own_queues_and_write_their_own_logs() {
    let stack = Stack::new();
    for (function, queue) in [
        ("Audit", "AuditQueue.Arn"),
        ("Request", "RotateQueue.Arn"),
        ("Issue", "CsrResQueue.Arn"),
        ("Complete", "CrtAckQueue.Arn"),
        ("Report", "CrtErrQueue.Arn"),
        ("Due", "DueQueue.Arn"),
    ] {
        assert_eq!(whereto(&stack, function, "sqs:ReceiveMessage"), [queue]);
        assert_eq!(text(&stack.get(function)["Events"]["Messages"]["Properties"]["Queue"]), queue);
        assert_eq!(whereto(&stack, function, "logs:PutLogEvents"), ["Logs.Arn"]);
    }
    let sends = |function| whereto(&stack, function, "sqs:SendMessage");
    assert_eq!(sends("Audit"), ["InvokeErrors.Arn", "RotateQueue.Arn", "AuditQueue.Arn"]);
    assert_eq!(sends("Sweep"), ["InvokeErrors.Arn", "DueQueue.Arn"]);
    assert_eq!(whereto(&stack, "Sweep", "sns:Publish"), ["SupportTopic"]);
}

#[test]
fn no_role_but_that_of_the_audits_has_a_policy_that_is_not_written_here() {
    let stack = Stack::with(&[("ManageAuditConfiguration", "true")]);
    for (name, role) in stack.all("AWS::IAM::Role") {
        assert_eq!(role.get("ManagedPolicyArns").is_some(), name == "DeviceDefenderRole");
    }
}
