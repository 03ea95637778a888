"""Rounds in turns, medians, and lines of bench.jsonl."""
import json
import os
import platform
import statistics
import time


def machine():
    """Such as "AMD EPYC 7763 x 2"."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        models = [line.split(": ", 1)[1].strip() for line in info if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()} x {os.cpu_count()}"


def machine_ticks():
    """(all, idle, stolen) CPU of this machine. Unit: seconds"""
    with open("/proc/stat", encoding="utf-8") as stat:
        ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in stat.readline().split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4], ticks[7]


class Interval:
    """CPU over a `with` block: `cpu[pid]`, and `noise`, the share of the machine that was stolen
    or went to other processes than `pids`."""

    def __init__(self, pids, cpu_seconds):
        self._pids, self._cpu_seconds = pids, cpu_seconds
        self.cpu, self.noise, self.seconds = {}, 0, 0

    def _now(self):
        return time.perf_counter(), machine_ticks(), {p: self._cpu_seconds(p) for p in self._pids}

    def __enter__(self):
        self._begin = self._now()
        return self

    def __exit__(self, *_):
        (t0, machine0, cpu0), (t1, machine1, cpu1) = self._begin, self._now()
        total, idle, _ = (after - before for before, after in zip(machine0, machine1))
        self.seconds = t1 - t0
        self.cpu = {pid: cpu1[pid] - cpu0[pid] for pid in self._pids}
        if total > 0:
            self.noise = max(0, (total - idle - sum(self.cpu.values())) / total)


class Rounds:
    """How often everything is measured.  A round that others disturbed is tried again."""

    def __init__(self, rounds, repeats, max_noise):
        self._rounds, self._repeats, self._max_noise = rounds, repeats, max_noise

    def _take(self, measure):
        tried = [measure()]
        while tried[-1].get("noise", 0) > self._max_noise and len(tried) <= self._repeats:
            tried.append(measure())
        return min(tried, key=lambda result: result.get("noise", 0))

    def in_turns(self, measures):
        """{name: results of measure()} for {name: measure}, each once a round, one by one."""
        results = {name: [] for name in measures}
        for _ in range(self._rounds):
            for name, measure in measures.items():
                results[name].append(self._take(measure))
        return results


class Lines:
    """Prints lines of bench.jsonl: medians, with the least and the most of the rounds."""

    def __init__(self, area="replay"):
        self._area = area
        self._machine = machine()

    def write(self, name, case, unit, results, key, peer=None, peer_results=(), peer_key=None,
              **more):
        values = [result[key] for result in results]
        line = {"name": f"{self._area}.{name}", "case": case, "value": statistics.median(values),
                "unit": unit, "min": min(values), "max": max(values), "rounds": len(values),
                "noise": round(statistics.median(r.get("noise", 0) for r in results), 3), **more}
        if peer_results:
            peer_values = [result[peer_key or key] for result in peer_results]
            line.update(peer=peer, peer_value=statistics.median(peer_values),
                        peer_min=min(peer_values), peer_max=max(peer_values))
        line["machine"] = self._machine
        print(json.dumps(line), flush=True)
