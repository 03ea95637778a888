#include <algorithm>
#include <cctype>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "common/config.h"
#include "common/config_checks.h"
#include "common/frame_stack.h"
#include "common/layout.h"
#include "common/nearest.h"
#include "common/recurrence.h"

namespace troupe {
namespace {

using Faults = std::vector<std::string>;

bool IsHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  return colon != address.npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) &&
         port >= 1 && port <= 65535;
}

void CheckShards(const proto::Config& config, Faults& faults) {
  std::set<std::string> seen;
  for (int i = 0; i < config.shards_size(); ++i) {
    const std::string& shard = config.shards(i);
    if (!IsHostPort(shard)) {
      faults.push_back(absl::StrCat("shards[", i, "] = '", shard,
                                    "': must look like host:port, the port 1 to 65535"));
    }
    if (!seen.insert(shard).second) {
      faults.push_back(absl::StrCat("shards[", i, "] = '", shard, "': is there twice"));
    }
  }
}

// Names become parts of file names and of metric labels.
bool IsPlainName(absl::string_view name) {
  return !name.empty() && name.size() <= 64 && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '_' || c == '-' || c == '.';
         });
}

void CheckNames(const proto::Config& config, Faults& faults) {
  const auto check = [&faults](const std::string& path, const std::string& name) {
    if (IsPlainName(name)) return;
    faults.push_back(
        absl::StrCat(path, " = '", name, "': must be 1 to 64 letters, digits, '_', '-' or '.'"));
  };
  check("run", config.run());
  std::set<std::string> seen;
  for (int i = 0; i < config.tables_size(); ++i) {
    const std::string path = absl::StrCat("tables[", i, "].name");
    check(path, config.tables(i).name());
    if (!seen.insert(config.tables(i).name()).second) {
      faults.push_back(absl::StrCat(path, " = '", config.tables(i).name(), "': is there twice"));
    }
  }
}

void CheckTableExists(const proto::Config& config, absl::string_view path,
                      const std::string& wanted, Faults& faults) {
  std::vector<std::string> names;
  for (const proto::Table& table : config.tables()) names.push_back(table.name());
  if (std::find(names.begin(), names.end(), wanted) != names.end()) return;
  faults.push_back(absl::StrCat(path, " = '", wanted, "': no such table; the nearest is '",
                                NearestName(wanted, names), "'"));
}

// What keeps samplers and writers of one table waiting for each other for ever.
class LimiterCheck final {
 public:
  // `batch_size`: what samplers take at once, at least.
  LimiterCheck(const proto::Table& table, int64_t shards, int64_t batch_size, Faults& faults)
      : table_(table),
        limiter_(table.rate_limiter()),
        shards_(std::max<int64_t>(1, shards)),
        batch_size_(batch_size),
        faults_(faults) {}

  void Run() const {
    CheckSlack();
    CheckMinSize();
    CheckTimesSampled();
    if (limiter_.queue_length() > 0) CheckQueue();
  }

 private:
  template <typename Value, typename... Words>
  void Add(absl::string_view field, Value value, const Words&... words) const {
    faults_.push_back(absl::StrCat("rate_limiter.", field, " = ", value, " of table '",
                                   table_.name(), "': ", words...));
  }

  void CheckSlack() const {
    const double needed = static_cast<double>(batch_size_) + limiter_.samples_per_insert();
    if (limiter_.samples_per_insert() == 0 || limiter_.slack() >= needed) return;
    Add("slack", limiter_.slack(), "must be at least ", needed, " samples (a batch of ",
        batch_size_, " + samples_per_insert ", limiter_.samples_per_insert(),
        "), or samplers and writers wait for each other");
  }

  void CheckMinSize() const {
    const int64_t stride = std::max(1, table_.window().stride());
    const double room = static_cast<double>(table_.capacity_rows()) / stride * shards_;
    if (static_cast<double>(limiter_.min_size()) <= room) return;
    Add("min_size", limiter_.min_size(), "the table never holds that many windows: ", shards_,
        " shards of capacity_rows = ", table_.capacity_rows(), " with a window every ", stride,
        " rows hold at most ", static_cast<int64_t>(room));
  }

