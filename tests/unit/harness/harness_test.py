#!/usr/bin/env python3
"""The scripts that run tests lose none without a word."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def run(script, *arguments):
    return subprocess.run([ROOT / script, *arguments], capture_output=True, text=True, check=False)


class Scripts(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def assert_refused(self, result, words):
        self.assertEqual((2, "", 1), (result.returncode, result.stdout, result.stderr.count("\n")))
        self.assertIn(words, result.stderr)

    def conformance_program(self, name, *cases, does='echo "ok $case"'):
        """Of a build directory: a program in which each case does that, by default pass."""
        program = self.directory / "tests/conformance" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        listing = "".join(f"echo {case}; " for case in cases)
        program.write_text('#!/bin/sh\nif [ "$1" = --list ]; then ' + listing
                           + f'exit; fi\nfor case; do {does}; done\n')
        program.chmod(0o755)

    def conformance(self, *options):
        return run("tests/conformance/run", "--native-only", *options, self.directory)

    def test_system_test_that_is_not_there(self):
        self.assert_refused(run("tests/system/run", "--list", "--only", "true_and_false", "--only", "no_such"), "'no_such'")
        self.assertEqual("true_and_false\n", run("tests/system/run", "--list", "--only", "true_and_false").stdout)
        self.assertIn("stress_ready\n", run("tests/system/run", "--list", "--only", "stress").stdout)

    def test_system_tests_that_runs_share(self):
        """Each is run by one of them; the other says that none is left, which tools/check looks for."""
        tools = self.directory / "tools"
        tools.mkdir()
        (tools / "dbos-run").symlink_to("/bin/true")
        begun = self.directory / "begun"
        command = ("tests/system/run", "--native-only", "--share", begun, "--only", "true_and_false",
                   "--only", "death_by_signal_is_passed_on", self.directory)
        self.assert_refused(run(*command), f"'{begun}'")
        begun.mkdir()
        (begun / "true_and_false").mkdir()
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        namespace = ["unshare", *user, "--pid", "--fork", "--mount-proc", "true"]
        if subprocess.run(namespace, check=False, stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("this host gives no process namespace (unshare --pid)")
        first, second = run(*command), run(*command)
        self.assertNotIn("true_and_false", first.stdout)
        self.assertIn("1 passed, 0 failed", first.stdout)
        self.assertEqual((0, "nothing left: others have begun them all\n0 passed, 0 failed, 0 skipped\n"),
                         (second.returncode, second.stdout))

    def test_conformance_case_that_is_not_there(self):
        self.conformance_program("program", "one", "two")
        self.assert_refused(self.conformance("--case", "program", "--case", "other"), "'other'")
        self.assert_refused(self.conformance("--case", "program:three"), "'three'")
        good = self.conformance("--case", "program", "--case", "program:two")
        self.assertEqual((0, "3 passed, 0 failed, 0 skipped"), (good.returncode, good.stdout.splitlines()[-1]))

    def test_conformance_program_that_ends_early(self):
        self.conformance_program("program", "one", "two", does='if [ $case = one ]; then echo ok one; fi')
        result = self.conformance("--case", "program")
        self.assertIn("FAIL program:two: natively, exit status 0, but 0 of 1 cases reported", result.stdout)
        self.assertEqual((1, "1 passed, 1 failed, 0 skipped"), (result.returncode, result.stdout.splitlines()[-1]))

    def test_conformance_child_whose_failure_nobody_sees(self):
        self.conformance_program("program", "one", does='echo "FAILED in a child"; echo "ok $case"')
        result = self.conformance("--case", "program")
        self.assertIn("0, but 1 checks failed", result.stdout)
        self.assertEqual(1, result.returncode)

    def test_conformance_program_without_cases(self):
        self.conformance_program("program")
        result = self.conformance("--case", "program")
        self.assertEqual((1, "FAIL program: it lists no cases\n0 passed, 1 failed, 0 skipped\n"),
                         (result.returncode, result.stdout))

    def test_unit_test_in_which_nothing_ran(self):
        log = self.directory / "log.json"
        outputs = ["=====\nNo tests ran\n\n", "0 passed, 0 failed, 0 skipped\n",
                   "All tests passed (5 assertions in 2 test cases)\n", "a program that counts nothing\n"]
        log.write_text("".join(json.dumps({"name": str(n), "result": "OK", "duration": 1, "stdout": output}) + "\n"
                               for n, output in enumerate(outputs)))
        lines = run("tests/tidy/count-tests", log).stdout.splitlines()
        self.assertEqual(["FAIL 0: no test ran", "FAIL 1: no test ran"], [line for line in lines if "FAIL" in line])
        self.assertEqual("3 passed, 2 failed, 0 skipped", lines[-1])

    def test_unit_case_that_says_it_was_skipped(self):
        log = self.directory / "log.json"
        output = "SKIP a case: only root may\n=====\nAll tests passed (5 assertions in 2 test cases)\n"
        log.write_text(json.dumps({"name": "unit", "result": "OK", "duration": 1, "stdout": output}) + "\n")
        lines = run("tests/tidy/count-tests", log).stdout.splitlines()
        self.assertIn("SKIP a case: only root may", lines)
        self.assertEqual("1 passed, 0 failed, 1 skipped", lines[-1])


class RedisSuite(unittest.TestCase):
    def setUp(self):
        loader = importlib.machinery.SourceFileLoader("redis_suite", str(ROOT / "tools/redis-suite"))
        self.suite = importlib.util.module_from_spec(importlib.util.spec_from_loader("redis_suite", loader))
        loader.exec_module(self.suite)
        self.ports = queue.SimpleQueue()
        self.ports.put(1)

    def compare(self, ours, plain, expected):
        """Of two runs, each its results and whether it came to its end: (passed, failed, lines that say FAIL)."""
        self.suite.run_with = lambda kind, *_: ours if kind == "dbos-run" else plain
        passed, failed, _, lines = self.suite.compare(None, "unit", [], expected, self.ports)
        return passed, failed, [line for line in lines if line.startswith("FAIL")]

    def test_all_pass(self):
        self.assertEqual((2, 0, []), self.compare(({"a": "ok", "b": "ok"}, True), None, 2))

    def test_one_that_fails_on_plain_too(self):
        both = {"a": "ok", "b": "err"}, True
        self.assertEqual((1, 0, []), self.compare(both, both, 2))

    def test_both_hang(self):
        both = {"a": "ok"}, False
        self.assertEqual((1, 2, ["FAIL unit: does not come to its end under dbos-run",
                                 "FAIL unit: does not come to its end with plain redis-server"]),
                         self.compare(both, both, 2))

    def test_one_is_missing_on_both_sides(self):
        both = {"a": "ok"}, True
        self.assertEqual((1, 1, ["FAIL unit: 1 of 2 tests ran with plain redis-server"]), self.compare(both, both, 2))
        self.assertEqual((1, 0, []), self.compare(both, both, None))


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    for test, why in result.skipped:
        print(f"SKIP {test.id()}: {why}")
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad - len(result.skipped)} passed, {bad} failed, {len(result.skipped)} skipped")
    sys.exit(bad != 0)
