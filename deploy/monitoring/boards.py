"""The two boards: what is shown, and the queries behind it.  generate.py writes them for Grafana
and as pages of Prometheus.

$job stands for the run, the label `job` of all its processes.  A legend names labels as {process}.
Units are Grafana's.  Every query answers in every run, or a board would seem broken: what a run
does not have (the losses of the other algorithm) shares its panel with what it has.
"""

from dataclasses import dataclass

# Of a learner of several ranks the first speaks for all.
LEARNER = '{job="$job", role="learner"}'
STEPS = 'sum(troupe_replay_env_steps_total{job="$job"})'
TARGET = 'max(troupe_learner_target_env_steps{job="$job"})'
STEPS_A_SECOND = 'sum(job:troupe_replay_env_steps:rate1m{job="$job"})'
UPDATES_A_SECOND = 'sum(job:troupe_learner_updates:rate1m{job="$job"})'
LAG = ('sum(rate(troupe_replay_version_lag_sum_total{job="$job"}[1m])) / '
       'sum(rate(troupe_replay_version_lag_rows_total{job="$job"}[1m]))')


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""
    faint: bool = False  # a bound of the first query's line, not a line of its own right


@dataclass(frozen=True)
class Panel:
    """`kind`: "stat", one number; "lines", over time; "states", when something held."""
    title: str
    help: str
    unit: str
    queries: tuple
    kind: str = "lines"
    width: int = 8  # of 24
    minimum: float = None  # of the axis


@dataclass(frozen=True)
class Section:
    title: str
    panels: tuple


@dataclass(frozen=True)
class Board:
    uid: str
    name: str  # of its files
    title: str
    sections: tuple

    def panels(self):
        return [panel for section in self.sections for panel in section.panels]


def stat(title, unit, expr, help, width=3):
    return Panel(title, help, unit, (Query(expr),), kind="stat", width=width)


def lines(title, unit, help, *queries, width=8, minimum=None):
    return Panel(title, help, unit, tuple(Query(*query) for query in queries), width=width,
                 minimum=minimum)


def of_learner(names):
    """Those of these statistics that the run's algorithm has; the label `name` says which it is."""
    found = f'{{__name__=~"troupe_learner_({names})", job="$job", role="learner"}} > -Inf'
    return f'label_replace({found}, "name", "$1", "__name__", "troupe_learner_(.*)")'


def quantile(q, metric):
    return (f'histogram_quantile({q}, sum by (process, le) '
            f'(rate({metric}_bucket{{job="$job"}}[1m])))')


