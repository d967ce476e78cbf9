"""An engine in a process of its own: requests as JSON lines on stdin, answers on stdout."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import threading
from types import SimpleNamespace

from cluster_client.engine import Engine
from cluster_client.protocol import messages


def say(number, reply):
    sys.stdout.write(json.dumps([number, reply]) + "\n")
    sys.stdout.flush()


def answer(engine, number, request):
    kind = request.pop("type")
    if kind == "events":
        reply = [event.__dict__ for event in engine.events_after(request["after"])]
    elif kind == "ack":
        outbox_id = engine.status()["outbox_id"]
        reply = engine.acknowledge(messages.Ack(outbox_id, request["seq"]))
    elif kind == "status":
        reply = engine.status()
    else:
        message = getattr(messages, kind)(**request)
        message = engine.welcome(message) if kind == "Hello" else engine.handle(message)
        reply = {"type": type(message).__name__, **dataclasses.asdict(message)}
    say(number, reply)


def main():
    logging.basicConfig(level=logging.DEBUG)
    engine = Engine(SimpleNamespace(**json.loads(sys.argv[1])))
    engine.start()
    say(0, "ready")
    for line in sys.stdin:
        number, request = json.loads(line)
        threading.Thread(target=answer, args=(engine, number, request)).start()
    engine.stop()


if __name__ == "__main__":
    main()
