"""Holds what a run left behind to what it promised.  Pure functions of files already read."""

import json
import re


def parse_lines(text):
    """The JSON lines of a file whose last line kill -9 may have torn."""
    whole = text[:text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines() if line]


def merge_ledgers(texts):
    """(shard, stream) -> rows acked, by all ledgers of all incarnations of all actors."""
    acked = {}
    for text in texts:
        for line in parse_lines(text):
            key = line["shard"], line["stream"]
            acked[key] = max(acked.get(key, 0), line["acked"])
    return acked


def parse_row_log(text):
    """What troupe-row-log printed: ({stream: line}, totals)."""
    *streams, totals = [json.loads(line) for line in text.splitlines()]
    return {line["stream"]: line for line in streams}, totals


def check_rows(acked, logs):
    """`logs`: shard -> what parse_row_log returned.  Returns (numbers, violations)."""
    violations = []
    lost = 0
    for (shard, stream), rows in sorted(acked.items()):
        line = logs[shard][0].get(stream, {"first_row": 0, "rows": 0})
        missing = rows - max(0, line["first_row"] + line["rows"])
        if missing > 0:
            lost += missing
            violations.append(f"shard {shard} acked {rows} rows of stream {stream}, and holds "
                              f"{line['rows']} from row {line['first_row']}")
    for shard, (streams, totals) in sorted(logs.items()):
        for stream, line in streams.items():
            if line["first_row"] != 0 or not line["contiguous"]:
                violations.append(f"shard {shard}: stream {stream} is not whole: {line}")
        for name in ("corrupt_blocks", "duplicates", "repeated_rows"):
            if totals[name]:
                violations.append(f"shard {shard}: {name} = {totals[name]}")
        if totals["counted_env_steps"] != totals["env_steps"]:
            violations.append(f"shard {shard} counts {totals['counted_env_steps']} env steps, and "
                              f"holds {totals['env_steps']}")
    violations += streams_on_two_shards(logs)
    numbers = {"streams": total(logs, "streams"), "rows_stored": total(logs, "rows"),
               "env_steps": total(logs, "env_steps"), "rows_acked": sum(acked.values()),
               "rows_lost": lost,
               "rows_twice": total(logs, "duplicates") + total(logs, "repeated_rows"),
               "corrupt_blocks": total(logs, "corrupt_blocks")}
    return numbers, violations


def total(logs, name):
    return sum(totals[name] for _, totals in logs.values())


def streams_on_two_shards(logs):
    home = {}
    violations = []
    for shard, (streams, _) in sorted(logs.items()):
        for stream in streams:
            if home.setdefault(stream, shard) != shard:
                violations.append(f"stream {stream} is on shards {home[stream]} and {shard}")
    return violations


def resumed_updates(log_text):
    """The updates that a life of the learner went on from; None if it died before it said so."""
    found = re.search(r"resumed \S+ at (\d+) updates", log_text)
    if found:
        return int(found[1])
    return 0 if re.search(r"learning \S+ on \S+: 0 of", log_text) else None


def check_learner(lines, lives, checkpoint_interval):
    """`lines`: learner.jsonl.  `lives`: for each life (updates of the newest checkpoint when it
    began, what resumed_updates() says of it)."""
    violations = []
    for i, (checkpoint, resumed) in enumerate(lives):
        if resumed is not None and resumed != checkpoint:
            violations.append(f"life {i} of the learner went on from {resumed} updates; the newest "
                              f"checkpoint was of {checkpoint}")
    for before, line in zip(lines, lines[1:]):
        new_life = line["policy_version"] >> 40 > before["policy_version"] >> 40
        kept = before["updates"] - (checkpoint_interval if new_life else 0)
        if line["updates"] < kept:
            violations.append(f"learner: {line['updates']} updates after {before['updates']}, more "
                              f"than a checkpoint's interval of {checkpoint_interval} back")
        if line["policy_version"] < before["policy_version"]:
            violations.append(f"learner: version {line['policy_version']} after "
                              f"{before['policy_version']}")
    if not lines or not lines[-1].get("done"):
        violations.append("learner: did not say at the end that it is done")
    elif lines[-1]["updates"] < max(line["updates"] for line in lines):
        violations.append("learner: ended with fewer updates than it had had")
    return violations
