"""Which alerts each fault fires, and no others: deploy/prometheus/rules.yml in promtool.

A fault is a change to the series of a healthy cluster of 2 shards, a learner of 2 ranks, 2 actors
and an evaluator; after 30 minutes of it exactly the alerts named must be firing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
RULES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))),
                     "deploy", "prometheus", "rules.yml")
SAMPLES = 120  # of 15 s each: 30 minutes


def constant(value):
    return f"{value}x{SAMPLES}"


def growing(a_second, start=0):
    return f"{start}+{15 * a_second}x{SAMPLES}"


NOW = growing(1)  # a timestamp that is always the present one
ABSENT = None
SHARDS, LEARNER, ACTORS = ("shard-0", "shard-1"), ("learner",), ("actor-0", "actor-1")
EVALUATOR, RANK = ("evaluator",), ("rank-1",)
PROCESSES = {**dict.fromkeys(SHARDS, "shard"), **dict.fromkeys(LEARNER, "learner"),
             **dict.fromkeys(ACTORS, "actor"), **dict.fromkeys(EVALUATOR, "evaluator"),
             **dict.fromkeys(RANK, "rank")}
REFUSED, REFUSED_AT_THE_END = (f'troupe_replay_calls_refused_total{{code="{code}"}}'
                               for code in ("PERMISSION_DENIED", "UNAVAILABLE"))
OF_ALL = {"up": constant(1), "process_start_time_seconds": constant(-3600),
          "process_open_fds": constant(60), "process_max_fds": constant(1024),
          "troupe_certificate_expiry_timestamp_seconds": constant(1e9)}
# 1,000 windows of warm-up, then 20 windows/s and 20 * 256 samples/s.
HEALTHY_OF_ROLE = {
    "shard": {
        **OF_ALL, REFUSED: constant(2), REFUSED_AT_THE_END: constant(0),
        "troupe_replay_sync_failures_total": constant(3),
        "troupe_replay_snapshot_write_failures_total": constant(0),
        "troupe_replay_messages_waiting": constant(0),
        "troupe_replay_connections_refused_total": constant(700),
        "troupe_disk_free_bytes": constant(5e10), "troupe_disk_size_bytes": constant(1e11),
        "troupe_replay_rows": growing(10, 500), "troupe_replay_env_steps_total": growing(10, 500),
        "troupe_replay_windows_inserted_total": growing(10, 500),
        "troupe_replay_windows_sampled_total": growing(2560),
        "troupe_replay_samples_per_insert": constant(256),
        "troupe_replay_min_size_windows": constant(1000),
        "troupe_replay_slack_samples": constant(16896),
        "troupe_replay_writers_waiting": f"0 1 0 0 1{' 0' * SAMPLES}",
        "troupe_replay_samplers_waiting": f"0 1 1 0 1{' 0' * SAMPLES}",
        "troupe_replay_corrupt_blocks_total": constant(0)},
    "learner": {
        **OF_ALL, "troupe_learner_updates_total": growing(20),
        "troupe_learner_replica_rows_missed_total": constant(100),
        "troupe_learner_snapshots_total": growing(0.4),
        "troupe_learner_snapshot_timestamp_seconds": NOW,
        "troupe_disk_free_bytes": constant(5e10), "troupe_disk_size_bytes": constant(1e11)},
    "actor": {
        **OF_ALL, "troupe_actor_blocked_seconds_total": growing(0.2),
        "troupe_actor_rows_dropped_total": constant(64),
        # A fault every ten minutes is no reason to call anybody.
        "troupe_actor_env_crashes_total": growing(1 / 1200, 20),
        "troupe_actor_env_timeouts_total": growing(1 / 1200),
        "troupe_actor_env_invalid_total": constant(3),
        "troupe_actor_policy_version": growing(0.4)},
    # It takes the learner's updates, and publishes nothing.
    "rank": {**OF_ALL, "troupe_learner_updates_total": growing(20),
             "troupe_learner_snapshots_total": constant(0),
             "troupe_learner_snapshot_timestamp_seconds": constant(0)},
    "evaluator": {**OF_ALL, "troupe_disk_free_bytes": constant(5e10),
                  "troupe_disk_size_bytes": constant(1e11)},
}


def healthy():
    return {(name, process): values for process, role in PROCESSES.items()
            for name, values in HEALTHY_OF_ROLE[role].items()}


def changed(*changes):
    """Changes: (metric, processes, values); values None: the series has ended."""
    series = healthy()
    for name, processes, values in changes:
        for process in processes:
            assert (name, process) in series, (name, process)
            series[name, process] = values
    return series


def down(*processes):
    """They do not answer, so only `up` is known of them."""
    gone = [(name, (process,), ABSENT) for name, process in healthy()
            if process in processes and name != "up"]
    return [*gone, ("up", processes, constant(0))]


def ended(process, minutes):
    """Prometheus has not known of it for so long."""
    before = SAMPLES - 4 * minutes
    return [(name, (process,), values.replace(f"x{SAMPLES}", f"x{before} stale"))
            for (name, of), values in healthy().items() if of == process]


LEARNS_NOT = [("troupe_learner_updates_total", [*LEARNER, *RANK], constant(500)),
              ("troupe_learner_snapshots_total", LEARNER, constant(9)),
              ("troupe_learner_snapshot_timestamp_seconds", LEARNER, constant(0)),
              ("troupe_actor_policy_version", ACTORS, constant(9)),
              ("troupe_replay_windows_sampled_total", SHARDS, constant(64000))]
HELD_BACK = [("troupe_actor_blocked_seconds_total", ACTORS, growing(1)),
             ("troupe_replay_writers_waiting", SHARDS, constant(1))]
NO_ROWS = [("troupe_replay_env_steps_total", SHARDS, constant(750)),
           ("troupe_replay_windows_inserted_total", SHARDS, constant(750))]
STARVED = [("troupe_replay_samplers_waiting", SHARDS, constant(1))]
RATIO = 256  # of the healthy cluster



def restarted(each_minutes, times):
    """The start times of a process that in the end is started so often."""
    samples = [0] * (SAMPLES + 1)
    for i in range(times):
        begin = SAMPLES - 4 * each_minutes * (times - i - 1) - 2
        samples[begin:] = [15 * begin] * (SAMPLES + 1 - begin)
    return " ".join(map(str, samples))


FAULTS = {
    "nothing": ([], []),
    "a learner that is slower than the environments": (HELD_BACK, []),
    "environments that are slower than the learner": (STARVED, []),
    "a long warm-up": (
        [*STARVED, *LEARNS_NOT, ("troupe_replay_windows_sampled_total", SHARDS, constant(0)),
         ("troupe_replay_windows_inserted_total", SHARDS, growing(0.1)),
         ("troupe_replay_env_steps_total", SHARDS, growing(0.1))], []),
    "a cluster that waits for its first row": (
        [*LEARNS_NOT, ("troupe_replay_rows", SHARDS, constant(0)),
         ("troupe_replay_env_steps_total", SHARDS, constant(0)),
         ("troupe_replay_windows_inserted_total", SHARDS, constant(0)),
         ("troupe_replay_windows_sampled_total", SHARDS, constant(0))], []),
    "a shard that is gone": (down("shard-1"), ["ReplayShardDown"]),
    "a shard that is gone, and had more than its share of samples": (
        [("troupe_replay_windows_sampled_total", ["shard-0"], growing(2000)),
         ("troupe_replay_windows_sampled_total", ["shard-1"], growing(3120)),
         *down("shard-1")], ["ReplayShardDown"]),
    "all shards gone": (
        [*down(*SHARDS), *LEARNS_NOT[:-1],
         ("troupe_actor_blocked_seconds_total", ACTORS, growing(1))], ["ReplayShardDown"]),
    "a learner that is gone": (
        [*LEARNS_NOT, *NO_ROWS, *HELD_BACK, *down("learner")], ["LearnerDown"]),
    "a rank of the learner that is gone": (down("rank-1"), ["LearnerDown"]),
    "a learner that hangs": ([*LEARNS_NOT, *NO_ROWS, *HELD_BACK], ["LearnerStalled"]),
    "an actor that is gone": (down("actor-1"), ["ActorsLost"]),
    "an actor that is gone, and is no target any more": (
        ended("actor-1", minutes=2), ["ActorsLost"]),
    "all actors gone, and none is a target any more": (
        [*ended("actor-0", minutes=2), *ended("actor-1", minutes=2)], ["ActorsLost"]),
    "an actor that was scaled away long ago": (ended("actor-1", minutes=10), []),
    "all actors gone": (
        [*LEARNS_NOT, *NO_ROWS, *STARVED, *down(*ACTORS)], ["ActorsLost", "SampleStarved"]),
    "actors that hang": ([*LEARNS_NOT, *NO_ROWS, *STARVED], ["SampleStarved"]),
    "a shard that does not take what it gets": (
        [("troupe_actor_blocked_seconds_total", ["actor-1"], growing(0.98))],
        ["AppendBackpressure"]),
    "a learner that does not publish": (
        [("troupe_learner_snapshots_total", LEARNER, constant(9)),
         ("troupe_learner_snapshot_timestamp_seconds", LEARNER, constant(0)),
         ("troupe_actor_policy_version", ACTORS, constant(9))], ["SnapshotStale"]),
    "snapshots that do not reach an actor": (
        [("troupe_actor_policy_version", ["actor-1"], constant(9))], ["SnapshotStale"]),
    "a shard's disk that is nearly full": (
        [("troupe_disk_free_bytes", ["shard-1"], constant(4e9))], ["DiskNearlyFull"]),
    "the learner's disk that is nearly full": (
        [("troupe_disk_free_bytes", LEARNER, constant(4e9))], ["DiskNearlyFull"]),
    "a large disk that has room": (
        [("troupe_disk_free_bytes", SHARDS, constant(4e11)),
         ("troupe_disk_size_bytes", SHARDS, constant(1e13))], []),
    "a certificate that lasts for another week": (
        [("troupe_certificate_expiry_timestamp_seconds", ["actor-1"], constant(7 * 86400))],
        ["CertificateExpires"]),
    "a certificate that lasts for another month": (
        [("troupe_certificate_expiry_timestamp_seconds", ["actor-1"], constant(30 * 86400))], []),
    "half of the samples that are due": (
        [("troupe_replay_windows_sampled_total", SHARDS, growing(1280))],
        ["ReplayRatioOffTarget"]),
    "twice the samples that are due": (
        [("troupe_replay_windows_sampled_total", SHARDS, growing(5120))],
        ["ReplayRatioOffTarget"]),
    "shards that are sampled unevenly": (
        [("troupe_replay_windows_sampled_total", ["shard-0"], growing(1000)),
         ("troupe_replay_windows_sampled_total", ["shard-1"], growing(4120))], []),
    "a table without a ratio": (
        [("troupe_replay_samples_per_insert", SHARDS, constant(0)),
         ("troupe_replay_slack_samples", SHARDS, constant(0))], []),
    "a shard that has just found damaged blocks": (
        [("troupe_replay_corrupt_blocks_total", ["shard-1"], constant(3)),
         ("process_start_time_seconds", ["shard-1"], constant(1500))], ["RowsCorrupt"]),
    "a shard that found damaged blocks long ago": (
        [("troupe_replay_corrupt_blocks_total", ["shard-1"], constant(3))], []),
    "an evaluator that is gone": (down(*EVALUATOR), ["EvaluatorDown"]),
    "an actor that is started again and again": (
        [("process_start_time_seconds", ["actor-1"], restarted(2, 6))], ["ProcessRestarts"]),
    "an actor that was started again twice": (
        [("process_start_time_seconds", ["actor-1"], restarted(5, 2))], []),
    "a learner that is started again each hour": (
        [("process_start_time_seconds", LEARNER, restarted(25, 2))], []),
    "rows of a shard that does not come back": (
        [("troupe_actor_rows_dropped_total", ["actor-0"], growing(1))], ["RowsGivenUp"]),
    "a disk without room, with ack = DISK": (
        [("troupe_replay_sync_failures_total", ["shard-0"], growing(1))], ["AcksWithheld"]),
    "a shard that cannot write snapshots": (
        [("troupe_replay_snapshot_write_failures_total", ["shard-0"], growing(0.2))],
        ["SnapshotNotWritten"]),
    "an actor of another run that knocks": (
        [(REFUSED, ["shard-0"], growing(0.2))], ["CallsRefused"]),
    "calls that come while a shard starts": (
        [(REFUSED_AT_THE_END, ["shard-0"], growing(0.2))], []),
    "more connections than a shard takes": (
        [("troupe_replay_connections_refused_total", ["shard-0"], growing(5))],
        ["ConnectionsRefused"]),
    "replies that do not fit into the memory of messages": (
        [("troupe_replay_messages_waiting", ["shard-0"], constant(1))], ["MessageMemoryShort"]),
    "replies that now and then wait for memory": (
        [("troupe_replay_messages_waiting", ["shard-0"], "0 1 " * (SAMPLES // 2) + "1")], []),
    "descriptors that run out": (
        [("process_open_fds", ["shard-1"], constant(900))], ["TooFewDescriptors"]),
    "many descriptors that are open": (
        [("process_open_fds", ["shard-1"], constant(700))], []),
    "environments that crash every minute": (
        [("troupe_actor_env_crashes_total", ["actor-1"], growing(1 / 60))],
        ["EnvironmentsKeepFailing"]),
    "environments that fail in several ways": (
        [("troupe_actor_env_timeouts_total", ["actor-0"], growing(1 / 200)),
         ("troupe_actor_env_invalid_total", ["actor-0"], growing(1 / 200))],
        ["EnvironmentsKeepFailing"]),
    "a replica that does not keep up": (
        [("troupe_learner_replica_rows_missed_total", LEARNER, growing(3))],
        ["ReplicaMissesRows"]),
}


def labels(name, process):
    name, _, more = name.rstrip("}").partition("{")
    if name.startswith("troupe_replay_"):
        more += ',table="replay"'
    return f'{name}{{job="troupe",instance="{process}:1",process="{process}",' \
           f'role="{PROCESSES[process]}",{more.lstrip(",")}}}'


def as_promtool_test(name, changes, alerts):
    series = [{"series": labels(*key), "values": values}
              for key, values in changed(*changes).items() if values is not ABSENT]
    return {"name": name, "interval": "15s", "input_series": series,
            "promql_expr_test": [{
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "30m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}
                                for alert in alerts]}]}


class RulesTest(unittest.TestCase):
    def test_each_fault_fires_its_alerts_and_no_other(self):
        tests = {"rule_files": [RULES], "evaluation_interval": "15s",
                 "tests": [as_promtool_test(name, *fault) for name, fault in FAULTS.items()]}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(tests, file)
            file.flush()
            result = subprocess.run(["promtool", "test", "rules", file.name], text=True,
                                    capture_output=True, timeout=300, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_every_summary_says_what_is_the_case_and_what_to_do(self):
        with open(RULES, encoding="utf-8") as file:
            alerts = re.findall(r"- alert: (\w+)(.*?)(?=\n +- (?:alert|record):|\Z)", file.read(),
                                re.DOTALL)
        self.assertGreater(len(alerts), 15)
        for alert, rule in alerts:
            summary = re.sub(r"\s+", " ", rule.partition("summary: >-")[2].partition("#")[0])
            self.assertGreaterEqual(len(re.findall(r"[.?] [A-Z]", summary)), 1, alert)

    def test_every_alert_is_fired_by_some_fault(self):
        with open(RULES, encoding="utf-8") as file:
            alerts = set(re.findall(r"^ +- alert: (\w+)", file.read(), re.MULTILINE))
        self.assertEqual({alert for _, fired in FAULTS.values() for alert in fired}, alerts)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
