"""Checks a broker like `nestjs-mqtt doctor`, but with other tools: paho-mqtt, and packets that this file encodes itself.

Writes one JSON object on the standard output: facts by the id of the finding. It shares no code with the package.
usage: second_opinion.py <port> [<user> <password>]
"""

import json
import os
import socket
import statistics
import struct
import sys
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST = "127.0.0.1"
PORT = int(sys.argv[1])
USER, PASSWORD = (sys.argv[2], sys.argv[3]) if len(sys.argv) > 3 else (None, None)
ROOT = "second/" + os.urandom(6).hex()
WAIT_S = 3.0
QUIET_S = 0.4


def new_id():
    return "second" + os.urandom(6).hex()


# --- packets of its own ---------------------------------------------------------------------------------------------------------


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(data)) + data


def frame(first, body):
    length, size = len(body), b""
    while True:
        length, low = divmod(length, 128)
        size += bytes([low | (0x80 if length else 0)])
        if not length:
            return bytes([first]) + size + body


class Closed(Exception):
    pass


class Raw:
    """A connection on which the caller controls every byte."""

    def __init__(self, version, clean=True, client_id=None, properties=b"", will=None, keepalive=60, quickack=False):
        self.version, self.buffer, self.last_id, self.quickack = version, b"", 0, quickack
        self.kept = []
        self.sock = socket.create_connection((HOST, PORT), WAIT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags = (0x02 if clean else 0) | (0xC0 if USER else 0)
        payload = text(client_id or new_id())
        if will:
            flags |= 0x04 | (1 << 3)
            payload += (b"\x00" if version == 5 else b"") + text(will) + text("gone")
        if USER:
            payload += text(USER) + text(PASSWORD)
        props = bytes([len(properties)]) + properties if version == 5 else b""
        body = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keepalive) + props + payload
        self.sock.sendall(frame(0x10, body))
        self.connack = self.next(WAIT_S)
        if self.connack is None or self.connack[0] >> 4 != 2:
            raise Closed("no CONNACK")
        self.code = self.connack[1][1]
        self.session_present = self.connack[1][0] & 1 == 1

    def next(self, wait_s):
        """The next packet as (first byte, body, time); None if none arrives in time."""
        end = time.monotonic() + wait_s
        while True:
            length, shift, at = 0, 0, 1
            while at < len(self.buffer) and at < 5:
                byte = self.buffer[at]
                length |= (byte & 0x7F) << shift
                shift, at = shift + 7, at + 1
                if not byte & 0x80:
                    if len(self.buffer) >= at + length:
                        found = (self.buffer[0], self.buffer[at : at + length], time.monotonic())
                        self.buffer = self.buffer[at + length :]
                        return found
                    break
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            if self.quickack:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            try:
                data = self.sock.recv(65536)
            except socket.timeout:
                return None
            except OSError as cause:
                raise Closed(str(cause)) from cause
            if not data:
                raise Closed("the broker closed the connection")
            self.buffer += data

    def of_type(self, kind, wait_s=WAIT_S):
        end = time.monotonic() + wait_s
        while True:
            index = next((i for i, packet in enumerate(self.kept) if packet[0] >> 4 == kind), None)
            if index is not None:
                return self.kept.pop(index)
            found = self.next(max(0, end - time.monotonic()))
            if found is None:
                return None
            self.kept.append(found)

    def new_packet_id(self):
        self.last_id += 1
        return struct.pack(">H", self.last_id)

    def none(self):
        return b"\x00" if self.version == 5 else b""

    def subscribe(self, topic, qos):
        self.sock.sendall(frame(0x82, self.new_packet_id() + self.none() + text(topic) + bytes([qos])))
        suback = self.of_type(9)
        return None if suback is None else suback[1][-1]

    def publish(self, topic, payload, qos):
        packet_id = self.new_packet_id() if qos else b""
        return frame(0x30 | qos << 1, text(topic) + packet_id + self.none() + payload)

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

    def message(self, wait_s=WAIT_S):
        """The next PUBLISH as (payload, dup, packet id)."""
        found = self.of_type(3, wait_s)
        if found is None:
            return None
        first, body, _ = found
        at = 2 + struct.unpack(">H", body[:2])[0]
        packet_id = b""
        if first & 6:
            packet_id, at = body[at : at + 2], at + 2
        if self.version == 5:
            size = body[at]
            at += 1 + size
        return body[at:], bool(first & 8), packet_id

    def close(self):
        try:
            self.sock.sendall(b"\xe0\x00")
        except OSError:
            pass
        self.sock.close()

    def cut(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def connects(version):
    try:
        raw = Raw(version)
        raw.close()
        return {"isAccepted": raw.code == 0, "code": raw.code}
    except Closed:
        return {"isAccepted": False, "code": None}


def ping_times(version):
    raw, times = Raw(version), []
    for _ in range(60):
        sent = time.monotonic()
        raw.send(b"\xc0\x00")
        raw.of_type(13)
        times.append(1000 * (time.monotonic() - sent))
    raw.close()
    return {"p50Ms": round(statistics.median(times), 2)}


def pair_delay(version, quickack):
    """Median time between PINGRESP or PUBACK, and a message that is due at the same time."""
    raw = Raw(version, quickack=quickack)
    topic = f"{ROOT}/pair"
    raw.subscribe(topic, 0)
    for _ in range(40):
        raw.send(b"\xc0\x00")
        raw.of_type(13)
    medians = []
    for is_ping in (True, False):
        delays = []
        for _ in range(11):
            if is_ping:
                raw.send(b"\xc0\x00", raw.publish(topic, b"pair", 0))
            else:
                raw.send(raw.publish(topic, b"pair", 1))
            one, other = raw.of_type(3), raw.of_type(13 if is_ping else 4)
            delays.append(abs(1000 * (one[2] - other[2])))
        medians.append(statistics.median(delays))
    raw.close()
    return max(medians)


def small_packets(version):
    # If quick TCP acknowledgements remove the delay, Nagle's algorithm causes it.
    usual, quick = pair_delay(version, False), pair_delay(version, True)
    return {"isDelayed": usual > 25, "isGoneWithQuickAck": quick < 25, "medianMs": round(usual, 2)}


def qos2_packet(version):
    try:
        raw = Raw(version)
        raw.send(raw.publish(f"{ROOT}/qos2", b"x", 2))
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            found = raw.next(WAIT_S)
            if found is None:
                return "none"
            kind = found[0] >> 4
            if kind == 4:
                return "puback"
            if kind == 5:
                raw.send(frame(0x62, found[1][:2]))
            if kind == 7:
                return "pubcomp"
        return "none"
    except Closed:
        return "closed"


def puback_code(version):
    raw = Raw(version)
    raw.send(raw.publish(f"{ROOT}/nobody", b"x", 1))
    found = raw.of_type(4)
    raw.close()
    return {"code": found[1][2] if len(found[1]) > 2 else 0}


def expiry_property(seconds):
    return b"\x11" + struct.pack(">I", seconds)


def session(version):
    topic, client_id = f"{ROOT}/session", new_id()
    properties = expiry_property(120) if version == 5 else b""
    first = Raw(version, clean=False, client_id=client_id, properties=properties)
    first.subscribe(topic, 1)
    other = Raw(version)
    other.send(other.publish(topic, b"unacknowledged", 1))
    other.of_type(4)
    first.message()
    first.cut()
    time.sleep(0.5)
    other.send(other.publish(topic, b"queued", 1))
    other.of_type(4)
    second = Raw(version, clean=False, client_id=client_id, properties=properties)
    found = {}
    while (message := second.message(QUIET_S)) is not None:
        found[message[0]] = message[1]
        second.send(frame(0x40, message[2]))
    second.close()
    Raw(version, clean=True, client_id=client_id).close()
    other.close()
    return (
        {"sessionPresent": second.session_present, "hasQueued": b"queued" in found},
        {"dup": found.get(b"unacknowledged")},
    )


def session_expiry(version):
    """Whether a session has ended 3 s after a connection with an interval of 1 s."""
    if version != 5:
        return None
    client_id = new_id()
    Raw(version, clean=False, client_id=client_id, properties=expiry_property(1)).close()
    time.sleep(3)
    again = Raw(version, clean=False, client_id=client_id)
    again.close()
    return not again.session_present


def receive_maximum(version):
    properties = b"\x21" + struct.pack(">H", 10) if version == 5 else b""
    raw, topic = Raw(version, properties=properties), f"{ROOT}/window"
    raw.subscribe(topic, 1)
    other = Raw(version)
    for _ in range(120):
        other.send(other.publish(topic, b"x", 1))
        other.of_type(4)
    other.close()
    held = []

    def collect(wait_s):
        while (message := raw.message(wait_s)) is not None:
            held.append(message[2])

    collect(QUIET_S)
    before = most = len(held)
    for _ in range(10):
        if before == 120 or not held:
            break
        raw.send(frame(0x40, held.pop(0)))
        collect(0.1)
        most = max(most, len(held))
    raw.close()
    return {"before": before, "most": most}


def will(version):
    raw, topic = Raw(version), f"{ROOT}/will"
    raw.subscribe(topic, 1)
    Raw(version, will=topic).cut()
    message = raw.message()
    raw.close()
    return {"hasArrived": message is not None and message[0] == b"gone"}


# --- paho-mqtt ------------------------------------------------------------------------------------------------------------------


class Paho:
    def __init__(self, version, properties=None, keepalive=60):
        self.version = version
        protocol = paho.MQTTv5 if version == 5 else paho.MQTTv311
        # clean_session exists in MQTT 3.1.1 only.
        self.client = paho.Client(client_id=new_id(), protocol=protocol)
        if USER:
            self.client.username_pw_set(USER, PASSWORD)
        self.messages, self.codes, self.is_open = [], {}, False
        self.connack = None
        self.acknowledged = set()
        connected, self.changed = threading.Event(), threading.Condition()

        def on_connect(_client, _data, _flags, code, connack=None):
            self.connack = connack
            self.is_open = str(code) in ("0", "Success")
            connected.set()

        self.client.on_connect = on_connect
        self.client.on_disconnect = lambda *_: setattr(self, "is_open", False)
        self.client.on_message = lambda _client, _data, message: self.note(self.messages.append, message)
        self.client.on_publish = lambda _client, _data, mid: self.note(self.acknowledged.add, mid)
        self.client.on_subscribe = lambda _client, _data, mid, codes, *_: self.note(
            lambda given: self.codes.update({mid: given}), codes
        )
        self.client.connect(HOST, PORT, keepalive, properties=properties)
        self.client.loop_start()
        connected.wait(WAIT_S)

    def note(self, work, value):
        with self.changed:
            work(value)
            self.changed.notify_all()

    def until(self, condition, wait_s=WAIT_S):
        with self.changed:
            return self.changed.wait_for(condition, wait_s)

    def subscribe(self, topic, qos=1, identifier=None, **options):
        if self.version == 5:
            properties = Properties(PacketTypes.SUBSCRIBE)
            if identifier is not None:
                properties.SubscriptionIdentifier = identifier
            chosen = SubscribeOptions(qos=qos, **options)
            _, mid = self.client.subscribe(topic, options=chosen, properties=properties)
        else:
            _, mid = self.client.subscribe(topic, qos)
        self.until(lambda: mid in self.codes)
        code = self.codes.get(mid)
        if code is None:
            return None
        return code[0].value if hasattr(code[0], "value") else code[0]

    def publish(self, topic, payload="x", qos=1, retain=False, properties=None):
        """Whether it was acknowledged."""
        info = self.client.publish(topic, payload, qos, retain, properties)
        return self.until(lambda: info.mid in self.acknowledged)

    def take(self, count=1, wait_s=WAIT_S):
        """Messages that arrive until there are `count`, or the time is over."""
        self.until(lambda: len(self.messages) >= count, wait_s)
        found, self.messages = self.messages, []
        return found

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def publish_properties(**values):
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def with_client(version, work, **options):
    client = Paho(version, **options)
    try:
        return work(client)
    finally:
        client.close()


def delivered(version, qos):
    def work(client):
        client.subscribe(f"{ROOT}/qos/{qos}", qos)
        client.publish(f"{ROOT}/qos/{qos}", qos=qos)
        messages = client.take()
        return messages[0].qos if messages else None

    return with_client(version, work)


def request_times(version):
    """Request and response between two clients at QoS 0."""

    def work(responder):
        responder.client.on_message = lambda client, _data, _message: client.publish(f"{ROOT}/response", "x", 0)
        responder.subscribe(f"{ROOT}/request", 0)

        def ask(client):
            client.subscribe(f"{ROOT}/response", 0)
            times = []
            for _ in range(30):
                sent = time.monotonic()
                client.client.publish(f"{ROOT}/request", "x", 0)
                client.take()
                times.append(1000 * (time.monotonic() - sent))
            return {"p50Ms": round(statistics.median(times), 2)}

        return with_client(version, ask)

    return with_client(version, work)


def large(version):
    return with_client(version, lambda client: client.publish(f"{ROOT}/large", b"x" * 262144))


def own_packet_size(version):
    properties = Properties(PacketTypes.CONNECT)
    properties.MaximumPacketSize = 512

    def work(small):
        topic = f"{ROOT}/size"
        small.subscribe(topic)

        def send(client):
            client.publish(topic, b"x" * 1024)
            client.publish(topic, b"small")

        with_client(version, send)
        sizes = [len(message.payload) for message in small.take(2, 1)]
        return {"hasArrived": 1024 in sizes, "isAlive": 5 in sizes}

    return with_client(version, work, properties=properties)


def topic_alias(version, maximum):
    def work(client):
        topic = f"{ROOT}/alias"
        client.subscribe(topic, 0)
        for alias in (1, maximum):
            client.publish(topic, "name", 0, properties=publish_properties(TopicAlias=alias))
            client.publish("", f"alias {alias}", 0, properties=publish_properties(TopicAlias=alias))
        found = [message.payload.decode() for message in client.take(4, 1) if message.topic == topic]
        return {"first": "alias 1" in found, "last": f"alias {maximum}" in found}

    return with_client(version, work)


def message_expiry(version):
    def work(client):
        for name, seconds in (("long", 100), ("short", 1)):
            properties = publish_properties(MessageExpiryInterval=seconds)
            client.publish(f"{ROOT}/expiry/{name}", "kept", 1, True, properties)
        time.sleep(2.3)
        found = {}
        for name in ("long", "short"):
            messages = with_client(version, lambda other, name=name: read(other, f"{ROOT}/expiry/{name}"))
            found[name] = messages[0] if messages else None
            client.publish(f"{ROOT}/expiry/{name}", b"", 1, True)
        interval = found["long"] and getattr(found["long"].properties, "MessageExpiryInterval", None)
        return {"received": interval, "isExpiredGone": found["short"] is None}

    return with_client(version, work)


def read(client, topic, **options):
    client.subscribe(topic, **options)
    return client.take(1, QUIET_S)


def user_properties(version):
    def work(client):
        client.subscribe(f"{ROOT}/properties", 0)
        given = [("trace", "1"), ("trace", "2"), ("other", "ä")]
        client.publish(f"{ROOT}/properties", "x", 0, properties=publish_properties(UserProperty=given))
        messages = client.take()
        got = getattr(messages[0].properties, "UserProperty", []) if messages else []
        return {"isSame": [tuple(pair) for pair in got] == given, "got": got}

    return with_client(version, work)


def characters(version):
    found = []
    for sent in ("a.b", "a b", "a//b", "ä/℃"):

        def work(subscriber, sent=sent):
            subscriber.subscribe(f"{ROOT}/characters/#")
            with_client(version, lambda client: client.publish(f"{ROOT}/characters/{sent}"))
            messages = subscriber.take(1, 1)
            return messages[0].topic[len(f"{ROOT}/characters/") :] if messages else None

        found.append([sent, with_client(version, work)])
    return found


def wildcards(version):
    def work(client):
        client.subscribe(f"{ROOT}/wild/+/#", 0)
        client.publish(f"{ROOT}/wild/a/b/c", "x", 0)
        return {"hasMatched": len(client.take(1, 1)) == 1}

    return with_client(version, work)


def shared(version):
    topic = f"{ROOT}/shared"
    shares = f"$share/second/{topic}"

    def work(one):
        code = one.subscribe(shares)
        if code is None or code >= 0x80:
            return {"code": code}

        def pair(other):
            other.subscribe(shares)

            def send(client):
                for count in range(20):
                    client.publish(topic, str(count))
                counts = [len(member.take(21, 0.6)) for member in (one, other)]
                # A broker without shared subscriptions delivers what is published to the name itself.
                client.publish(shares, "literal")
                literal = len(one.take(1, 0.6)) + len(other.take(1, 0.1))
                return {"code": code, "total": sum(counts), "members": counts, "isOrdinary": literal > 0}

            return with_client(version, send)

        return with_client(version, pair)

    return with_client(version, work)


def identifiers(version):
    def work(client):
        client.subscribe(f"{ROOT}/identifier", 0, 268_000_001)
        client.publish(f"{ROOT}/identifier", "x", 0)
        messages = client.take()
        return {"returned": getattr(messages[0].properties, "SubscriptionIdentifier", []) if messages else None}

    return with_client(version, work)


def overlapping(version):
    def work(client):
        for index, topic in enumerate((f"{ROOT}/overlap/a", f"{ROOT}/overlap/+")):
            client.subscribe(topic, identifier=index + 1 if version == 5 else None)
        client.publish(f"{ROOT}/overlap/a")
        messages = client.take(3, 1)
        ids = [getattr(message.properties, "SubscriptionIdentifier", []) for message in messages] if version == 5 else []
        return {"copies": len(messages), "identifiers": sorted(sum(ids, []))}

    return with_client(version, work)


def no_local(version):
    def work(client):
        client.subscribe(f"{ROOT}/local", noLocal=True)
        client.publish(f"{ROOT}/local")
        return {"ownCopies": len(client.take(1, 1))}

    return with_client(version, work)


def retained(version):
    topic = f"{ROOT}/retained/a"

    def work(client):
        client.publish(topic, "kept", 1, True)
        stored = with_client(version, lambda other: read(other, topic))
        found = with_client(version, lambda other: read(other, f"{ROOT}/retained/+"))
        client.publish(topic, b"", 1, True)
        left = with_client(version, lambda other: read(other, topic))
        return {
            "hasArrived": len(stored) == 1,
            "hasFlag": bool(stored and stored[0].retain),
            "hasWildcard": len(found) == 1,
            "isRemoved": left == [],
        }

    return with_client(version, work)


def retain_options(version):
    topic = f"{ROOT}/options"

    def work(client):
        client.subscribe(topic, retainAsPublished=True)
        client.publish(topic, "kept", 1, True)
        live = client.take(1, 1)
        existing = read(client, topic, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        new = with_client(version, lambda other: read(other, topic, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB))
        never = with_client(version, lambda other: read(other, topic, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND))
        client.publish(topic, b"", 1, True)
        return (
            {"flag": bool(live and live[0].retain)},
            {"existing": len(existing), "new": len(new), "never": len(never)},
        )

    return with_client(version, work)


def sys_topics(version, wait_s):
    def work(client):
        code = client.subscribe("$SYS/#", 0)
        time.sleep(wait_s)
        return {"code": code, "topics": sorted({message.topic for message in client.take(0, 0)})}

    return with_client(version, work)


def announced(version):
    """The properties of CONNACK, and the Keep Alive that the broker chooses when the client requests 300 and 37 s."""
    if version != 5:
        return {}, {}
    connack = with_client(version, lambda client: client.connack.json())
    chosen = {}
    for requested in (300, 37):
        found = with_client(version, lambda client: client.connack.json(), keepalive=requested)
        chosen[f"of{requested}"] = found.get("ServerKeepAlive")
    return connack, chosen


def main():
    facts = {"mqtt-5": connects(5), "mqtt-3.1.1": connects(4)}
    version = 5 if facts["mqtt-5"]["isAccepted"] else 4
    connack, keep_alive = announced(version)
    facts["round-trip"] = ping_times(version)
    facts["requests"] = request_times(version)
    facts["small-packets"] = small_packets(version)
    facts["qos-1"] = {"delivered": delivered(version, 1)}
    packet = qos2_packet(version)
    facts["qos-2"] = {"packet": packet, "delivered": None if packet == "closed" else delivered(version, 2)}
    facts["no-subscriber"] = puback_code(version)
    facts["packet-size"] = {"announced": connack.get("MaximumPacketSize"), "isAccepted": large(version)}
    facts["topic-characters"] = {"received": characters(version)}
    facts["wildcards"] = wildcards(version)
    facts["shared-subscriptions"] = {
        "isAnnounced": connack.get("SharedSubscriptionAvailable"),
        **shared(version),
    }
    facts["overlapping-filters"] = overlapping(version)
    facts["retained"] = retained(version)
    facts["session"], facts["redelivery"] = session(version)
    facts["session"]["granted"] = connack.get("SessionExpiryInterval")
    facts["session"]["isExpired"] = session_expiry(version)
    facts["receive-maximum"] = receive_maximum(version)
    facts["broker-window"] = {"announced": connack.get("ReceiveMaximum")}
    facts["will"] = will(version)
    facts["sys-topics"] = sys_topics(version, 1)
    if version == 5:
        maximum = connack.get("TopicAliasMaximum", 0)
        facts["own-packet-size"] = own_packet_size(version)
        facts["topic-alias"] = {"maximum": maximum, **(topic_alias(version, maximum) if maximum else {})}
        facts["message-expiry"] = message_expiry(version)
        facts["user-properties"] = user_properties(version)
        facts["subscription-identifiers"] = identifiers(version)
        facts["no-local"] = no_local(version)
        facts["retain-as-published"], facts["retain-handling"] = retain_options(version)
        facts["keep-alive"] = keep_alive
    json.dump({"version": version, "connack": connack, "facts": facts}, sys.stdout)


main()