  void CheckTimesSampled() const {
    const int times = table_.max_times_sampled();
    if (times == 0 || limiter_.samples_per_insert() <= times) return;
    Add("samples_per_insert", limiter_.samples_per_insert(), "each window is sampled ",
        "max_times_sampled = ", times, " times at most, so writers would wait for samples that ",
        "there cannot be; must be at most ", times, ", or 0 for no ratio");
  }

  void CheckQueue() const {
    const int64_t length = limiter_.queue_length();
    const int times = table_.max_times_sampled();
    const double ratio = limiter_.samples_per_insert();
    if (length < batch_size_) {
      Add("queue_length", length, "writers of a shard are held back before a batch of ",
          batch_size_, " windows is there");
    }
    if (limiter_.min_size() > length * shards_) {
      Add("queue_length", length, shards_, " such queues have no room for min_size ",
          limiter_.min_size());
    }
    const bool random =
        table_.selector() == proto::UNIFORM || table_.selector() == proto::PRIORITIZED;
    if (times == 0 && !random) {
      Add("queue_length", length, "selector ", proto::SelectorKind_Name(table_.selector()),
          " gives the same windows for ever while max_times_sampled = 0, so the others stay ",
          "unsampled and fill the queue");
    }
    if (ratio > 0 && (times == 0 || ratio < times)) {
      Add("queue_length", length, "samples_per_insert = ", ratio,
          " with max_times_sampled = ", times,
          " leaves windows that are never sampled, and they fill the queue while samplers ",
          "wait for inserts; both must be equal, or samples_per_insert 0");
    }
  }

  const proto::Table& table_;
  const proto::RateLimiter& limiter_;
  const int64_t shards_;
  const int64_t batch_size_;
  Faults& faults_;
};

void CheckLimiters(const proto::Config& config, Faults& faults) {
  for (const proto::Table& written : config.tables()) {
    const absl::StatusOr<proto::Table> table = EffectiveTable(config, written.name());
    if (!table.ok()) continue;
    const bool learners = written.name() == config.learner().table();
    const int64_t batch_size = learners ? SampledAtOnce(config) : 1;
    LimiterCheck(*table, config.shards_size(), batch_size, faults).Run();
  }
}

void CheckQueue(const proto::Table& table, Faults& faults) {
  const auto add = [&](const auto&... words) {
    faults.push_back(absl::StrCat("table '", table.name(), "', which PPO learns from: ", words...));
  };
  if (table.selector() != proto::FIFO || table.max_times_sampled() != 1) {
    add("selector = ", proto::SelectorKind_Name(table.selector()),
        " and max_times_sampled = ", table.max_times_sampled(),
        "; must be FIFO and 1, each window once in the order of their ends");
  }
  if (!table.window().start_at_final_rows()) {
    add("window.start_at_final_rows = false; must be true, for unrolls may begin at any row");
  }
}

void CheckLearnerTable(const proto::Config& config, Faults& faults) {
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, config.learner().table());
  if (!table.ok()) return;  // reported by CheckTableExists
  const proto::Learner& learner = config.learner();
  const auto check = [&](absl::string_view field, int64_t value, absl::string_view formula,
                         int64_t wanted) {
    if (value == wanted) return;
    faults.push_back(absl::StrCat("window.", field, " = ", value, " rows of table '", table->name(),
                                  "': must be ", formula, " = ", wanted));
  };
  if (learner.has_sac()) {
    const bool remembers = HasMemory(learner.sac().recurrence());
    const char* const formula =
        LeadRows(learner.sac()) > 0 ? "learner.sac.encoder.frame_stack + learner.sac.n_step"
        : remembers ? "learner.sac.recurrence.burn_in + sequence_length + learner.sac.n_step"
                    : "learner.sac.n_step + 1";
    check("length", table->window().length(), formula, SacWindowLength(learner.sac()));
    return;
  }
  const int64_t rows = learner.ppo().unroll_length() + 1, lead_rows = LeadRows(learner.ppo());
  check("length", table->window().length(),
        lead_rows > 0 ? "learner.ppo.encoder.frame_stack + unroll_length + 1"
                      : "learner.ppo.unroll_length + 1",
        lead_rows + rows);
  check("stride", table->window().stride(), "learner.ppo.unroll_length + 1", rows);
  CheckQueue(*table, faults);
}

