#!/usr/bin/env python3
"""The tools leave nothing behind however they end, and refuse before they do harm."""

import importlib.machinery
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[3]
PATIENCE_S = 60
COUNTS = "0 passed, 1 failed, 0 skipped"


def await_that(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited too long")
        time.sleep(0.05)


class Tools(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.programs = self.directory / "bin"
        self.programs.mkdir()

    def script(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def fake(self, name, text):
        """A program that is found before the host's."""
        self.script(self.programs / name, f"#!/bin/sh\n{text}\n")

    def run_with_fakes(self, *command, **environment):
        path = f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
                              env={**os.environ, "PATH": path, **environment})


class InstallPackages(Tools):
    def setUp(self):
        super().setUp()
        # As root on a Debian of its own.
        text = (ROOT / "tools/install-packages").read_text()
        for name, ours in (("/usr/sbin/policy-rc.d", f"{self.directory}/policy-rc.d"),
                           ("/etc/", f"{self.directory}/etc/"), ("EUID", "0")):
            text = text.replace(name, ours)
        self.tool = self.directory / "install-packages"
        self.script(self.tool, text)
        self.policy = self.directory / "policy-rc.d"
        self.units = self.directory / "etc/systemd/system"
        self.wanted = self.units / "multi-user.target.wants"
        self.scripts = self.directory / "etc/rc2.d"
        for folder in (self.wanted, self.scripts):
            folder.mkdir(parents=True)
        self.fake("dpkg-query", 'case $* in *Package*) echo "ii  old";; *Abbrev*) echo "${ABBREVIATION:-un }";; '
                  '*old*) echo "old: $2";; *) echo "new: $2";; esac')

    def test_new_services_stay_off_and_old_ones_as_they_were(self):
        self.fake("apt-get", f"""case $* in *install*)
            {self.policy}; echo $? >{self.directory}/answer
            for unit in new old; do ln -s /lib/systemd/system/$unit.service {self.wanted}; done
            ln -s /lib/systemd/system/new.service {self.units}/alias.service
            ln -s ../init.d/new {self.scripts}/S01new
            esac""")
        self.fake("update-rc.d", f'echo "$@" >>{self.directory}/calls; mv {self.scripts}/S01new {self.scripts}/K01new')
        (self.wanted / "before.service").symlink_to("/lib/systemd/system/before.service")
        result = self.run_with_fakes(self.tool, "--build")
        self.assertEqual((0, ""), (result.returncode, result.stderr))
        self.assertEqual("101\n", (self.directory / "answer").read_text())
        self.assertEqual("new disable\n", (self.directory / "calls").read_text())
        self.assertEqual(["before.service", "old.service"], sorted(os.listdir(self.wanted)))
        self.assertEqual((["multi-user.target.wants"], ["K01new"]),
                         (os.listdir(self.units), os.listdir(self.scripts)))
        self.assertFalse(self.policy.exists())

    def test_a_policy_that_was_left_over_is_removed_and_another_ones_is_not(self):
        mark = next(line for line in self.tool.read_text().splitlines() if line.startswith("readonly MARK="))
        mark = mark.split("'")[1]
        for text, stays in ((f"#!/bin/sh\n{mark}\nexit 101\n", False), ("#!/bin/sh\nexit 101\n", True)):
            self.policy.write_text(text)
            result = self.run_with_fakes(self.tool, ABBREVIATION="ii ")
            self.assertEqual((0, stays), (result.returncode, self.policy.exists()))

    def test_to_build_takes_no_server(self):
        listed = self.run_with_fakes(self.tool, "--build", "--list").stdout.split()
        self.assertTrue({"g++", "catch2"} <= set(listed) and not {"redis-server", "qemu-system-x86"} & set(listed))


class Demo(Tools):
    def test_options_are_refused_while_old_results_are_there(self):
        # With this PATH it can't come further than to its packages.
        (self.programs / "readlink").symlink_to(shutil.which("readlink"))
        for words in (["--memory", "4X"], ["--memory", "100M"], ["--timeout", "soon"], ["--results", "other"]):
            result = subprocess.run([ROOT / "tools/demo", *words], capture_output=True, text=True, check=False,
                                    env={"PATH": str(self.programs)})
            self.assertEqual((2, "", 1), (result.returncode, result.stdout, result.stderr.count("\n")))
            self.assertIn(words[0], result.stderr)

    def test_terminated_it_leaves_no_server_and_no_files(self):
        started, scratch = self.directory / "started", self.directory / "scratch"
        scratch.mkdir()
        self.fake("redis-server", f"sleep 300 &\necho $! >{started}.new; mv {started}.new {started}; wait")
        demo = subprocess.Popen(
            [ROOT / "tools/demo-inside", "--dbos-run", "/bin/true", "--only", "plain", "--latency-program", "/bin/true",
             "--results", self.directory], stdout=subprocess.DEVNULL,
            env={**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "TMPDIR": str(scratch)})
        await_that(started.exists)
        demo.terminate()
        self.assertEqual(143, demo.wait(PATIENCE_S))
        status = pathlib.Path(f"/proc/{started.read_text().strip()}/status")
        await_that(lambda: not status.exists() or "State:\tZ" in status.read_text())
        self.assertEqual([], os.listdir(scratch))


class Check(Tools):
    """A copy of tools/check, in a tree that has nothing else."""

    def setUp(self):
        super().setUp()
        self.tree = self.directory / "tree"
        (self.tree / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools/check", self.tree / "tools")
        self.install = self.tree / "tools/install-packages"

    def check(self, *words):
        return self.run_with_fakes(self.tree / "tools/check", *words)

    def test_without_packages_or_a_build_the_last_line_is_the_sum_too(self):
        self.script(self.install, "#!/bin/sh\nexit 1\n")
        result = self.check("--quick")
        self.assertEqual((2, COUNTS), (result.returncode, result.stdout.splitlines()[-1]))
        self.script(self.install, "#!/bin/sh\n")
        self.fake("meson", "exit 1")
        result = self.check("--quick")
        self.assertEqual((2, COUNTS), (result.returncode, result.stdout.splitlines()[-1]))
        self.assertIn("the build failed", result.stderr)

    def test_a_suite_and_the_quick_ones(self):
        self.script(self.install, "#!/bin/sh\n")
        self.fake("meson", "")
        self.fake("ninja", "")
        result = self.check("--suite", "clang-tidy", "--quick")
        lines = result.stdout.splitlines()
        self.assertEqual(1, result.returncode)
        for name in ("clang-tidy", "style"):
            self.assertTrue(any(line.startswith(name) and "passed" in line for line in lines), name)


DEB822 = """\
Types: deb
# what it was
URIs: https://mirror.example/debian/
Suites: bookworm
 bookworm-updates
Components: main

Types: deb deb-src
URIs: https://mirror.example/updates-security
Suites: bookworm-security
Components: main contrib

Types: deb
Enabled: no
URIs: https://off.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://comment.example/debian bookworm main
deb [arch=amd64] https://others.example/apt bookworm main
deb cdrom:[Debian]/ bookworm main
deb http://one.example/debian bookworm main contrib # and no more
"""


class RedisSuite(Tools):
    def setUp(self):
        super().setUp()
        loader = importlib.machinery.SourceFileLoader("redis_suite", str(ROOT / "tools/redis-suite"))
        self.suite = importlib.util.module_from_spec(importlib.util.spec_from_loader("redis_suite", loader))
        loader.exec_module(self.suite)

    def archives(self, file, text, chosen="", path=os.environ["PATH"]):
        """What the tool makes of a host whose apt has this file of sources, and downloaded nothing."""
        parts = self.directory / "sources.list.d"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        (parts / file).write_text(text)
        configuration = self.directory / "apt.conf"
        configuration.write_text(f'Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "{parts}";\n'
                                 f'Dir::State::lists "{self.directory}"; Dir::Cache "{self.directory}";\n')
        with unittest.mock.patch.dict(os.environ, APT_CONFIG=str(configuration), PATH=path):
            return self.suite.archives(chosen)

    def test_the_mirror_is_the_hosts(self):
        self.assertEqual(("https://mirror.example/debian", "https://mirror.example/updates-security"),
                         self.archives("a.sources", DEB822))
        one_line = ("http://one.example/debian", "http://one.example/debian-security")
        self.assertEqual(one_line, self.archives("a.list", ONE_LINE))
        self.assertEqual(("http://mine/debian", "http://mine/debian-security"),
                         self.archives("a.list", ONE_LINE, "http://mine/debian/"))
        default = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
        self.assertEqual(default, self.archives("a.list", ""))
        self.assertEqual(default, self.archives("a.list", ONE_LINE, path=str(self.programs)))

    def test_it_becomes_the_machine(self):
        """Whoever ends it ends the machine; each job has memory there."""
        tree = self.directory / "tree"
        test_helper = tree / "build/redis-suite/source/tests/test_helper.tcl"
        test_helper.parent.mkdir(parents=True)
        test_helper.write_text("set ::all_tests {\n    unit/one\n    unit/two\n}\n")
        self.script(tree / "build/tools/dbos-run", "#!/bin/sh\n")
        self.script(tree / "tools/dbos-vm", '#!/bin/sh\necho $$ $(readlink /proc/$$/fd/0) "$@"\n'
                    'grep SigIgn /proc/self/status\nexec sleep 300\n')
        shutil.copy(ROOT / "tools/redis-suite", tree / "tools")
        self.fake("tclsh", "")
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        with subprocess.Popen([tree / "tools/redis-suite", "--jobs", "3", "--all"], stdout=subprocess.PIPE,
                              text=True, env=environment) as suite:
            told, ignored = suite.stdout.readline().split(), suite.stdout.readline().split()
            suite.terminate()
        self.assertEqual([str(suite.pid), "/dev/null", "run", "--timeout", "7200", "--memory", "8G"], told[:7])
        self.assertEqual(["--jobs", "3", "unit/one", "unit/two"], told[-4:])
        self.assertEqual(0, int(ignored[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1))
        self.assertEqual(-signal.SIGTERM, suite.returncode)

    def scratch_after(self, work):
        """How a process ended in which `work` runs with a scratch directory, which must be gone."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, self.suite.end)

            def told():
                os.write(writer, str(self.suite.SCRATCH).encode())
                (self.suite.SCRATCH / "tree").mkdir()
                work()
            try:
                self.suite.in_scratch(told)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writer)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(reader, encoding="utf-8") as pipe:
            scratch = pathlib.Path(pipe.read())
        self.assertTrue(scratch.is_absolute() and not scratch.exists(), scratch)
        return status

    def test_its_trees_are_gone_with_it(self):
        self.assertEqual(0, self.scratch_after(lambda: None))
        self.assertEqual(143, self.scratch_after(lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(10)))


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed, 0 skipped")
    sys.exit(bad != 0)
