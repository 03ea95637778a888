"""Rates over the number of rows and of clients: growth.json and growth.png."""
import json
import statistics

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

KEYS = ("rows_per_second", "windows_per_second", "server_us_per_row", "server_us_per_window",
        "ack_p50_ms", "ack_p99_ms", "request_p50_ms", "request_p99_ms")
# Over all clients together, so that a shard's budget is not what is measured.
UNACKED_BYTES = 32 << 20
MESSAGE_BYTES = 65536
REQUESTS_IN_FLIGHT = 32


def medians(results):
    return {key: statistics.median(result[key] for result in results)
            for key in KEYS if key in results[0]}


def measure(bench, shard, point, clients):
    """A line of the table for appending, and one for sampling."""
    measures = {
        "append": lambda: bench.load(
            shard, "append", clients=clients,
            window_bytes=max(2 * MESSAGE_BYTES, min(4 << 20, UNACKED_BYTES // clients))),
        "sample": lambda: bench.load(shard, "sample", clients=clients, in_flight=max(
            1, min(16, REQUESTS_IN_FLIGHT // clients)))}
    return [{**point, "clients": clients, "what": what, **medians(results)}
            for what, results in bench.rounds.in_turns(measures).items()]


def plot(table, path):
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.5), constrained_layout=True)
    panels = ((axes[0, 0], "rows", "append", "rows_per_second", "million rows/s", 1e6),
              (axes[0, 1], "rows", "sample", "windows_per_second", "million windows/s", 1e6),
              (axes[1, 0], "rows", "sample", "server_us_per_window", "server CPU, us/window", 1),
              (axes[1, 1], "clients", "both", None, "million/s", 1e6))
    for axis, x, what, key, label, unit in panels:
        lines = [(what, key)] if key else [("append", "rows_per_second"),
                                           ("sample", "windows_per_second")]
        for selector in ("uniform", "prioritized"):
            for line, line_key in lines:
                points = [p for p in table if p["over"] == x and p["what"] == line and
                          p["selector"] == selector]
                if points:
                    axis.plot([p[x] for p in points], [p[line_key] / unit for p in points], "o-",
                              label=f"{line}, {selector}")
        axis.set(xscale="log", xlabel=f"{x}", ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle("One shard, HalfCheetah rows of 112 bytes, windows of 2 rows, batches of 256")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def growth(bench):
    table = []
    for selector in ("uniform", "prioritized"):
        for rows in (bench.rows // 100, bench.rows // 10, bench.rows, 10 * bench.rows):
            point = {"over": "rows", "selector": selector, "rows": rows}
            with bench.shard(tables__capacity_rows=rows,
                             tables__selector=selector.upper()) as shard:
                shard.load("fill", rows=rows, row_priorities=True)
                table += measure(bench, shard, point, 1)
    with bench.shard() as shard:
        shard.fill(bench.rows)
        for clients in (1, 10, 100, 500):
            point = {"over": "clients", "selector": "uniform", "rows": bench.rows}
            table += measure(bench, shard, point, clients)
    (bench.out / "growth.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    plot(table, bench.out / "growth.png")
    for selector in ("uniform", "prioritized"):
        costs = [p["server_us_per_window"] for p in table
                 if p["over"] == "rows" and p["what"] == "sample" and p["selector"] == selector]
        bench.lines.write("growth_cpu", f"{selector}/{bench.rows // 100}_to_{10 * bench.rows}_rows",
                          "x", [{"x": costs[-1] / costs[0]}], "x", us_per_window=costs)
