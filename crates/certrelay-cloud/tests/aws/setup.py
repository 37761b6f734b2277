"""Makes in moto what the template makes on AWS, and a thing with a certificate; prints what it made."""
import json
import sys

import boto3

with open(sys.argv[2]) as file:
    thing = json.load(file)
options = dict(
    endpoint_url=sys.argv[1], region_name="eu-west-1",
    aws_access_key_id="test", aws_secret_access_key="test",
)
iot, sqs, sns, dynamo, pca = (
    boto3.client(name, **options) for name in ("iot", "sqs", "sns", "dynamodb", "acm-pca")
)

text = lambda name: {"AttributeName": name, "AttributeType": "S"}
dynamo.create_table(
    TableName="records", BillingMode="PAY_PER_REQUEST",
    AttributeDefinitions=[text("pk"), text("sk"), text("open"),
                          {"AttributeName": "due", "AttributeType": "N"}],
    KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"},
               {"AttributeName": "sk", "KeyType": "RANGE"}],
    GlobalSecondaryIndexes=[{
        "IndexName": "due",
        "KeySchema": [{"AttributeName": "open", "KeyType": "HASH"},
                      {"AttributeName": "due", "KeyType": "RANGE"}],
        "Projection": {"ProjectionType": "INCLUDE",
                       "NonKeyAttributes": ["certificates", "thing", "seq"]},
    }],
)
dynamo.create_table(
    TableName="cores", BillingMode="PAY_PER_REQUEST",
    AttributeDefinitions=[text("device")],
    KeySchema=[{"AttributeName": "device", "KeyType": "HASH"}],
)
dynamo.put_item(TableName="cores", Item={"device": {"S": "press-1"}, "core": {"S": "core-1"}})

queues = {name: sqs.create_queue(QueueName=name)["QueueUrl"]
          for name in ("audit", "rotate", "due", "mails")}
topic = sns.create_topic(Name="support")["TopicArn"]
mails = sqs.get_queue_attributes(QueueUrl=queues["mails"], AttributeNames=["QueueArn"])
sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=mails["Attributes"]["QueueArn"])

ca = pca.create_certificate_authority(
    CertificateAuthorityType="ROOT",
    CertificateAuthorityConfiguration={
        "KeyAlgorithm": "RSA_2048", "SigningAlgorithm": "SHA256WITHRSA",
        "Subject": {"CommonName": "a private CA"}},
)["CertificateAuthorityArn"]
csr = pca.get_certificate_authority_csr(CertificateAuthorityArn=ca)["Csr"]
root = pca.issue_certificate(
    CertificateAuthorityArn=ca, Csr=csr.encode(), SigningAlgorithm="SHA256WITHRSA",
    TemplateArn="arn:aws:acm-pca:::template/RootCACertificate/V1",
    Validity={"Type": "YEARS", "Value": 10})["CertificateArn"]
root = pca.get_certificate(CertificateAuthorityArn=ca, CertificateArn=root)["Certificate"]
pca.import_certificate_authority_certificate(CertificateAuthorityArn=ca, Certificate=root.encode())

ids = {}
document = json.dumps({"Version": "2012-10-17", "Statement": []})
for policy in ("device", "relay"):
    iot.create_policy(policyName=policy, policyDocument=document)
for name in ("press-1", "core-1"):
    iot.create_thing(thingName=name)
    made = iot.register_certificate_without_ca(certificatePem=thing[name], status="ACTIVE")
    iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
    for policy in ("device", "relay"):
        iot.attach_policy(policyName=policy, target=made["certificateArn"])
    ids[name] = made["certificateId"]

print(json.dumps({"queues": queues, "topic": topic, "ca": ca, "ids": ids}))
