"""Has boto3 do the same to moto and to the fake, and compares what comes of it. Then asks the fake alone
for what moto has wrong, or has not."""
import hashlib
import json
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

moto_url, fake_url, file = sys.argv[1:4]
with open(file) as file:
    given = json.load(file)
missing = "0" * 64


def client(url, name):
    return boto3.client(
        name, endpoint_url=url, region_name="eu-west-1", aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(retries={"total_max_attempts": 1}),
    )


def outcome(call):
    try:
        return call()
    except ClientError as error:
        return error.response["Error"]["Code"]


def story(url):
    """What each of these comes to: the code of an error, or what matters of the answer."""
    iot, out = client(url, "iot"), []

    def note(name, call, of=lambda answer: "ok"):
        result = outcome(call)
        out.append((name, result if isinstance(result, str) else of(result)))

    if url == moto_url:
        iot.create_thing(thingName="checked")
        iot.create_policy(policyName="checked", policyDocument="{}")
    pem = given["checked"]
    register = lambda: iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")
    made = register()
    arn, id = made["certificateArn"], made["certificateId"]
    note("register twice", register)
    note("describe", lambda: iot.describe_certificate(certificateId=id),
         lambda a: a["certificateDescription"]["status"])
    attach_policy = lambda: iot.attach_policy(policyName="checked", target=arn)
    note("attach policy", attach_policy)
    note("attach policy twice", attach_policy)
    note("policies", lambda: iot.list_attached_policies(target=arn),
         lambda a: [p["policyName"] for p in a["policies"]])
    attach = lambda: iot.attach_thing_principal(thingName="checked", principal=arn)
    note("attach thing", attach)
    note("attach thing twice", attach)
    note("things", lambda: iot.list_principal_things_v2(principal=arn),
         lambda a: [t["thingName"] for t in a["principalThingObjects"]])
    delete = lambda: iot.delete_certificate(certificateId=id)
    note("delete while ACTIVE", delete)
    note("deactivate", lambda: iot.update_certificate(certificateId=id, newStatus="INACTIVE"))
    note("deactivate twice", lambda: iot.update_certificate(certificateId=id, newStatus="INACTIVE"))
    note("delete while attached", delete)
    detach = lambda: iot.detach_thing_principal(thingName="checked", principal=arn)
    note("detach thing", detach)
    if url == fake_url:
        out_early = outcome(delete)
        assert out_early == "DeleteConflictException", "AWS detaches some seconds later"
        urllib.request.urlopen(fake_url + "/-/pass", data=b"")
    note("delete with a policy", delete)
    note("detach policy", lambda: iot.detach_policy(policyName="checked", target=arn))
    note("detach policy twice", lambda: iot.detach_policy(policyName="checked", target=arn))
    note("delete", delete)
    note("delete twice", delete)
    note("describe what is gone", lambda: iot.describe_certificate(certificateId=id))
    note("activate what is missing",
         lambda: iot.update_certificate(certificateId=missing, newStatus="ACTIVE"))
    return out


moto, fake = story(moto_url), story(fake_url)
for (name, theirs), (_, ours) in zip(moto, fake):
    print(f"{'same' if theirs == ours else 'OTHER':5} {name}: {theirs!r} {ours!r}")

iot, data, greengrass = (client(fake_url, name) for name in ("iot", "iot-data", "greengrassv2"))
made = iot.create_certificate_from_csr(certificateSigningRequest=given["csr"], setAsActive=False)
certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
key = lambda holder: holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
assert key(certificate) == key(x509.load_pem_x509_csr(given["csr"].encode())), "the CSR's key"
der = certificate.public_bytes(serialization.Encoding.DER)
assert made["certificateId"] == hashlib.sha256(der).hexdigest(), "the SHA-256 of the DER"
described = iot.describe_certificate(certificateId=made["certificateId"])
assert described["certificateDescription"]["status"] == "INACTIVE"
arn = made["certificateArn"]
iot.attach_thing_principal(thingName="one", principal=arn, thingPrincipalType="EXCLUSIVE_THING")
second = outcome(lambda: iot.attach_thing_principal(thingName="two", principal=arn))
assert second == "InvalidRequestException", second
things = iot.list_principal_things_v2(principal=arn)["principalThingObjects"]
assert things == [{"thingName": "one", "thingPrincipalType": "EXCLUSIVE_THING"}], things
pages = iot.get_paginator("list_audit_findings").paginate(
    taskId="task", checkName="DEVICE_CERTIFICATE_EXPIRING_CHECK")
findings = [finding for page in pages for finding in page["findings"]]
assert len(findings) == 600, len(findings)
info = findings[0]["nonCompliantResource"]
assert len(info["resourceIdentifier"]["deviceCertificateId"]) == 64
assert info["additionalInfo"]["EXPIRATION_TIME"].isdigit()
pages = greengrass.get_paginator("list_client_devices_associated_with_core_device").paginate(
    coreDeviceThingName="core-1")
devices = [d["thingName"] for page in pages for d in page["associatedClientDevices"]]
assert devices == [f"device-{n}" for n in range(7)], devices
data.publish(topic="management/topic/press-1/crt", qos=1, payload=b"{}")
urllib.request.urlopen(fake_url + "/-/throttle", data=b"")
throttled = outcome(lambda: iot.describe_certificate(certificateId=missing))
assert throttled == "ThrottlingException", throttled
sys.exit(0 if moto == fake else 1)