void CheckSac(const proto::Sac& sac, Faults& faults) {
  if (sac.min_subset() > sac.num_critics()) {
    faults.push_back(absl::StrCat("learner.sac.min_subset = ", sac.min_subset(),
                                  ": must be at most num_critics = ", sac.num_critics()));
  }
  if (sac.log_std_min() >= sac.log_std_max()) {
    faults.push_back(absl::StrCat("learner.sac.log_std_min = ", sac.log_std_min(),
                                  ": must be below log_std_max = ", sac.log_std_max()));
  }
}

// What images do not go together with.
void CheckEncoder(const proto::Learner& learner, Faults& faults) {
  const bool of_ppo = learner.has_ppo();
  if (!(of_ppo ? learner.ppo().has_encoder() : learner.sac().has_encoder())) return;
  const auto add = [&](absl::string_view why) {
    faults.push_back(absl::StrCat("learner.", of_ppo ? "ppo" : "sac", ".encoder: ", why));
  };
  if (HasMemory(PolicyRecurrence(learner))) add("must not be set together with recurrence");
  if (of_ppo && learner.ppo().unroll_length() + 1 < LeadRows(learner.ppo())) {
    add(absl::StrCat("frame_stack must be at most unroll_length + 1 = ",
                     learner.ppo().unroll_length() + 1));
  }
  if (!of_ppo && learner.sac().critic_kind() == proto::V_FROM_REPLAY) {
    add("must not be set together with critic_kind = V_FROM_REPLAY");
  }
  if (learner.sampling() == proto::REPLICA) {
    add("learner.sampling must be REMOTE, for a replica does not hold images");
  }
  if (learner.engine() == proto::FUSED) add("learner.engine FUSED does not compute images");
}

void CheckSacLadder(const proto::Sac& sac, Faults& faults) {
  if (sac.critic_kind() == proto::V_FROM_REPLAY && sac.has_actor_gradient()) {
    faults.push_back(absl::StrCat(
        "learner.sac.actor_gradient = ", proto::ActorGradient_Name(sac.actor_gradient()),
        ": critic_kind = V_FROM_REPLAY has its own, for V says nothing of actions"));
  }
}

// What a replica in the learner's memory cannot stand in for.
void CheckReplica(const proto::Config& config, Faults& faults) {
  if (config.learner().sampling() != proto::REPLICA) return;
  const auto add = [&](const auto&... words) {
    faults.push_back(absl::StrCat("learner.sampling = REPLICA: ", words...));
  };
  if (!config.learner().has_sac()) return add("only learner.sac learns from a replica");
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, config.learner().table());
  if (!table.ok()) return;  // reported by CheckTableExists
  const auto of_table = [&](absl::string_view field, const auto& value, absl::string_view wanted) {
    add(field, " = ", value, " of table '", table->name(), "'; must be ", wanted);
  };
  if (table->selector() != proto::UNIFORM && table->selector() != proto::PRIORITIZED) {
    of_table("selector", proto::SelectorKind_Name(table->selector()), "UNIFORM or PRIORITIZED");
  }
  if (table->selector() == proto::PRIORITIZED && config.learner().ranks() > 1) {
    of_table("selector", "PRIORITIZED", "UNIFORM with several ranks, which share no priorities");
  }
  if (table->max_times_sampled() != 0) {
    of_table("max_times_sampled", table->max_times_sampled(), "0: shards do not see the draws");
  }
  if (table->rate_limiter().queue_length() != 0) {
    of_table("rate_limiter.queue_length", table->rate_limiter().queue_length(),
             "0: shards do not see the draws");
  }
  if (table->window().length() != config.learner().sac().n_step() + 1) {
    of_table("window.length", table->window().length(),
             "n_step + 1: a replica holds transitions, not sequences");
  }
}

// A window has one priority, but as many errors as it has transitions.
void CheckPriorities(const proto::Config& config, Faults& faults) {
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, config.learner().table());
  if (!table.ok() || table->selector() != proto::PRIORITIZED) return;
  if (!config.learner().has_sac() || HasMemory(config.learner().sac().recurrence())) {
    faults.push_back(absl::StrCat(
        "selector = PRIORITIZED of table '", table->name(),
        "', which the learner samples: only learner.sac without a recurrence sets priorities"));
  }
}

