"""The settings under which the tests run: the project's own, on a database made for them.

`HPC_TEST_DATABASE` selects it: sqlite (default) or postgresql. Where it lives is filled in by the
fixture `django_db_modify_db_settings`, since the server is started only once it is needed.
"""

import base64
import os
from pathlib import Path
from typing import Any

TEST_DATABASE = os.environ.get("HPC_TEST_DATABASE") or "sqlite"
if TEST_DATABASE not in ("sqlite", "postgresql"):
    raise SystemExit(f"HPC_TEST_DATABASE is {TEST_DATABASE!r}; it may be sqlite or postgresql.")

# What the tests run under is decided here, not by the developer's shell.
for name in ("HPC_DATABASE_URL", "DJANGO_ALLOWED_HOSTS", "HPC_FAULT_POINT"):
    os.environ.pop(name, None)
os.environ.update(
    DJANGO_DEBUG="0",
    DJANGO_SECRET_KEY="only for tests " + "x" * 40,
    HPC_ALLOW_LOCAL_CARRIER="1",
    HPC_DATA_DIRECTORY=str(Path(__file__).with_name("artefacts") / "var"),
    HPC_INSTANCE_ID="test",
    # Nobody listens there: a test that needs a broker asks for `redis_url`.
    HPC_REDIS_URL="redis+socket:///nonexistent/redis.sock",
    HPC_SECRET_KEYS=base64.urlsafe_b64encode(b"only for tests".ljust(32, b".")).decode(),
)
if os.geteuid() == 0:
    os.environ["HPC_ALLOW_ROOT"] = "1"

from controller.project.settings import *  # noqa: E402, F403
from controller.project.settings import DATABASES as PROJECT_DATABASES  # noqa: E402

DATABASES: dict[str, dict[str, Any]] = {"default": dict(PROJECT_DATABASES["default"])}
if TEST_DATABASE == "postgresql":
    DATABASES["default"] = {"ENGINE": "django.db.backends.postgresql", "NAME": "hpc"}

# Hashing passwords is slow on purpose; no test is about that.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
