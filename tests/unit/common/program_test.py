"""What every program of Troupe does alike: flags, exit codes, signals, logs, metrics."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request


def run(*args, **environment):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})


class WrongUse(unittest.TestCase):
    # Words on the command line, exit code, what stderr must name.
    TABLE = [
        (["--waht=config"], 2, ["unknown flag --waht", "--what"]),
        (["--what"], 2, ["--what needs a value"]),
        (["--metrics_port=abc"], 2, ["--metrics_port=abc"]),
        (["--metrics_port=70000"], 2, ["--metrics_port=70000"]),
        (["--twice=perhaps"], 2, ["--twice=perhaps"]),
        (["stray"], 2, ["'stray' is not a flag"]),
        (["--nonsense", "--waht=x"], 2, ["--nonsense", "--waht"]),
        (["--set", "sead=3"], 2, ["nearest is seed"]),
        (["--config=/nowhere.txtpb"], 2, ["/nowhere.txtpb"]),
        (["--log_level=loud"], 2, ["--log_level=loud", "debug"]),
        (["--what=fail"], 1, ["the shard at nowhere:1 is gone"]),
        (["--what=throw"], 1, ["surprise"]),
        (["--metrics_port=0", "--metrics_port_file=/proc/x"], 1, ["/proc/x"]),
    ]

    def test_a_clear_message_and_the_right_code(self):
        for args, code, names in self.TABLE:
            with self.subTest(args=args):
                result = run(*args)
                self.assertEqual(result.returncode, code, result.stderr)
                for name in names:
                    self.assertIn(name, result.stderr)

    def test_a_metrics_port_in_use_is_an_error_or_by_option_a_warning(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            flag = f"--metrics_port={taken.getsockname()[1]}"
            error = run(flag)
            self.assertEqual(error.returncode, 1)
            self.assertIn(str(taken.getsockname()[1]), error.stderr)
            warning = run(flag, "--metrics_optional")
            self.assertEqual(warning.returncode, 0)
            self.assertIn("NO METRICS", warning.stderr)


class RightUse(unittest.TestCase):
    def test_help_lists_own_and_common_flags(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        for name in ["--what (default config)", "--set", "--metrics_port (default -1)"]:
            self.assertIn(name, result.stdout)

    def test_version(self):
        self.assertRegex(run("--version").stdout, r"^troupe-test \d+\.\d+\.\d+$")

    def test_sets_lie_on_top_of_the_file_in_their_order(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txtpb") as file:
            file.write("seed: 5 run: 'a'")
            file.flush()
            result = run("--config", file.name, "--set", "seed=6", "--set=seed=7", "--twice")
        self.assertEqual(result.stdout.count("seed: 7"), 2, result.stdout)
        self.assertIn('run: "a"', result.stdout)

    def test_the_environment_sets_flags_and_settings_below_the_command_line(self):
        result = run("--set=seed=8", TROUPE_TWICE="true", TROUPE_SET=" seed=7\n run=a ")
        self.assertEqual(result.stdout.count("seed: 8"), 2, result.stdout)
        self.assertIn('run: "a"', result.stdout)
        self.assertEqual(run("--notwice", TROUPE_TWICE="true", TROUPE_SET="").stdout.count("seed"),
                         run().stdout.count("seed"))

    def test_a_wrong_variable_is_named(self):
        result = run(TROUPE_TWICE="perhaps", TROUPE_METRICS_PORT="abc")
        self.assertEqual(result.returncode, 2)
        for name in ("TROUPE_TWICE=perhaps", "TROUPE_METRICS_PORT=abc"):
            self.assertIn(name, result.stderr)

    def test_json_logs_stay_json_whatever_they_hold(self):
        result = run("--metrics_port=0", "--log_json")
        lines = [json.loads(line) for line in result.stderr.splitlines()]
        self.assertTrue(lines)
        self.assertEqual(lines[0]["program"], "troupe-test")


class Running(unittest.TestCase):
    def start(self, *args):
        process = subprocess.Popen([PROGRAM, *args], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "waiting\n")
        return process

    def test_a_signal_is_a_request_to_stop_and_exits_0(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number):
                process = self.start("--what=wait")
                process.send_signal(number)
                out, _ = process.communicate(timeout=60)
                self.assertEqual((process.returncode, out), (0, "stopped\n"))

    def test_a_second_signal_ends_it_at_once(self):
        process = self.start("--what=hang")
        process.send_signal(signal.SIGTERM)
        self.assertIn("stopping", process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn("second signal", err)

    def start_with_metrics(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "port")
            process = self.start("--what=wait", "--metrics_port=0", f"--metrics_port_file={path}")
            with open(path) as file:
                return process, int(file.read())

    def test_health_is_an_answer_of_the_process_with_the_metrics(self):
        process, port = self.start_with_metrics()
        well = run("--health", f"--metrics_port={port}")
        self.assertEqual((well.returncode, well.stdout), (0, ""), well.stderr)
        process.send_signal(signal.SIGSTOP)
        stopped = run("--health", f"--metrics_port={port}")
        self.assertEqual(stopped.returncode, 1)
        self.assertIn(f"127.0.0.1:{port}", stopped.stderr)
        process.kill()
        process.wait()
        gone = run("--health", f"--metrics_port={port}")
        self.assertEqual(gone.returncode, 1)
        self.assertIn("Connection refused", gone.stderr)

    def test_metrics_are_served_on_the_port_in_the_file(self):
        _, port = self.start_with_metrics()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            self.assertIn('program="troupe-test"', answer.read().decode())

    def test_metrics_can_be_read_and_nothing_else(self):
        _, port = self.start_with_metrics()
        url = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            names = re.findall(rb"^\w+", answer.read(), re.MULTILINE)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            for path, body in (("/metrics", b"troupe_build_info 2"), ("/-/quit", None)):
                with self.subTest(method=method, path=path):
                    request = urllib.request.Request(url + path, data=body, method=method)
                    with self.assertRaises(urllib.error.HTTPError) as refused:
                        urllib.request.urlopen(request, timeout=60)
                    self.assertEqual(refused.exception.code, 405)
                    self.assertEqual(refused.exception.headers["Allow"], "GET")
                    refused.exception.close()
        for path in ("/", "/-/quit", "/debug/pprof", "/../metrics"):
            with self.subTest(path=path), self.assertRaises(urllib.error.HTTPError) as absent:
                urllib.request.urlopen(url + path, timeout=60)
            self.assertEqual(absent.exception.code, 404)
            absent.exception.close()
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            self.assertEqual(re.findall(rb"^\w+", answer.read(), re.MULTILINE), names)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
