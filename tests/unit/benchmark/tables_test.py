#!/usr/bin/env python3
"""What tools/benchmark makes of measured data."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

import benchmark_tables as tables  # pylint: disable=wrong-import-position

HTAP = """\
machine some processor
system Linux
table: 64 MiB, writers: 2, seconds for each row: 1
scans read       transactions/s   longest/ms    scans    wrong max stall/ms   held/MiB
nothing                 1000000        0.500       90        0        0.000        0.0
the live table           900000        0.700       30       12        0.000        0.0
a snapshot               500000        9.250       20        0        8.500       12.3
every scan of a snapshot was consistent
system dbos
table: 64 MiB, writers: 2, seconds for each row: 1
a snapshot               600000        1.250       25        3        0.250       12.5
WRONG: a snapshot was torn
"""


def samples(median, minimum, count=7, maximum=None):
    return {"median": median, "min": minimum, "max": maximum or median, "count": count}


def row(name, linux, dbos, ratio=None, must=None, is_met=None):
    return {"name": name, "what": f"what {name} is", "unit": "us", "linux": linux, "dbos": dbos,
            "ratio": ratio, "must": must, "met": is_met, "details": {}}


class Numbers(unittest.TestCase):
    def test_a_number_has_about_four_digits(self):
        self.assertEqual([tables.number(value) for value in (12345.6, 123.45, 1.234, 0.01234, None)],
                         ["12346", "123.5", "1.23", "0.012", "-"])

    def test_a_cell_tells_the_minimum_of_repeated_measurements_only(self):
        self.assertEqual(tables.cell(samples(2.5, 1.5)), "2.50 (1.50)")
        self.assertEqual(tables.cell(samples(2.5, 2.5, count=1)), "2.50")
        self.assertEqual(tables.cell(None), "-")


class Htap(unittest.TestCase):
    def test_each_row_knows_its_system_and_table(self):
        rows = tables.parse_htap(HTAP)
        self.assertEqual([(r["system"], r["scans_read"]) for r in rows],
                         [("Linux", "nothing"), ("Linux", "the live table"), ("Linux", "a snapshot"),
                          ("dbos", "a snapshot")])
        self.assertEqual((rows[2]["table_mib"], rows[2]["writers"], rows[2]["transactions_per_s"],
                          rows[2]["longest_ms"], rows[2]["scans"], rows[2]["stall_max_ms"], rows[2]["held_mib"]),
                         (64, 2, 500000, 9.25, 20, 8.5, 12.3))

    def test_a_torn_snapshot_breaks_the_bound_and_a_torn_live_scan_does_not(self):
        rows = tables.parse_htap(HTAP)
        self.assertFalse(tables.htap_bounds(rows)[0]["met"])
        self.assertTrue(tables.htap_bounds(rows[:3])[0]["met"])

    def test_both_systems_stand_beside_each_other(self):
        self.assertEqual(tables.longest_by_system(tables.parse_htap(HTAP)),
                         [("64 MiB, 2 w: a snapshot", 9.25, 1.25)])

    def test_what_is_no_row_is_refused(self):
        for text in ("", "system dbos\n", HTAP + "dbos-run: no memory\n", HTAP + "1 2 3 4 5 6\n"):
            with self.assertRaises(tables.Malformed):
                tables.parse_htap(text)


class Latencies(unittest.TestCase):
    def test_a_request_counts_where_it_is_answered(self):
        # The second begins before 0 and is answered 0.25 s after it.
        buckets = tables.latency_buckets([(-0.15, 10), (-0.05, 300), (0.2, 20), (0.21, 40)])
        self.assertEqual(buckets, [(-0.2, 1, 10, 10), (0.2, 3, 40, 300)])

    def test_the_median_is_of_the_bucket_alone(self):
        buckets = tables.latency_buckets([(1.0 + i / 1000, i) for i in range(1, 6)])
        self.assertEqual(buckets, [(1.0, 5, 3, 5)])


class Machine(unittest.TestCase):
    def test_a_machine_tells_of_its_mitigations(self):
        facts = {"processor": "p", "kind": "emulated", "cores": 3, "memory_mib": 1, "kernel": "Linux 6",
                 "clock_source": "tsc", "mitigations_off": True}
        self.assertIn("mitigations off", tables.machine_text(facts))
        about = {"date": "d", "host": "h", "load_before": 1, "load_after": 1, "processors": 2, "machine": "as it was"}
        self.assertIn("The machine: as it was.", tables.about_text(about))
        self.assertIn("clock tsc, mitigations off.", tables.about_text(about, facts))


class Refusals(unittest.TestCase):
    def refusal(self, tool, *words):
        done = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
        self.assertEqual((2, 1), (done.returncode, done.stderr.count("\n")), done.stderr)
        return done.stderr

    def test_seconds_that_are_no_number(self):
        for text in ("nan", "inf", "0"):
            self.assertIn("want a number above 0", self.refusal(ROOT / "tools/benchmark", "--tables", "--seconds", text))

    def test_a_document_that_is_not_there(self):
        with tempfile.TemporaryDirectory() as directory:
            tools = pathlib.Path(directory) / "tools"
            tools.mkdir()
            for name in ("benchmark", "benchmark_tables.py"):
                shutil.copy(ROOT / "tools" / name, tools)
            self.assertIn("there is no", self.refusal(tools / "benchmark", "--tables"))


class Bounds(unittest.TestCase):
    def stalls(self, largest):
        return {"rows": [row(name, samples(9, 9), samples(5, minimum), 5 / 9)
                         for name, minimum in zip(tables.STALL_MIB, (2, 2, 3, largest))]}

    def test_flat_in_size_is_judged_by_the_minima_of_all_sizes(self):
        self.assertEqual([b["met"] for b in tables.bench_bounds(self.stalls(4))], [True])
        self.assertEqual([b["met"] for b in tables.bench_bounds(self.stalls(4.1))], [False])
        missing = self.stalls(4)
        missing["rows"][1]["dbos"] = None
        self.assertEqual(tables.bench_bounds(missing), [])

    def test_a_row_that_failed_is_a_bound_that_is_not_met(self):
        failed = dict(row("fork", None, None, None, "<= 0.7 x", False), failure="no memory")
        self.assertEqual(tables.bench_bounds({"rows": [failed]}),
                         [{"what": "what fork is", "must": "<= 0.7 x", "value": "-", "met": False}])
        self.assertIn("not measured, no memory", tables.bench_text({"rows": [failed]}))

    def test_redis_is_judged_by_what_ran_under_dbos(self):
        table = [["quantity", "unit", "plain", "dbos-run"], ["max during / max without", "times", "4.20", "1.40"]]
        found = tables.redis_bounds({"table": table, "size_mb": 60})
        self.assertEqual([(b["met"], b["value"]) for b in found], [(True, "1.40 x (plain redis: 4.20)")])
        table[1][3] = "1.51"
        self.assertFalse(tables.redis_bounds({"table": table, "size_mb": 60})[0]["met"])


class Document(unittest.TestCase):
    TEXT = "by hand\n<!-- benchmark: htap -->\nold\n<!-- end -->\nmore\n<!-- benchmark: bounds -->\n<!-- end -->\n"

    def test_only_the_section_changes_and_writing_it_again_changes_nothing(self):
        once = tables.replace_section(self.TEXT, "htap", "new")
        self.assertEqual(once, self.TEXT.replace("\nold\n", "\n\nnew\n\n"))
        self.assertEqual(tables.replace_section(once, "htap", "new"), once)

    def test_a_section_that_is_missing_or_has_no_end_is_refused(self):
        for text in ("", self.TEXT.replace("<!-- end -->\n", "", 1)):
            with self.assertRaises(tables.Malformed):
                tables.replace_section(text, "htap", "new")

    def test_tables_of_what_was_measured_and_all_bounds_are_filled_in(self):
        about = {"date": "2026-01-02 03:04 UTC", "host": "a computer", "processors": 2, "load_before": 0.5,
                 "load_after": 1.25, "machine": "a machine", "emulator": ""}
        filled = tables.fill(self.TEXT, {"htap": {"about": about, "result": tables.parse_htap(HTAP)}})
        self.assertIn("2026-01-02 03:04 UTC, on a computer", filled)
        self.assertIn("| dbos | 64 MiB | 2 | a snapshot | 600000 | 1.25 | 25 | 3 |", filled)
        self.assertIn("| none | 3 | **no** |", filled)
        self.assertIn("](performance/htap.svg)", filled)
        self.assertNotIn("old", filled)

    def test_our_document_has_every_section(self):
        tables.check_sections((ROOT / "docs/performance.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
