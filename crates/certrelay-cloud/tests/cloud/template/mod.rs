//! What linters don't see in `template.yaml`: that it holds together, and what it promises.

mod messages;
mod rights;
mod stack;
mod yaml;

use std::{collections::BTreeSet, fs, path::Path};

use certrelay_cloud::decide::code::Code;
use stack::{Stack, TEMPLATE, entries, number, text, texts};

const FUNCTION: &str = "AWS::Serverless::Function";
const QUEUE: &str = "AWS::SQS::Queue";

/// What the program is told by its environment.
const VARIABLES: [&str; 18] = [
    "CERTRELAY_ACCOUNT",
    "CERTRELAY_ASSOCIATION",
    "CERTRELAY_COMMON_NAME",
    "CERTRELAY_DAILY_BUDGET",
    "CERTRELAY_FUNCTION",
    "CERTRELAY_ISSUER",
    "CERTRELAY_PARTITION",
    "CERTRELAY_PCA_SIGNING_ALGORITHM",
    "CERTRELAY_PCA_VALIDITY_DAYS",
    "CERTRELAY_QUEUE_AUDIT",
    "CERTRELAY_QUEUE_DUE",
    "CERTRELAY_QUEUE_ROTATE",
    "CERTRELAY_REQUIRE_PROOF",
    "CERTRELAY_SUPPORT_AFTER",
    "CERTRELAY_SUPPORT_TOPIC",
    "CERTRELAY_TABLE",
    "CERTRELAY_TOPIC_PREFIX",
    "CERTRELAY_TPS",
];

/// The variables that the sources name.
fn named_in(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(named_in(&path));
        } else {
            let source = fs::read_to_string(&path).expect("a source");
            names.extend(source.split("CERTRELAY_").skip(1).filter_map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                (!name.is_empty()).then(|| format!("CERTRELAY_{name}"))
            }));
        }
    }
    names
}

#[test]
fn every_variable_that_the_program_reads_is_set_for_every_function() {
    let read = named_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let known = VARIABLES.map(str::to_owned).into();
    assert!(read.is_subset(&known), "unknown here: {:?}", read.difference(&known));
    for (name, function) in Stack::new().all(FUNCTION) {
        let set: Vec<_> =
            entries(&function["Environment"]["Variables"]).map(|(key, _)| key).collect();
        assert_eq!(set, VARIABLES, "{name}");
        let job = text(&function["Environment"]["Variables"]["CERTRELAY_FUNCTION"]);
        assert_eq!(job, name.to_lowercase());
    }
}

#[test]
fn every_function_is_the_one_program() {
    let stack = Stack::new();
    let names: Vec<_> = stack.all(FUNCTION).map(|(name, _)| name).collect();
    assert_eq!(names, ["Audit", "Complete", "Due", "Issue", "Report", "Request", "Sweep"]);
    for name in names {
        let metadata = &stack.resources[name]["Metadata"];
        assert_eq!(metadata["BuildMethod"], "rust-cargolambda", "{name}");
        assert_eq!(metadata["BuildProperties"]["Binary"], "certrelay-cloud", "{name}");
    }
}

#[test]
fn what_sam_makes_of_functions_and_events_has_names_of_its_own() {
    let stack = Stack::new();
    for (name, function) in stack.all(FUNCTION) {
        let made = entries(&function["Events"])
            .flat_map(|(event, _)| [format!("{name}{event}"), format!("{name}{event}Permission")])
            .chain([format!("{name}EventInvokeConfig")]);
        for made in made {
            assert!(!stack.resources.contains_key(&made), "{made} twice");
        }
    }
}

