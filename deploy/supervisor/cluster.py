"""The processes of one run: start, watch, stop in order, report."""

import json
import os
import signal
import time

import ports
import report
from child import Child
from errors import Failure
from metrics import Metrics
from observe import Observer
from prometheus import Prometheus
from run_directory import environment_id, learner_ranks, total_env_steps
from status import Display, Status

TICK_SECONDS = 0.2
SAVE_SECONDS = 10.0
# How long each kind may take after SIGTERM; the learner writes a checkpoint, shards drain.
STOP_SECONDS = {"actor": 15, "learner": 120, "rank": 15, "evaluator": 15, "shard": 30, "prometheus": 15}
# How long the evaluator and the actors may take to follow when the learner is done.
FOLLOW_SECONDS = 900
PROMETHEUS_PORT = 9090


class Cluster:
    """Runs until the step budget is reached, a stop is requested, or a process is hopeless."""

    def __init__(self, args, directory, stop):
        self._directory = directory
        self._stop = stop
        self._bin = os.path.join(args.build_dir, "bin")
        state = directory.state
        state["shard_ports"] = ports.choose(len(state["shard_ports"]) or args.shards,
                                            state["shard_ports"])
        shards = [f"127.0.0.1:{port}" for port in state["shard_ports"]]
        config = directory.prepare_config(shards)
        directory.check_room_for_rows(len(shards))
        self._environment = environment_id(config)
        self._children = {}
        for i, address in enumerate(shards):
            self._add(f"shard-{i}", "troupe-replay-server", f"--listen={address}",
                      f"--shard_index={i}", f"--data_dir={directory.file(f'shard-{i}')}")
        self._add_learners(learner_ranks(config))
        for i in range(args.actors):
            self._add(f"actor-{i}", "troupe-actor", f"--actor_index={i}",
                      f"--output_dir={directory.file('actors')}")
        self._add("evaluator", "troupe-actor", "--evaluate",
                  f"--output_dir={directory.file('evaluator')}")
        self._observer = Observer({name: self._port_file(name) for name in self._children})
        self._status = Status(directory, self._observer, self._names("shard"),
                              total_env_steps(config))
        self._display = Display(self._status)
        self._prometheus = None if args.no_prometheus else self._make_prometheus()
        self._metrics = Metrics(lambda: list(self._children.values()))
        self._began = self._saved = time.monotonic()

    def run(self):
        """Returns the exit code."""
        try:
            self._directory.save_state()
            self._announce()
            for child in self._children.values():
                child.start()
            if self._watch():
                self._follow()
        finally:
            self._shut_down()
        summary = report.summarize(self._status, self._directory.state)
        report.write_summary(self._directory, summary)
        self._draw_curve(summary)
        return 0

    # Making the processes.

    def _add(self, name, program, *flags):
        path = self._port_file(name)
        if os.path.exists(path):
            os.remove(path)  # of the last start
        command = [os.path.join(self._bin, program), f"--config={self._directory.config_path}",
                   "--metrics_port=0", f"--metrics_port_file={path}", "--metrics_optional", *flags]
        self._children[name] = Child(name, command, self._log_path(name))

    def _add_learners(self, ranks):
        run_dir = f"--run_dir={self._directory.path}"
        together = ([f"--set=learner.rendezvous=127.0.0.1:{ports.choose(1)[0]}"] if ranks > 1
                    else [])
        self._add("learner", "troupe-learner", run_dir, *together)
        for rank in range(1, ranks):
            self._add(f"rank-{rank}", "troupe-learner", run_dir, f"--rank={rank}", *together)

    def _make_prometheus(self):
        if not Prometheus.available():
            self._display.say("deploy/up: NO PROMETHEUS: the program is not installed "
                              "(apt-get install prometheus, or --no-prometheus)")
            return None
        server = Prometheus(self._directory, ports.choose(1, [PROMETHEUS_PORT])[0])
        self._children["prometheus"] = Child("prometheus", server.command(),
                                             self._log_path("prometheus"))
        return server

    def _port_file(self, name):
        return self._directory.file("ports", name)

    def _log_path(self, name):
        return self._directory.file("logs", f"{name}.log")

    def _names(self, kind):
        return [name for name in self._children if name.rsplit("-", 1)[0] == kind]

    def _announce(self):
        path = self._directory.path
        self._display.say(f"deploy/up: {self._environment} in {path}; logs in {path}/logs")
        if self._prometheus:
            self._announce_boards()

    def _announce_boards(self):
        self._display.say(f"deploy/up: boards at {self._prometheus.boards()}")

    # Watching them.

    def _watch(self):
        """True when the learner has finished, False when a stop was requested."""
        while not self._stop:
            for child in list(self._children.values()):
                if child.poll():
                    self._on_end(child)
                    if child.name == "learner" and self._learner_finished(child):
                        return True
                if not (child.name in self._names("rank") and child.exit_code == 0):
                    child.restart_if_due()
            self._tick()
        return False

    def _follow(self):
        """Lets the last snapshot reach the evaluator and the actors, which then end by themselves.

        The learner has gone for good, so nothing but shards is started again.
        """
        deadline = time.monotonic() + FOLLOW_SECONDS
        waiting = [self._children[name] for name in [*self._names("actor"), "evaluator"]]
        while not self._stop and time.monotonic() < deadline:
            for child in list(self._children.values()):
                if child.poll():
                    self._on_end(child)
                if child not in waiting and child.name not in ["learner", *self._names("rank")]:
                    child.restart_if_due()
            for child in waiting:
                if not child.running and child.exit_code != 0:
                    child.restart_if_due()
            if not any(child.running or child.exit_code != 0 for child in waiting):
                return
            self._tick()

    def _learner_finished(self, child):
        """A learner that was told to stop by someone else also ends well, but is not finished."""
        return (child.exit_code == 0 and
                self._status.learner().get("env_steps", 0) >= self._status.total_steps)

    def _on_end(self, child):
        if child.name in self._names("actor"):
            self._count_actor(child)
        if child.exit_code == 0:
            return
        self._display.say(f"deploy/up: {child.name} {child.how_it_ended()}, starting it again")
        if child.name == "prometheus" and child.hopeless:
            self._display.say("deploy/up: NO PROMETHEUS: " + child.last_words(1).strip())
            del self._children["prometheus"]
            self._prometheus = None
        elif child.name == "prometheus" and not ports.is_free(self._prometheus.port):
            self._prometheus.port = ports.choose(1)[0]  # somebody was faster
            child.command = self._prometheus.command()
            self._announce_boards()
        elif child.hopeless:
            raise Failure(f"{child.name} {child.how_it_ended()}; the last lines of "
                          f"{child.log_path}:\n{child.last_words()}")

    def _count_actor(self, child):
        """Adds what this life of an actor has counted, from its file, or if it was killed from
        its last metrics."""
        totals = self._directory.state["actors"]
        path = self._directory.file("actors", f"{child.name}.json")
        try:
            with open(path, encoding="utf-8") as file:
                counts = json.load(file)
            os.remove(path)
        except (FileNotFoundError, ValueError):
            values = self._observer.latest(child.name)
            counts = {name: int(values.get(f"troupe_actor_{name}_total", 0))
                      for name in ("rows_appended", "rows_acked", "rows_dropped")}
            totals["killed"] = totals.get("killed", 0) + 1
        for name in ("rows_appended", "rows_acked", "rows_dropped"):
            totals[name] = totals.get(name, 0) + counts.get(name, 0)
        self._observer.forget(child.name)

    def _tick(self):
        self._display.refresh()
        if self._prometheus:
            self._prometheus.follow({**self._observer.ports(), "supervisor": self._metrics.port})
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()
        time.sleep(TICK_SECONDS)

    def _save(self):
        now = time.monotonic()
        self._directory.state["wall_seconds"] += now - self._saved
        self._saved = now
        self._directory.save_state()

    # Stopping them.

    def _shut_down(self):
        """Actors first, so that the shards hold all their rows; shards late, so that the learner
        can leave its last snapshot there."""
        if self._stop:
            self._display.say("deploy/up: stopping actors, learner, evaluator, shards")
        for kind in ("actor", "learner", "rank", "evaluator"):
            self._stop_kind(kind)
        self._observer.stop()
        self._observer.observe()  # the shards' last word
        for kind in ("shard", "prometheus"):
            self._stop_kind(kind)
        self._metrics.stop()
        self._save()
        self._display.close()

    def _stop_kind(self, kind):
        children = [self._children[name] for name in self._names(kind)]
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS[kind]
        while any(child.running for child in children):
            for child in children:
                if child.poll() and kind == "actor":
                    self._count_actor(child)
            if self._stop.hard or time.monotonic() > deadline:
                self._kill(children)
            time.sleep(0.02)

    def _kill(self, children):
        for child in children:
            if child.running:
                self._display.say(f"deploy/up: {child.name} did not stop in time, killing it")
                child.kill()

    def _draw_curve(self, summary):
        if not self._status.evaluation():
            return
        problem = report.draw_curve(self._directory, self._environment)
        if problem:
            print(f"deploy/up: no learning_curve.png: {problem}")
        print(f"deploy/up: {summary['env_steps']:,} steps, return "
              f"{summary['eval_return_mean']:.1f} +- {summary['eval_return_std']:.1f}; "
              f"see {self._directory.path}", flush=True)
