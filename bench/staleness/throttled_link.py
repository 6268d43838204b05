"""A TCP link in front of the broker that carries so many bytes a second towards it, and any number back.

Config (first argument, JSON): port, bytesPerSecond (null: unlimited), roundTripMs. Requests (lines of JSON on stdin):
{"bytesPerSecond": n} changes the rate; each request is answered with the bytes carried so far and the time.
"""

import json
import os
import select
import socket
import sys
import time
from collections import deque

SLICE_SECONDS = 0.01
# A machine that is busy wakes this process late; what was missed then is made up for, up to this long.
CREDIT_SECONDS = 0.05
# Loopback has segments of 64 KB, and with them a send buffer of megabytes that no network card would get.
ETHERNET_MSS = 1448
# What a throttled link holds by itself, as the queue of a router would. The kernel doubles it for its own use.
QUEUE_BYTES = 16 * 1024

config = json.loads(sys.argv[1])


def say(message):
    print(json.dumps(message), flush=True)


class Link:
    def __init__(self, client, broker, rate, round_trip_ms):
        self.client, self.broker, self.rate = client, broker, rate
        self.delay = round_trip_ms / 2_000
        self.under_way = deque()
        self.carried = 0
        self.free_at = 0.0
        self.is_idle = True

    def ready(self):
        """Waits for something to do; the client is not heard while the link is busy with what it carried last."""
        others = [0, self.broker]
        wait = self.deliver()
        busy = 0.0 if self.rate is None else self.free_at - time.monotonic()
        if busy > 0:
            return select.select(others, [], [], busy if wait is None else min(busy, wait))[0]
        ready = select.select([*others, self.client], [], [], 0)[0]
        if not ready:
            self.is_idle = True
            ready = select.select([*others, self.client], [], [], wait)[0]
        return ready

    def carry(self):
        size = 65536 if self.rate is None else max(1, int(self.rate * SLICE_SECONDS))
        # Reads what goes on at once, and no more: nothing waits in this process.
        data = self.client.recv(size)
        if not data:
            return False
        if self.rate is not None:
            now = time.monotonic()
            begun_at = now if self.is_idle else max(self.free_at, now - CREDIT_SECONDS)
            self.free_at = begun_at + len(data) / self.rate
            self.is_idle = False
        self.send(self.broker, data)
        self.carried += len(data)
        return True

    def send(self, side, data):
        if self.delay == 0:
            side.sendall(data)
        else:
            self.under_way.append((time.monotonic() + self.delay, side, data))

    def deliver(self):
        """Hands over what has arrived. Returns the seconds until more has."""
        while self.under_way:
            wait = self.under_way[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, side, data = self.under_way.popleft()
            side.sendall(data)
        return None

    def change(self, rate):
        self.rate = rate
        self.free_at = time.monotonic()


def serve(link):
    pending = b""
    while True:
        ready = link.ready()
        if link.client in ready and not link.carry():
            return
        if link.broker in ready:
            data = link.broker.recv(65536)
            if not data:
                return
            link.send(link.client, data)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *requests, pending = (pending + data).split(b"\n")
            for request in map(json.loads, requests):
                if "bytesPerSecond" in request:
                    link.change(request["bytesPerSecond"])
                say({"carried": link.carried, "at": time.time() * 1000})


def main():
    server = socket.socket()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, ETHERNET_MSS)
    if config["bytesPerSecond"] is not None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    server.settimeout(60)
    say({"port": server.getsockname()[1]})
    client, _ = server.accept()
    client.settimeout(None)
    broker = socket.create_connection(("127.0.0.1", config["port"]))
    for side in (client, broker):
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    serve(Link(client, broker, config["bytesPerSecond"], config.get("roundTripMs", 0)))


try:
    main()
except (ConnectionError, BrokenPipeError, KeyboardInterrupt):
    pass
