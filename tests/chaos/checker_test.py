"""The checker of kill_test.py finds what it is there to find."""

import json
import unittest

from checker import check_learner, check_rows, merge_ledgers, parse_row_log, resumed_updates

STREAM = "00000000000000aa"
OTHER = "00000000000000bb"


def ledger(*entries):
    return "".join(json.dumps({"stream": stream, "shard": shard, "acked": acked}) + "\n"
                   for stream, shard, acked in entries)


def row_log(*streams, **totals):
    """(stream, first_row, rows, contiguous) each."""
    lines = [{"stream": stream, "blocks": 1, "first_row": first, "rows": rows,
              "contiguous": contiguous, "crc32c": "00000000"}
             for stream, first, rows, contiguous in streams]
    rows = sum(line["rows"] for line in lines)
    lines.append({"streams": len(lines), "blocks": len(lines), "rows": rows, "env_steps": rows,
                  "counted_env_steps": rows, "corrupt_blocks": 0, "duplicates": 0,
                  "repeated_rows": 0, **totals})
    return parse_row_log("".join(json.dumps(line) + "\n" for line in lines))


def line(updates, epoch, counter=1, **more):
    return {"updates": updates, "policy_version": epoch << 40 | counter, **more}


class Rows(unittest.TestCase):
    def violations(self, ledgers, logs):
        return check_rows(merge_ledgers(ledgers), logs)[1]

    def test_a_sound_run_passes_and_is_counted(self):
        numbers, violations = check_rows(
            merge_ledgers([ledger((STREAM, 0, 3), (STREAM, 0, 7)), ledger((OTHER, 1, 5))]),
            {0: row_log((STREAM, 0, 9, True)), 1: row_log((OTHER, 0, 5, True))})
        self.assertEqual(violations, [])
        self.assertEqual((numbers["rows_acked"], numbers["rows_stored"]), (12, 14))
        self.assertEqual((numbers["rows_lost"], numbers["rows_twice"]), (0, 0))

    def test_the_torn_last_line_of_a_ledger_is_no_promise(self):
        torn = ledger((STREAM, 0, 3)) + '{"stream":"' + STREAM + '","shard":0,"acked":9'
        self.assertEqual(merge_ledgers([torn]), {(0, STREAM): 3})

    def test_a_doctored_ledger_shows_lost_rows(self):
        logs = {0: row_log((STREAM, 0, 9, True)), 1: row_log()}
        numbers, violations = check_rows(merge_ledgers([ledger((STREAM, 0, 10))]), logs)
        self.assertEqual(numbers["rows_lost"], 1)
        self.assertIn("acked 10 rows", violations[0])
        self.assertTrue(self.violations([ledger((STREAM, 1, 1))], logs))  # held by another shard
        self.assertTrue(self.violations([ledger((OTHER, 0, 1))], logs))  # held by nobody

    def test_rows_twice_gaps_and_damage_are_found(self):
        sound = (STREAM, 0, 9, True)
        table = {
            "a number in two blocks": row_log(sound, duplicates=1),
            "the same bytes under two numbers": row_log(sound, repeated_rows=1),
            "a damaged block": row_log(sound, corrupt_blocks=1),
            "a gap": row_log((STREAM, 0, 9, False)),
            "the beginning missing": row_log((STREAM, 64, 9, True)),
            "counts that are off": row_log(sound, counted_env_steps=10),
        }
        for what, log in table.items():
            with self.subTest(what):
                self.assertEqual(len(self.violations([], {0: log})), 1)

    def test_a_stream_on_two_shards_is_found(self):
        log = row_log((STREAM, 0, 9, True))
        self.assertEqual(len(self.violations([], {0: log, 1: log})), 1)


class Learner(unittest.TestCase):
    def test_a_learner_that_resumes_passes(self):
        lines = [line(50, 1), line(100, 1, 2), line(150, 1, 4), line(100, 2), line(300, 2, 9),
                 line(400, 3, 5, done=True)]
        self.assertEqual(check_learner(lines, [(0, 0), (100, 100), (300, None)], 100), [])

    def test_what_a_learner_must_not_do_is_found(self):
        end = line(500, 9, done=True)
        table = {
            "began anew": ([line(400, 1), line(10, 2), end], []),
            "went back within a life": ([line(400, 1, 1), line(350, 1, 2), end], []),
            "took an older epoch": ([line(300, 2), line(400, 1), end], []),
            "took an old checkpoint": ([end], [(200, 100)]),
            "took no checkpoint": ([end], [(200, 0)]),
            "never ended": ([line(300, 2)], []),
            "ended with less": ([line(600, 8), line(500, 9, done=True)], []),
            "never learned": ([], []),
        }
        for what, (lines, lives) in table.items():
            with self.subTest(what):
                self.assertEqual(len(check_learner(lines, lives, 100)), 1)

    def test_a_life_says_what_it_went_on_from(self):
        self.assertEqual(resumed_updates("[info] resumed /r/checkpoints/01 at 200 updates\n"), 200)
        self.assertEqual(resumed_updates("[info] learning run on cpu: 0 of 500 updates done"), 0)
        self.assertIsNone(resumed_updates("[info] waiting for the first actor"))


if __name__ == "__main__":
    unittest.main()