#[test]
fn both_checks_are_made_every_day_if_the_stack_is_asked_to() {
    let stack = Stack::with(&[
        ("ManageAuditConfiguration", "true"),
        ("ExpiresWithinDays", "60"),
        ("OlderThanDays", "400"),
    ]);
    let audit = stack.get("DailyAudit");
    assert_eq!(audit["Frequency"], "DAILY");
    assert_eq!(
        texts(&audit["TargetCheckNames"]),
        ["DEVICE_CERTIFICATE_EXPIRING_CHECK", "DEVICE_CERTIFICATE_AGE_CHECK"]
    );
    let configuration = stack.get("AuditConfiguration");
    let checks = &configuration["AuditCheckConfigurations"];
    let expiring = &checks["DeviceCertificateExpiringCheck"];
    let age = &checks["DeviceCertificateAgeCheck"];
    assert_eq!(entries(checks).count(), 2);
    assert!([expiring, age].iter().all(|check| check["Enabled"] == "true"));
    assert_eq!(expiring["Configuration"]["CertExpirationThresholdInDays"], "60");
    assert_eq!(age["Configuration"]["CertAgeThresholdInDays"], "400");
    let target = &configuration["AuditNotificationTargetConfigurations"]["Sns"];
    assert_eq!(target["Enabled"], "true");
    assert_eq!(target["TargetArn"], "AuditTopic");
}

#[test]
fn the_one_audit_configuration_of_the_account_is_left_alone_unless_asked_for() {
    let stack = Stack::new();
    for of in ["AWS::IoT::AccountAuditConfiguration", "AWS::IoT::ScheduledAudit"] {
        assert_eq!(stack.all(of).count(), 0, "{of}");
    }
    let parameters = &yaml::read(TEMPLATE)["Parameters"];
    let described = text(&parameters["ManageAuditConfiguration"]["Description"]);
    assert!(described.contains("ONE such configuration per account and region"));
}

#[test]
fn what_is_kept_is_encrypted_and_can_be_restored() {
    let stack = Stack::new();
    let tables: Vec<_> = stack.all("AWS::DynamoDB::Table").collect();
    assert!(!tables.is_empty());
    for (name, table) in tables {
        let resource = &stack.resources[name];
        assert_eq!(resource["DeletionPolicy"], "Retain", "{name}");
        assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{name}");
        assert_eq!(table["SSESpecification"]["SSEEnabled"], "true", "{name}");
        let recovery = &table["PointInTimeRecoverySpecification"];
        assert_eq!(recovery["PointInTimeRecoveryEnabled"], "true", "{name}");
        assert_eq!(table["TimeToLiveSpecification"]["AttributeName"], "ttl");
    }
    for (name, queue) in stack.all(QUEUE) {
        assert_eq!(queue["SqsManagedSseEnabled"], "true", "{name}");
    }
    let key = &stack.get("TopicKey")["KeyPolicy"]["Statement"][1];
    let services = ["iot.amazonaws.com", "cloudwatch.amazonaws.com"];
    assert_eq!(texts(&key["Principal"]["Service"]), services);
    for (name, topic) in stack.all("AWS::SNS::Topic") {
        assert_eq!(topic["KmsMasterKeyId"], "TopicKey.Arn", "{name}");
    }
}

#[test]
fn logs_are_json_and_are_kept_for_a_time_that_is_said() {
    let stack = Stack::with(&[("LogRetentionDays", "30")]);
    assert_eq!(stack.get("Logs")["RetentionInDays"], "30");
    for (name, function) in stack.all(FUNCTION) {
        let logging = &function["LoggingConfig"];
        assert_eq!((&logging["LogFormat"], &logging["LogGroup"]), (&"JSON".into(), &"Logs".into()));
        assert!(!stack.resources.contains_key(&format!("{name}Logs")));
    }
}