TRAINING = Board("troupe-training", "training", "Training", (
    Section("Where the run stands", (
        stat("Return", "short", 'max(troupe_evaluator_return_mean{job="$job"})',
             "Mean return of the last evaluation."),
        stat("Best return", "short",
             'max(max_over_time(troupe_evaluator_return_mean{job="$job"}[7d]))',
             "Best mean return of any evaluation of the last week."),
        stat("Steps", "short", STEPS, "Environment steps that the shards have stored."),
        stat("Done", "percentunit", f"{STEPS} / {TARGET}", "Part of total_env_steps."),
        stat("Time left", "dthms", f"clamp_min({TARGET} - {STEPS}, 0) / {STEPS_A_SECOND}",
             "At the rate of the last minute."),
        stat("Steps a second", "short", STEPS_A_SECOND, "Stored by the shards, last minute."),
        stat("Updates a second", "short", UPDATES_A_SECOND, "Gradient steps, last minute."),
        stat("Policy lag", "short", LAG,
             "Versions by which rows' policies are behind the newest; mean of the last minute."),
    )),
    Section("How good", (
        lines("Return", "short", "Deterministic episodes of the evaluator, and what actors get "
              "while they explore.",
              ('max(troupe_evaluator_return_mean{job="$job"})', "evaluation"),
              ('max(troupe_evaluator_return_mean{job="$job"} + '
               'troupe_evaluator_return_std{job="$job"})', "one deviation above", True),
              ('max(troupe_evaluator_return_mean{job="$job"} - '
               'troupe_evaluator_return_std{job="$job"})', "one deviation below", True),
              ('avg(troupe_actor_episode_return{job="$job"} > -Inf)', "actors"), width=12),
        lines("Length of episodes", "short", "Steps of an episode: mean of the last evaluation, "
              "and of the actors' last episodes.",
              ('max(troupe_evaluator_episode_length_steps{job="$job"})', "evaluation"),
              ('avg(troupe_actor_episode_length_steps{job="$job"} > -Inf)', "actors"), width=12,
              minimum=0),
    )),
    Section("How it learns", (
        lines("Losses", "short", "Critics and policy (SAC), or policy and values (PPO).",
              (of_learner("q_loss|actor_loss|policy_loss|value_loss"), "{name}"), width=6),
        lines("Entropy", "short", "Entropy of the policy, in nats.",
              (of_learner("entropy"), "{name}"), width=6),
        lines("Temperature, or distance from the old policy", "short",
              "SAC: alpha. PPO: KL divergence and the part of the steps that was clipped.",
              (of_learner("alpha|kl|clip_fraction"), "{name}"), width=6),
        lines("Values", "short", "SAC: mean of the critics. PPO: part of the targets' variance "
              "that the values explain.",
              (of_learner("q_mean|explained_variance"), "{name}"), width=6),
    )),
    Section("How fast", (
        lines("Environment steps a second", "short",
              "Made by each actor, and stored by all shards.",
              (STEPS_A_SECOND, "stored"),
              ('rate(troupe_actor_env_steps_total{job="$job"}[1m])', "{process}"), minimum=0),
        lines("Updates a second", "short", "Gradient steps of the learner.",
              (f"rate(troupe_learner_updates_total{LEARNER}[1m])", "{process}"), minimum=0),
        lines("The learner's time", "percentunit", "Part of its time that it waits for batches, "
              "and that it computes.",
              (f"rate(troupe_learner_batch_wait_seconds_total{LEARNER}[1m])", "waits for batches"),
              (f"rate(troupe_learner_update_duration_seconds_sum{LEARNER}[1m]) / "
               f"rate(troupe_learner_update_duration_seconds_count{LEARNER}[1m]) * "
               f"rate(troupe_learner_updates_total{LEARNER}[1m])", "updates"), minimum=0),
        lines("Steps done", "short", "Environment steps, and where the run ends.",
              (STEPS, "done"), (TARGET, "total_env_steps", True), minimum=0),
        lines("Policy lag", "short", "Versions by which policies are behind the newest: of the "
              "rows stored, mean of a minute, and of each actor now.", (LAG, "rows"),
              ('clamp_min(scalar(max(troupe_learner_policy_version{job="$job"})) - '
               'troupe_actor_policy_version{job="$job"}, 0)', "{process}"), minimum=0),
        lines("Samples for an insert", "short", "Windows sampled for each one inserted, over five "
              "minutes, and what the limiter is set to (0: no limit).",
              ('sum(rate(troupe_replay_windows_sampled_total{job="$job"}[5m])) / '
               'sum(rate(troupe_replay_windows_inserted_total{job="$job"}[5m]))', "measured"),
              ('max(troupe_replay_samples_per_insert{job="$job"})', "set", True), minimum=0),
    )),
))

NOBODY = 'label_replace(max(up{job="$job"}), "who", "nobody waits", "", "")'

