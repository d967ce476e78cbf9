"""`manage.py hpc <noun> <verb>`: exit status 0 done, 1 the thing failed, 2 wrong usage."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, OperationalError, ProgrammingError

from controller import checks, conf, errors
from controller.management.verbs import clusters, files, jobs, secrets
from controller.management.verbs.terminal import Console, WrongUsage

INTERRUPTED = 130


class Command(BaseCommand):
    help = "Clusters, jobs and their files of the HPC job controller."
    requires_system_checks = ()  # a bad setting is one sentence here, like whatever goes wrong

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the nouns."""
        nouns = parser.add_subparsers(dest="noun", required=True, metavar="NOUN")
        clusters.add_parsers(nouns)
        jobs.add_parsers(nouns)
        files.add_parsers(nouns)
        secrets.add_parsers(nouns)
        settings = nouns.add_parser("settings", help="print the table of all settings")
        settings.set_defaults(run=_print_settings)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one verb; whatever goes wrong is one sentence on stderr."""
        console = Console(self.stdout, self.stderr)
        with _quiet_log() if options["verbosity"] < 2 else nullcontext():
            status = _run(options["run"], console, Namespace(**options))
        if status:
            sys.exit(status)


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Only errors on the terminal: what is worth a sentence, the verbs say themselves."""
    loggers = (logging.getLogger(), logging.getLogger("controller"))
    terminal = (sys.stdout, sys.stderr)
    handlers = [
        handler
        for logger in loggers
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in terminal
    ]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(max(handler.level, logging.ERROR))
    # It has an application restarted that only lost Redis for a moment; we tell that ourselves.
    celery = logging.getLogger("celery")
    celery_level = celery.level
    celery.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        celery.setLevel(celery_level)
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def _run(verb: Callable[[Console, Namespace], int], console: Console, options: Namespace) -> int:
    try:
        checks.refuse_bad_settings()
        return verb(console, options)
    except WrongUsage as error:
        console.note(str(error))
        return 2
    except errors.HpcError as error:
        console.note(str(error))
    except ImproperlyConfigured as error:
        console.note(" ".join(str(error).split()))
    except (OperationalError, ProgrammingError) as error:
        console.note(_database_sentence(error))
    except DatabaseError as error:
        console.note(f"The database refused this: {_first_line(error)}.")
    except UnicodeEncodeError as error:
        if error.encoding != "utf-8":
            raise  # of the terminal, not of what was typed
        console.note("An argument holds bytes that are no text in UTF-8: enter it anew.")
        return 2
    except KeyboardInterrupt as stop:
        console.note(str(stop) or "Stopped here; what was asked for goes on.")
        return INTERRUPTED
    except BrokenPipeError:
        console.abandon()  # the reader went away
    return 1


def _database_sentence(error: DatabaseError) -> str:
    line = _first_line(error)
    if "no such table" in line or "does not exist" in line:
        return f"The database lacks tables ({line}): run `manage.py migrate`."
    return f"The database can't be reached ({line}): see that it runs, and HPC_DATABASE_URL."


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _print_settings(console: Console, _: Namespace) -> int:
    for line in conf.document().splitlines():
        console.line(line)
    return 0
