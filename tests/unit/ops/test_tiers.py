"""Counting what the tiers came to."""

from ops import tiers

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="1" tests="10">
<properties><property name="not_here" value="No X here: Y was not tried."/></properties>
</testsuite></testsuites>
"""


def test_failures_and_errors_count_as_failed(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert tiers.count(tmp_path / "report.xml") == (6, 3)


def test_what_the_machine_did_not_have_is_read_from_the_report(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    assert tiers.not_here(tmp_path / "report.xml") == ("No X here: Y was not tried.",)


def test_a_run_that_wrote_no_report_counts_nothing(tmp_path):
    assert tiers.count(tmp_path / "report.xml") == (0, 0)
    assert tiers.not_here(tmp_path / "report.xml") == ()
