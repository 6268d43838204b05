"""Publishes with paho-mqtt on asyncio: the library that looks at the socket before it publishes.

paho's callbacks put the client's socket into the event loop. A message for which the send buffer of the socket has no
room is dropped. Config and requests are those of publisher.mjs.
"""

import asyncio
import json
import os
import ssl
import struct
import sys
import time

import paho.mqtt.client as mqtt

config = json.loads(sys.argv[1])
load = config["load"]
padding = bytes(config["payloadBytes"] - 8)


def say(message):
    print(json.dumps(message), flush=True)


class Publisher:
    def __init__(self, loop):
        self.loop = loop
        self.connected = loop.create_future()
        self.offered = self.dropped = 0
        # From version 2 on, the constructor asks which callbacks it gets.
        version = getattr(mqtt, "CallbackAPIVersion", None)
        arguments = [] if version is None else [version.VERSION2]
        self.client = client = mqtt.Client(*arguments, client_id=config["topic"], protocol=mqtt.MQTTv311)
        if config["ca"]:
            client.tls_set(ca_certs=config["ca"], cert_reqs=ssl.CERT_REQUIRED)
        client.on_connect = lambda *_: self.connected.set_result(None)
        client.on_socket_open = lambda _c, _u, sock: loop.add_reader(sock, client.loop_read)
        client.on_socket_close = lambda _c, _u, sock: loop.remove_reader(sock)
        client.on_socket_register_write = lambda _c, _u, sock: loop.add_writer(sock, client.loop_write)
        client.on_socket_unregister_write = lambda _c, _u, sock: loop.remove_writer(sock)

    async def look_after(self):
        while self.client.loop_misc() == mqtt.MQTT_ERR_SUCCESS:
            await asyncio.sleep(1)

    def send(self):
        self.offered += 1
        if self.client.want_write():
            self.dropped += 1
            return
        self.client.publish(config["topic"], struct.pack(">d", time.time() * 1000) + padding)
        # With an event loop, publish only queues. Offered to the socket at once, a second message of the same turn
        # is dropped when the send buffer is full, and not before.
        self.client.loop_write()

    def backlog(self):
        return sum(packet["to_process"] for packet in self.client._out_packet)

    def look(self):
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "offered": self.offered,
            "dropped": self.dropped,
            "backlogBytes": self.backlog(),
            "residentBytes": resident,
            "at": time.time() * 1000,
        }

    async def publish(self):
        """As pace() of pacing.mjs does."""
        tick, seconds = load["tickMs"] / 1000, time.monotonic
        next_at, owed = seconds(), 0.0
        while True:
            now = seconds()
            if load["isBurst"]:
                due = 1
                next_at = now + tick
            else:
                due = min(2, int((now - next_at) / tick) + 1)
                next_at = max(next_at, now - 2 * tick) + due * tick
            owed += due * load["perTick"]
            while owed >= 1:
                self.send()
                owed -= 1
            await asyncio.sleep(max(0.0, next_at - seconds()))


async def main():
    loop = asyncio.get_running_loop()
    publisher = Publisher(loop)
    publisher.client.connect("127.0.0.1", config["port"])
    tasks = [loop.create_task(publisher.look_after())]
    await asyncio.wait_for(publisher.connected, 10)
    requests = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    say({"ready": True})
    while line := await requests.readline():
        if json.loads(line).get("start"):
            tasks.append(loop.create_task(publisher.publish()))
        say(publisher.look())
    # The parent is gone, or has what it wants; what is queued is of no interest.
    os._exit(0)


asyncio.run(main())