SYSTEM = Board("troupe-system", "system", "System", (
    Section("Where the cluster stands", (
        stat("Processes up", "none", 'sum(up{job="$job"})', "Processes that answer Prometheus."),
        stat("Processes down", "none", 'count(up{job="$job"}) - sum(up{job="$job"})',
             "Processes that do not."),
        stat("Alerts", "none", 'count(ALERTS{alertstate="firing", job="$job"}) or vector(0)',
             "Alerts that are firing."),
        stat("Restarts", "none", 'sum(changes(process:start_time_seconds:max{job="$job"}[1h]))',
             "Processes started again in the last hour."),
        stat("Rows", "short", 'sum(troupe_replay_rows{job="$job"})', "Rows in all shards."),
        stat("Rows a second", "short",
             'sum(rate(troupe_replay_rows_appended_total{job="$job"}[1m]))',
             "Stored, last minute."),
        stat("Windows a second", "short",
             'sum(rate(troupe_replay_windows_sampled_total{job="$job"}[1m]))',
             "Sampled, last minute."),
        stat("Disk free", "percentunit",
             'min(troupe_disk_free_bytes{job="$job"} / troupe_disk_size_bytes{job="$job"})',
             "Of the fullest disk."),
    )),
    Section("Who waits for whom", (
        Panel("Held back at the shards", "Writers are actors, samplers the learner. They wait for: "
              "first_actor (no rows yet), min_size (the warm-up), samples_per_insert (the other "
              "side), share (the learner's next request), queue_length (samples), windows (inserts "
              "on this shard), next_rows.", "none",
              (Query('max by (process, who, for) (troupe_replay_waits_for{job="$job"} > 0) '
                     f"or on () {NOBODY}", "{process} {who} {for}"),), kind="states", width=12),
        lines("Part of the time that they wait", "percentunit",
              "Writers and samplers at each shard, actors whose buffer is full, and the learner "
              "without a batch.",
              ('rate(troupe_replay_waited_seconds_total{job="$job"}[1m])', "{process} {who}"),
              ('rate(troupe_actor_blocked_seconds_total{job="$job"}[1m])', "{process} blocked"),
              ('rate(troupe_learner_batch_wait_seconds_total{job="$job"}[1m])', "{process} batch"),
              width=12, minimum=0),
        lines("Samples ahead of the inserts", "short", "Over all shards, with the band that the "
              "limiter allows. Above it the learner waits, below it the actors, whose messages "
              "that were under way come on top.",
              ('sum(table:troupe_replay_samples_ahead:sum{job="$job"})', "ahead"),
              ('max(troupe_replay_slack_samples{job="$job"})', "most", True),
              ('-max(troupe_replay_slack_samples{job="$job"})', "least", True)),
        lines("Not acked yet", "bytes", "Bytes of rows that actors keep until a shard has them.",
              ('troupe_actor_unacked_bytes{job="$job"}', "{process}"), minimum=0),
        lines("Longest wait", "s", "How long the first of the calls that wait now has waited.",
              ('max by (process, who) (troupe_replay_longest_wait_seconds{job="$job"})',
               "{process} {who}"), minimum=0),
    )),
    Section("Shards", (
        lines("Rows", "short", "Rows in each shard.",
              ('sum by (process) (troupe_replay_rows{job="$job"})', "{process}"), width=6,
              minimum=0),
        lines("Rows stored a second", "short", "By each shard.",
              ('sum by (process) (rate(troupe_replay_rows_appended_total{job="$job"}[1m]))',
               "{process}"), width=6, minimum=0),
        lines("Windows sampled a second", "short", "From each shard.",
              ('sum by (process) (rate(troupe_replay_windows_sampled_total{job="$job"}[1m]))',
               "{process}"), width=6, minimum=0),
        lines("Open calls", "none", "Streams from actors and the learner, and connections.",
              ('sum by (process) (troupe_replay_append_calls{job="$job"})', "{process} append"),
              ('sum by (process) (troupe_replay_sample_calls{job="$job"})', "{process} sample"),
              ('troupe_replay_connections{job="$job"}', "{process} connections"), width=6,
              minimum=0),
        lines("Time to store a message", "s", "99 of 100 messages of rows took less.",
              (quantile(0.99, "troupe_replay_append_duration_seconds"), "{process}"), width=6,
              minimum=0),
        lines("Time to sample a batch", "s", "99 of 100 batches were drawn and copied in less.",
              (quantile(0.99, "troupe_replay_sample_duration_seconds"), "{process}"), width=6,
              minimum=0),
        lines("Memory of messages", "percentunit", "Part of replay_server.message_budget_bytes.",
              ('troupe_replay_message_bytes{job="$job"} / '
               'troupe_replay_message_budget_bytes{job="$job"}', "{process}"), width=6, minimum=0),
        lines("Refused a second", "short", "Calls that shards refused or broke off, and "
              "connections beyond the cap; their callers' logs say why.",
              ('sum by (process) (rate(troupe_replay_calls_refused_total{job="$job"}[1m]))',
               "{process} calls"),
              ('rate(troupe_replay_connections_refused_total{job="$job"}[1m])',
               "{process} connections"), width=6, minimum=0),
    )),
    Section("Processes", (
        lines("CPU", "percentunit", "Cores in use.",
              ('rate(process_cpu_seconds_total{job="$job"}[1m])', "{process}"), minimum=0),
        lines("Memory of their own", "bytes", "Without pages of files, such as a shard's rows.",
              ('process_anonymous_memory_bytes{job="$job"}', "{process}"), minimum=0),
        lines("Memory with mapped files", "bytes", "A shard's rows, too, as far as they are in "
              "memory.", ('process_resident_memory_bytes{job="$job"}', "{process}"), minimum=0),
        Panel("Processes that answer", "By role.", "none",
              (Query('sum by (role) (up{job="$job"})', "{role}"),), width=8, minimum=0),
        lines("Breaks", "short", "In five minutes: connections that actors lost, moves to another "
              "shard, rows given up.",
              ('sum(increase(troupe_actor_reconnects_total{job="$job"}[5m]))', "reconnects"),
              ('sum(increase(troupe_actor_moves_total{job="$job"}[5m]))', "moves"),
              ('sum(increase(troupe_actor_rows_dropped_total{job="$job"}[5m]))', "rows given up"),
              minimum=0),
        lines("Environments that failed", "short", "In five minutes: children in Python that "
              "crashed, took too long, or gave numbers that are not finite, and were replaced.",
              ('sum(increase(troupe_actor_env_crashes_total{job="$job"}[5m]))', "crashed"),
              ('sum(increase(troupe_actor_env_timeouts_total{job="$job"}[5m]))', "took too long"),
              ('sum(increase(troupe_actor_env_invalid_total{job="$job"}[5m]))', "not finite"),
              minimum=0),
        lines("Time of a scrape", "s", "How long Prometheus waits for each process.",
              ('scrape_duration_seconds{job="$job"}', "{process}"), minimum=0),
    )),
))

BOARDS = (TRAINING, SYSTEM)
