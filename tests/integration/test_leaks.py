"""The search for secrets reads all that Redis can hold, and hears what it is told."""

from __future__ import annotations

from pathlib import Path

import redis

from ops import processes, services
from tests import leaks

WORDS = {
    kind: f"{kind}K7Qx09vTzP3mWd5R" for kind in ("key", "string", "list", "set", "zset", "hash")
}
WORDS["stream"] = "streamK7Qx09vTzP3mWd5R"


def test_every_type_of_key_is_read_and_every_command_heard(own_redis: services.Redis) -> None:
    words = leaks.Words(WORDS)
    with leaks.Commands(own_redis) as commands, redis.Redis.from_url(own_redis.url) as client:
        client.set("a", WORDS["string"])
        client.set(WORDS["key"], "")
        client.rpush("b", "x", WORDS["list"])
        client.sadd("c", WORDS["set"])
        client.zadd("d", {WORDS["zset"]: 1})
        client.hset("e", "field", WORDS["hash"])
        client.xadd("f", {"field": WORDS["stream"]})
        found = words.find(leaks.redis_keys(client))
        assert found == {("redis keys", name) for name in WORDS}
        heard = {("redis commands", name) for name in WORDS}
        assert processes.wait_until(lambda: words.find(commands.places()) == heard, 10)


def test_a_password_that_redis_is_told_is_found_by_nobody_else(own_redis: services.Redis) -> None:
    words = leaks.Words({"it": own_redis.password})
    with leaks.Commands(own_redis) as commands, redis.Redis.from_url(own_redis.url) as client:
        client.ping()
        assert processes.wait_until(lambda: b"PING" in next(commands.places())[1], 10)
        assert words.find(commands.places()) == set()
    config = own_redis.directory / "redis.conf"
    assert words.find(leaks.texts("configuration", [Path(config)])) == {("configuration", "it")}