// Every rank must take the same part in each update.
void CheckRanks(const proto::Learner& learner, Faults& faults) {
  if (learner.ranks() == 1) return;
  const auto add = [&](absl::string_view why) {
    faults.push_back(absl::StrCat("learner.ranks = ", learner.ranks(), ": ", why));
  };
  if (HasMemory(learner.has_ppo() ? learner.ppo().recurrence() : learner.sac().recurrence())) {
    add("a recurrence must not be set, for the ranks' batches differ in size");
  }
  if (learner.rendezvous().empty()) add("learner.rendezvous must be set");
}

void CheckPpo(const proto::Learner& learner, const std::string& actors_table, Faults& faults) {
  const proto::Ppo& ppo = learner.ppo();
  if (ppo.surrogate() == proto::POLICY_GRADIENT && ppo.epochs() != 1) {
    faults.push_back(absl::StrCat("learner.ppo.epochs = ", ppo.epochs(),
                                  ": must be 1 with surrogate = POLICY_GRADIENT, whose gradient is "
                                  "right for the policy that ",
                                  "drew the rows alone"));
  }
  const proto::Recurrence& memory = ppo.recurrence();
  if (HasMemory(memory) && ppo.unroll_length() % memory.sequence_length() != 0) {
    faults.push_back(
        absl::StrCat("learner.ppo.recurrence.sequence_length = ", memory.sequence_length(),
                     ": must divide learner.ppo.unroll_length = ", ppo.unroll_length()));
  }
  if (ppo.max_policy_lag() == 0 && actors_table != learner.table()) {
    faults.push_back(absl::StrCat(
        "actor.table = '", actors_table, "': must be learner.table = '", learner.table(),
        "' with learner.ppo.max_policy_lag = 0, or actors and learner ", "wait for each other"));
  }
}

void CheckActor(const proto::Config& config, Faults& faults) {
  const proto::Actor& actor = config.actor();
  if (actor.reconnect_min_ms() > actor.reconnect_max_ms()) {
    faults.push_back(
        absl::StrCat("actor.reconnect_min_ms = ", actor.reconnect_min_ms(),
                     ": must be at most reconnect_max_ms = ", actor.reconnect_max_ms()));
  }
  if (actor.max_unacked_bytes() < actor.message_bytes()) {
    faults.push_back(
        absl::StrCat("actor.max_unacked_bytes = ", actor.max_unacked_bytes(),
                     ": must hold a message of actor.message_bytes = ", actor.message_bytes()));
  }
  const int64_t overhead = actor.num_envs() * kRunOverheadBytes;
  const int64_t accepted = config.replay_server().max_message_bytes();
  if (actor.message_bytes() + overhead > accepted) {
    faults.push_back(absl::StrCat(
        "actor.message_bytes = ", actor.message_bytes(), ": with ", overhead,
        " bytes of protobuf, ", kRunOverheadBytes, " for each of actor.num_envs = ",
        actor.num_envs(), ", a message exceeds replay_server.max_message_bytes = ", accepted));
  }
}

void CheckDevice(const std::string& device, Faults& faults) {
  absl::string_view rest = device;
  int index = 0;
  if (device == "cpu" || device == "cuda" ||
      (absl::ConsumePrefix(&rest, "cuda:") && absl::SimpleAtoi(rest, &index) && index >= 0)) {
    return;
  }
  faults.push_back(absl::StrCat("learner.device = '", device, "': must be cpu, cuda or cuda:N"));
}

}  // namespace

std::vector<std::string> CrossFieldFaults(const proto::Config& config) {
  Faults faults;
  CheckEnvironment(config, faults);
  CheckNames(config, faults);
  CheckShards(config, faults);
  CheckTableExists(config, "actor.table", config.actor().table(), faults);
  CheckTableExists(config, "learner.table", config.learner().table(), faults);
  CheckLearnerTable(config, faults);
  CheckLimiters(config, faults);
  CheckReplica(config, faults);
  CheckPriorities(config, faults);
  CheckRanks(config.learner(), faults);
  CheckActor(config, faults);
  CheckDevice(config.learner().device(), faults);
  CheckEncoder(config.learner(), faults);
  if (config.learner().has_sac()) {
    CheckSac(config.learner().sac(), faults);
    CheckSacLadder(config.learner().sac(), faults);
  }
  if (config.learner().has_ppo()) CheckPpo(config.learner(), config.actor().table(), faults);
  return faults;
}

}  // namespace troupe