#[test]
fn each_queue_that_nobody_empties_each_function_and_the_audits_have_an_alarm_that_reaches_people() {
    let stack = Stack::new();
    let mut watched = BTreeSet::new();
    for (name, alarm) in stack.all("AWS::CloudWatch::Alarm") {
        assert_eq!(texts(&alarm["AlarmActions"]), ["SupportTopic"], "{name}");
        let one = alarm.get("Dimensions").map(|dimensions| (&alarm["MetricName"], dimensions));
        let many = alarm["Metrics"].as_array().into_iter().flatten();
        let stats = many.filter_map(|metric| metric.get("MetricStat")).map(|stat| &stat["Metric"]);
        let all = stats.map(|metric| (&metric["MetricName"], &metric["Dimensions"])).chain(one);
        watched.extend(
            all.map(|(metric, of)| format!("{} of {}", text(metric), text(&of[0]["Value"]))),
        );
    }
    let consumed: BTreeSet<_> = messages::consumers(&stack).map(|it| it.queue).collect();
    let left = stack.all(QUEUE).filter(|(name, _)| !consumed.contains(*name));
    let mut wanted: BTreeSet<_> = left
        .map(|(name, _)| format!("ApproximateNumberOfMessagesVisible of {name}.QueueName"))
        .collect();
    for queue in ["CsrResQueue", "CrtAckQueue"] {
        wanted.insert(format!("ApproximateAgeOfOldestMessage of {queue}.QueueName"));
    }
    for (name, _) in stack.all(FUNCTION) {
        wanted.extend([format!("Errors of {name}"), format!("Throttles of {name}")]);
    }
    wanted.insert("NumberOfMessagesPublished of AuditTopic.TopicName".to_owned());
    assert_eq!(watched, wanted);
}

#[test]
fn a_week_without_an_audit_reaches_people_though_there_is_nothing_to_count() {
    let stack = Stack::new();
    let alarm = stack.get("NoAuditAlarm");
    assert_eq!(number(&alarm["Period"]) * number(&alarm["EvaluationPeriods"]), 7.0 * 86_400.0);
    assert_eq!(alarm["ComparisonOperator"], "LessThanThreshold");
    assert_eq!(
        (&alarm["Threshold"], &alarm["TreatMissingData"]),
        (&"1".into(), &"breaching".into())
    );
}

#[test]
fn at_the_default_pace_no_quota_is_reached_even_with_every_function_at_its_most() {
    // Calls a second that AWS permits by default; its list of about 2020.
    let quotas = [
        ("iot:CreateCertificateFromCsr", 15.0),
        ("iot:AttachPolicy", 15.0),
        ("iot:DetachPolicy", 15.0),
        ("iot:ListAttachedPolicies", 15.0),
        ("iot:ListPrincipalThings", 10.0),
        ("iot:AttachThingPrincipal", 15.0),
        ("iot:DetachThingPrincipal", 15.0),
        ("iot:DescribeCertificate", 10.0),
        ("iot:UpdateCertificate", 10.0),
        ("iot:DeleteCertificate", 10.0),
    ];
    let stack = Stack::new();
    let parameters = &yaml::read(TEMPLATE)["Parameters"];
    let default = |name: &str| number(&parameters[name]["Default"]);
    let each = default("Concurrency") * default("CallsPerSecond");
    for (action, quota) in quotas {
        let callers: Vec<_> = stack
            .all(FUNCTION)
            .filter(|(name, _)| rights::of(&stack, name).contains(action))
            .collect();
        let callers = u32::try_from(callers.len()).expect("few");
        assert!(callers > 0, "nobody calls {action}");
        assert!(f64::from(callers) * each <= quota, "{action}: {callers} callers");
    }
}

#[test]
fn the_document_has_every_parameter_with_its_default() {
    let document = include_str!("../../../../../docs/cloud.md");
    let (_, table) = document.split_once("| parameter | default |").expect("the table");
    let rows: Vec<_> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').skip(1).take(2).map(|cell| cell.trim().trim_matches('`')))
        .map(Vec::from_iter)
        .collect();
    let template = yaml::read(TEMPLATE);
    let parameters = entries(&template["Parameters"])
        .map(|(name, parameter)| vec![name, text(&parameter["Default"])]);
    let (rows, parameters): (BTreeSet<_>, BTreeSet<_>) =
        (rows.into_iter().collect(), parameters.collect());
    assert_eq!(rows, parameters);
}

#[test]
fn the_document_explains_every_code_as_the_program_does() {
    let document = include_str!("../../../../../docs/cloud.md");
    for code in Code::OWN {
        let row = format!("| `{code}` | {} |\n", code.explain());
        assert!(document.contains(&row), "docs/cloud.md lacks {row}");
    }
}
