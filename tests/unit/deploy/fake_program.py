#!/usr/bin/python3
"""Stands in for troupe-replay-server, troupe-learner and troupe-actor, by the name it is called.

It behaves like them towards deploy/up: flags, files, metrics, signals, exit codes; it learns
nothing.  FAKE_FAIL names a program that fails at once, FAKE_HOLD lets the learner go on for ever,
FAKE_ROW_LOG_BYTES is what a shard needs.
"""

import http.server
import json
import os
import re
import signal
import sys
import threading

NAME = os.path.basename(sys.argv[0])
FLAGS = [flag.lstrip("-").partition("=") for flag in sys.argv[1:]]
VALUES = {name: value for name, _, value in FLAGS}
SETS = dict(value.split("=", 1) for name, _, value in FLAGS if name == "set")
STOP = threading.Event()


class Metrics(http.server.BaseHTTPRequestHandler):
    TEXT = (b"troupe_replay_rows_appended_total{table=\"replay\"} 60\n"
            b"troupe_replay_version_lag_sum_total 30\ntroupe_replay_version_lag_rows_total 10\n"
            b"troupe_actor_rows_appended_total 50\ntroupe_actor_rows_acked_total 40\n")

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.TEXT)

    def log_message(self, *unused):
        pass


def serve_metrics():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write(VALUES["metrics_port_file"], str(server.server_port))


def write(path, text):
    with open(path + ".tmp", "w") as file:
        file.write(text)
    os.replace(path + ".tmp", path)


def print_config():
    text = open(VALUES["config"]).read()
    if "wrong" in text:
        print(f"{NAME}: wrong configuration:\n  {VALUES['config']}:1: wrong", file=sys.stderr)
        sys.exit(2)
    total = SETS.get("total_env_steps") or re.search(r"total_env_steps: (\d+)", text)[1]
    environment = SETS.get("environment.id") or re.search(r'id: "(.*)"', text)[1]
    print(f'run: "fake"\ntotal_env_steps: {total}\nenvironment {{\n  id: "{environment}"\n}}')
    for shard in SETS["shards"].split(","):
        print(f'shards: "{shard}"')


def learn():
    path = os.path.join(VALUES["run_dir"], "learner.jsonl")
    final = os.path.join(VALUES["run_dir"], "final")
    total = int(re.search(r"total_env_steps: (\d+)", open(VALUES["config"]).read())[1])
    for steps in range(0, total + 1, max(1, total // 10)):
        with open(path, "a") as log:
            log.write(json.dumps({"env_steps": steps, "updates": steps // 2,
                                  "policy_version": steps + 1, "updates_per_second": 7.5}) + "\n")
        if STOP.wait(0.05):
            return
    if os.environ.get("FAKE_HOLD"):
        STOP.wait()
    else:
        write(final, "")


def act():
    folder = VALUES["output_dir"]
    final = os.path.join(os.path.dirname(folder), "final")
    while not os.path.exists(final) and not STOP.wait(0.02):
        pass
    if "evaluate" in VALUES:
        with open(os.path.join(folder, "evaluations.jsonl"), "a") as log:
            log.write(json.dumps({"env_steps": 100, "return_mean": 5.5, "return_std": 0.5,
                                  "episodes": 10}) + "\n")
    else:
        write(os.path.join(folder, f"actor-{VALUES['actor_index']}.json"),
              json.dumps({"rows_appended": 60, "rows_acked": 60, "rows_dropped": 0}))


def main():
    if "print_config" in VALUES:
        return print_config()
    if "print_row_log_bytes" in VALUES:
        return print(os.environ.get("FAKE_ROW_LOG_BYTES", 1 << 20))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *unused: STOP.set())
    if os.environ.get("FAKE_FAIL") == NAME:
        print(f"{NAME}: the sky has fallen", flush=True)
        sys.exit(2)
    serve_metrics()
    if NAME == "troupe-learner":
        learn()
    elif NAME == "troupe-actor":
        act()
    else:
        STOP.wait()


main()
