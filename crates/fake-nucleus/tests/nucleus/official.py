"""The official SDK against the stand-in: what AWS's own client takes for right is right.

Usage: official.py FAKE_NUCLEUS java|lite CONFIGURATION_FILE
"""

import json
import queue
import subprocess
import sys
import threading
import time

from awsiot import greengrasscoreipc
from awsiot.greengrasscoreipc import model
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

PATIENCE = 30
PUBLISHES = 10_000
IN_FLIGHT = 64


class Nucleus:
    """The stand-in, as a process that is told what to do line by line."""

    def __init__(self, program, mode, configuration):
        arguments = [program, mode, "--configuration", configuration, "--allow", "mine/#"]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.environment = {}
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition("=")
            self.environment[name] = value

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def report(self):
        return json.loads(self.tell("report"))

    def connect(self, token=None):
        socket = self.environment["AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"]
        token = token or self.environment["SVCUID"]
        ipc = greengrasscoreipc.connect(ipc_socket=socket, authtoken=token, timeout=PATIENCE)
        return GreengrassCoreIPCClientV2(client=ipc)


def refused(error, call, **arguments):
    """The error that a call must end with."""
    try:
        call(**arguments)
    except error as refusal:
        return refusal
    except Exception as other:
        raise AssertionError(f"{other!r} instead of {error.__name__}") from other
    raise AssertionError(f"a yes instead of {error.__name__}")


def subscribe(client, filter):
    events = queue.Queue()
    client.subscribe_to_iot_core(
        topic_name=filter,
        qos="1",
        on_stream_event=events.put,
        on_stream_error=lambda error: events.put(error) or True,
        on_stream_closed=lambda: None,
    )
    return events


def messages(client, nucleus):
    client.publish_to_iot_core(topic_name="mine/up", qos="1", payload=b"up")
    events = subscribe(client, "mine/down/+")
    nucleus.tell("publish mine/down/1 from above")
    message = events.get(timeout=PATIENCE).message
    assert (message.topic_name, message.payload) == ("mine/down/1", b"from above"), message
    client.publish_to_iot_core(topic_name="mine/down/2", qos="0", payload=b"\x00\xff")
    assert events.get(timeout=PATIENCE).message.payload == b"\x00\xff"


def local_messages(client, nucleus):
    events = queue.Queue()
    client.subscribe_to_topic(
        topic="local/1", on_stream_event=events.put, on_stream_error=lambda error: True
    )
    nucleus.tell("local local/1 from a neighbour")
    assert events.get(timeout=PATIENCE).binary_message.message == b"from a neighbour"
    message = model.BinaryMessage(message=b"own")
    client.publish_to_topic(
        topic="local/1", publish_message=model.PublishMessage(binary_message=message)
    )
    event = events.get(timeout=PATIENCE).binary_message
    assert (event.message, event.context.topic) == (b"own", "local/1"), event


def configuration(client, nucleus, mode):
    whole = client.get_configuration(key_path=[])
    number = 42 if mode == "java" else "42"
    assert whole.value["deep"] == {"number": number, "text": "t"}, whole
    leaf = client.get_configuration(key_path=["deep", "number"])
    assert leaf.value == {"number": number}, leaf
    missing = refused(
        model.ResourceNotFoundError, client.get_configuration, key_path=["missing"]
    )
    # The SDK does not read the name under which nucleus lite sends it.
    assert missing.message == ("Key not found" if mode == "java" else None), missing
    events = queue.Queue()
    client.subscribe_to_configuration_update(
        key_path=["deep"], on_stream_event=events.put, on_stream_error=lambda error: True
    )
    verdict = nucleus.tell('deploy {"deep": {"number": 43, "text": "t"}, "other": 1}')
    assert verdict == "Some(Unasked)", verdict
    event = events.get(timeout=PATIENCE).configuration_update_event
    assert event.key_path == ["deep", "number"], event
    number = 43 if mode == "java" else "43"
    assert client.get_configuration(key_path=["deep"]).value["number"] == number


def deployments(client, nucleus):
    def judge(event):
        asked = event.validate_configuration_update_event
        is_good = asked.configuration["deep"]["number"] == 44
        client.send_configuration_validity_report(
            configuration_validity_report=model.ConfigurationValidityReport(
                deployment_id=asked.deployment_id,
                status="ACCEPTED" if is_good else "REJECTED",
                message="not 44",
            )
        )

    def put_off(event):
        if event.pre_update_event:
            client.defer_component_update(
                deployment_id=event.pre_update_event.deployment_id, recheck_after_ms=1500
            )

    client.subscribe_to_validate_configuration_updates(
        on_stream_event=judge, on_stream_error=lambda error: True
    )
    client.subscribe_to_component_updates(
        on_stream_event=put_off, on_stream_error=lambda error: True
    )
    assert nucleus.tell('deploy {"deep": {"number": 44}}') == "Some(Accepted)"
    verdict = nucleus.tell('deploy {"deep": {"number": 45}}')
    assert verdict == 'Some(Rejected { message: "not 44" })', verdict
    assert client.get_configuration(key_path=["deep"]).value == {"number": 44}
    answer = nucleus.tell("update d-1")
    assert "recheck_after: Some(1.5s)" in answer, answer


def refusals(client, mode):
    unauthorized = refused(
        model.UnauthorizedError,
        client.publish_to_iot_core,
        topic_name="other",
        qos="1",
        payload=b"x",
    )
    assert unauthorized.message == ("Not Authorized" if mode == "java" else None)
    # Lite does not know it; on the classic nucleus the secret manager would have to be there.
    error = refused(model.ServiceError, client.get_secret_value, secret_id="s")
    if mode == "java":
        expected = "Operation aws.greengrass#GetSecretValue is not supported by Greengrass"
        assert error.message == expected, error
    else:
        assert error.message is None, error
        refused(model.ServiceError, client.subscribe_to_component_updates)


def blast(client):
    room = threading.Semaphore(IN_FLIGHT)
    failures = []

    def done(future):
        if error := future.exception():
            failures.append(error)
        room.release()

    began = time.monotonic()
    for _ in range(PUBLISHES):
        room.acquire()
        future = client.publish_to_iot_core_async(topic_name="mine/x", qos="1", payload=b"x" * 256)
        future.add_done_callback(done)
    for _ in range(IN_FLIGHT):
        room.acquire()
    assert not failures, failures[0]
    return PUBLISHES / (time.monotonic() - began)


def main(program, mode, configuration_file):
    nucleus = Nucleus(program, mode, configuration_file)
    # The classic nucleus says no, lite hangs up: the SDK raises another error for each.
    refused(Exception, nucleus.connect, token="WRONGTOKEN000000")
    client = nucleus.connect()
    messages(client, nucleus)
    local_messages(client, nucleus)
    configuration(client, nucleus, mode)
    refusals(client, mode)
    if mode == "java":
        deployments(client, nucleus)
    client.update_state(state="RUNNING")
    rate = blast(client)
    report = nucleus.report()
    assert report["violations"] == [], report
    assert report["states"] == ["RUNNING"], report
    assert report["calls"]["PublishToIoTCore"] == PUBLISHES + 3, report
    assert report["published"] == PUBLISHES + 2, report
    client.close()
    nucleus.process.stdin.close()
    assert nucleus.process.wait(PATIENCE) == 0
    print(f"{mode}: {PUBLISHES} publishes, {IN_FLIGHT} at once: {rate:.0f}/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
