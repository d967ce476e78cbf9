"""Private Redis and PostgreSQL servers, really started."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import dj_database_url
import psycopg
import pytest
import redis

from ops import errors, processes, services

REPORT_LIMIT_S = 30


def ask_postgres(url: str, statement: str) -> object:
    parts = dj_database_url.parse(url)
    names = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "NAME"}
    options = {key: str(parts[name]) for key, name in names.items()}
    with psycopg.connect(**options, password=parts["PASSWORD"]) as connection:
        row = connection.execute(statement).fetchone()
    return row[0] if row else None


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_redis_answers_on_its_port_to_those_who_know_the_password(redis_url, redis_server):
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
    with redis.Redis(port=redis_server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_redis_answers_on_its_socket_in_a_private_directory(short_directory):
    server = services.Redis(short_directory / "redis")
    server.start()
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        assert client.ping()
    assert server.directory.stat().st_mode & 0o777 == 0o700
    server.stop()
    assert not server.socket_path.exists()


def test_each_test_gets_an_empty_redis(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("left", "behind")
        redis_server.empty()
        assert client.dbsize() == 0


def test_redis_keeps_its_address_over_a_restart(own_redis):
    before = own_redis.url
    own_redis.stop()
    own_redis.start()
    assert own_redis.url == before


def test_redis_in_a_directory_too_deep_for_a_socket_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(errors.NotStarted, match="too long for a Unix socket"):
        services.Redis(tmp_path / ("d" * 100))


def test_a_redis_that_cannot_start_says_why_and_leaves_nothing(short_directory):
    first = services.Redis(short_directory / "first", with_port=True)
    first.start()
    second = services.Redis(short_directory / "second", with_port=True)
    second.port = first.port
    with pytest.raises(errors.NotStarted, match="in use"):
        second.start()
    assert second.child is None
    first.stop()


def test_postgres_answers_on_socket_and_loopback(postgres_server, postgres_url):
    name = postgres_url.rpartition("/")[2]
    assert ask_postgres(postgres_url, "select current_database()") == name
    assert ask_postgres(postgres_server.tcp_url(name), "select 1") == 1


def test_postgres_refuses_a_wrong_password_on_the_loopback(postgres_server):
    url = postgres_server.tcp_url().replace(postgres_server.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask_postgres(url, "select 1")


def test_postgres_keeps_its_data_over_a_restart(short_directory):
    short_directory.chmod(0o711)
    server = services.Postgres(short_directory / "postgres")
    server.start()
    url = server.create_database("kept")
    server.stop()
    server.start()
    assert ask_postgres(url, "select 1") == 1
    server.stop()


PARENT = """
    import sys, time
    from pathlib import Path
    from ops import services
    directory = Path(sys.argv[1])
    servers = [services.Redis(directory / "r"), services.Postgres(directory / "p")]
    for server in servers:
        server.start()
    print(*(server.child.pid for server in servers), flush=True)
    time.sleep(600)
"""


def test_the_servers_die_with_a_parent_that_is_killed(short_directory, checkout):
    short_directory.chmod(0o711)
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), short_directory],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(exists(pid) for pid in pids)
        os.kill(parent.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not any(map(exists, pids)), REPORT_LIMIT_S)


def test_stop_ends_the_whole_group_of_a_program_that_ignores_the_request():
    script = "trap '' TERM; sleep 600 & echo $!; wait; sleep 600"
    child = processes.start("stubborn", ["bash", "-c", script], output=subprocess.PIPE)
    with child.process:
        grandchild = int(child.process.stdout.readline())
        processes.stop(child, limit_s=0.2)
        assert child.process.returncode == -signal.SIGKILL
    assert processes.wait_until(lambda: not exists(grandchild), REPORT_LIMIT_S)


def test_a_program_that_does_not_exist_is_told_in_a_sentence():
    child = processes.start("absent", ["/nonexistent/program"], output=subprocess.PIPE)
    output, _ = child.process.communicate(timeout=REPORT_LIMIT_S)
    assert child.process.returncode == 1
    assert output.decode().strip().endswith("could not be started: No such file or directory.")


def test_a_port_in_use_is_replaced_by_a_free_one():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert processes.free_port(preferred=taken) != taken


def test_a_free_port_is_used_if_it_is_the_preferred_one():
    preferred = processes.free_port()
    assert processes.free_port(preferred=preferred) == preferred
