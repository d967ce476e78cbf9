"""When a program that ended is started again."""

from ops import run


def test_a_program_that_keeps_ending_starts_later_each_time_up_to_a_cap():
    restart = run.Restart()
    pauses = [restart.plan(now=float(second)) for second in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert restart.due == 7 + 30


def test_a_program_that_ran_well_starts_soon_again():
    restart = run.Restart(failures=5, started=100)
    assert restart.plan(now=100 + run.GOOD_RUN_S) == 1
