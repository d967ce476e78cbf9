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


def test_each_failure_is_told_by_name_with_the_end_of_its_report(tmp_path):
    text = "&#10;".join(f"line {number}" for number in range(100))
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="test_x">'
        f'<failure message="no">{text}</failure></testcase>'
        '<testcase classname="tests.a" name="test_y"/></testsuite></testsuites>'
    )
    (told,) = tiers.failures(tmp_path / "report.xml")
    assert told.splitlines()[0] == "-- tests.a::test_x"
    assert told.splitlines()[-1] == "line 99"
    assert len(told.splitlines()) == 1 + tiers.FAILURE_LINES


def covers(tier, path):
    """Whether the tier runs the file's tests, all of them."""
    places = [word for word in tier.arguments if word.startswith("tests/")]
    left_out = [word.removeprefix("--ignore=") for word in tier.arguments if "=" in word]
    return (
        "-m" not in tier.arguments
        and any(path.is_relative_to(place) for place in places)
        and not any(path.is_relative_to(place) for place in left_out)
    )


def test_every_file_of_tests_is_run_by_one_tier(checkout):
    files = [path.relative_to(checkout) for path in checkout.glob("tests/**/test_*.py")]
    ours = [path for path in files if "project" not in path.parts]  # the portal's own
    assert len(ours) > 100
    for path in ours:
        assert [covers(tier, path) for tier in tiers.TIERS].count(True) == 1, path
