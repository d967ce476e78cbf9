"""The stack that stays up: addresses, logins, restarts, one at a time, a clean end."""

import base64
import http.client
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

import pytest

from ops import environment, processes
from tests import leavings, ops_command

pytestmark = pytest.mark.timeout(180)
LIMIT_S = 90


def start_run(checkout, place):
    state = str(place / "var")
    return ops_command.running("run", checkout, HPC_DATA_DIRECTORY=state, TMPDIR=str(place))


def lines_until(stack, beginning):
    lines = []
    while not lines or not lines[-1].startswith(beginning):
        lines.append(stack.stdout.readline())
        assert lines[-1], f"It ended before {beginning!r}: {lines}"
    return "".join(lines)


def address(text, name):
    return re.search(rf"^{name}: +(http\S+)", text, re.MULTILINE)[1]


def status_of(url, **headers):
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=10
        ) as got:
            return got.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return None


def login(url, password):
    """Log in as a browser does; return the page that it leads to."""
    cookies = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    with browser.open(f"{url}login/?next=/admin/", timeout=10) as page:
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', page.read().decode())[1]
    form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token}
    data = urllib.parse.urlencode(form).encode()
    with browser.open(f"{url}login/?next=/admin/", data, timeout=10) as page:
        return page.read().decode()


def listener(port):
    """The process that was started with a port."""
    found = leavings.processes(f"--port={port}")
    (pid,) = [pid for pid, argv in found.items() if "uvicorn" in argv]
    return pid


@pytest.fixture
def place(short_directory):
    with leavings.sockets_watched(short_directory) as sockets:
        yield short_directory
    assert leavings.processes(str(short_directory)) == {}
    assert [path.name for path in short_directory.iterdir()] == ["var"]
    assert sockets
    assert not [path for path in sockets if path.exists()]


def test_the_stack_stays_up_until_it_is_asked_to_stop(checkout, place):
    with start_run(checkout, place) as stack:
        text = lines_until(stack, "Ctrl-C")
        admin, flower = address(text, "Admin"), address(text, "Flower")
        password = re.search(r"password (\S+) \(shown this once\)", text)[1]
        assert "Site administration" in login(admin, password)
        assert status_of(f"{admin.removesuffix('admin/')}static/admin/css/base.css") == 200
        check_flower(flower, environment.read(place / "var" / "env")["FLOWER_BASIC_AUTH"])
        check_second_run_is_refused(checkout, place, stack)
        check_web_is_restarted(stack, admin)
        stack.send_signal(signal.SIGTERM)
        output, _ = stack.communicate(timeout=LIMIT_S)
    assert stack.returncode == 0, output
    assert output.splitlines()[-1] == "Stopped."
    check_second_start(checkout, place)


def manage(checkout, place, *arguments):
    """A command of the operator, in the environment that the stack has written down."""
    own = environment.read(place / "var" / "env")
    finished = subprocess.run(
        [sys.executable, "manage.py", "hpc", *arguments],
        cwd=checkout,
        env=environment.of_children(os.environ, own),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_job_goes_on_while_the_stack_is_down_and_is_followed_again(checkout, place):
    signs = place / "var"
    script = signs / "job.sh"
    with start_run(checkout, place) as stack:
        lines_until(stack, "Ctrl-C")
        script.write_text(
            f"#!/bin/bash\ntouch {signs}/begun\n"
            f"for i in {{1..900}}; do [ -e {signs}/go ] && break; sleep 0.1; done\necho over\n"
        )
        manage(checkout, place, "job", "submit", "--cluster", "localhost", "--script", str(script))
        assert processes.wait_until((signs / "begun").exists, LIMIT_S)
        os.killpg(stack.pid, signal.SIGINT)
        output, _ = stack.communicate(timeout=LIMIT_S)
    assert stack.returncode == 0, output
    left = leavings.processes(str(place))
    assert left
    assert not any(" serve " in argv for argv in left.values())
    with start_run(checkout, place) as stack:
        lines_until(stack, "Ctrl-C")
        (signs / "go").touch()
        assert "Completed" in manage(checkout, place, "job", "wait", "1")
        assert manage(checkout, place, "job", "output", "1") == "over\n"
        stack.send_signal(signal.SIGTERM)
        stack.communicate(timeout=LIMIT_S)


def check_flower(url, credentials):
    assert status_of(url) == 401
    basic = "Basic " + base64.b64encode(credentials.encode()).decode()
    assert status_of(url, Authorization=basic) == 200
    # Read-only: no button of Flower works.
    shutdown = urllib.request.Request(
        f"{url}api/worker/shutdown/x", method="POST", headers={"Authorization": basic}
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(shutdown, timeout=10)
    with refusal.value as answer:
        assert answer.code == 403


def check_second_run_is_refused(checkout, place, first):
    with start_run(checkout, place) as second:
        output, _ = second.communicate(timeout=LIMIT_S)
    assert second.returncode == 1
    assert output.startswith(f"This stack is already running, as process {first.pid}")
    assert len(output.splitlines()) == 1


def check_web_is_restarted(stack, admin):
    os.kill(listener(urllib.parse.urlsplit(admin).port), signal.SIGKILL)
    lines_until(stack, "web ended with status -9")
    assert processes.wait_until(lambda: status_of(admin) == 200, LIMIT_S, time.sleep, 0.2)


def check_second_start(checkout, place):
    """Data and secrets are those of the first one, and the password is not told again."""
    before = environment.read(place / "var" / "env")
    with start_run(checkout, place) as stack:
        text = lines_until(stack, "Ctrl-C")
        assert "shown this once" not in text
        os.killpg(stack.pid, signal.SIGINT)
        stack.communicate(timeout=LIMIT_S)
    assert stack.returncode == 0
    after = environment.read(place / "var" / "env")
    assert {**before, "HPC_REDIS_URL": ""} == {**after, "HPC_REDIS_URL": ""}
