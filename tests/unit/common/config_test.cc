#include "common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace troupe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// The faults of `text` with `sets` on top, as one text; "" if there are none.
std::string Faults(const std::string& text, const std::vector<std::string>& sets = {}) {
  const absl::StatusOr<proto::Config> config = ParseConfig(text, "test.txtpb", sets);
  if (config.ok()) return "";
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(config.status().message());
}

proto::Config Parsed(const std::string& text, const std::vector<std::string>& sets = {}) {
  const absl::StatusOr<proto::Config> config = ParseConfig(text, "test.txtpb", sets);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(proto::Config());
}

TEST(Config, AnEnvironmentIsAllThatMustBeWritten) {
  const proto::Config config = Parsed("environment { id: 'Pendulum-v1' }");
  EXPECT_EQ(config.environment().id(), "Pendulum-v1");
  ASSERT_EQ(config.tables_size(), 1);
  EXPECT_EQ(config.tables(0).name(), "replay");
  EXPECT_EQ(config.learner().algorithm_case(), proto::Learner::kSac);
}

TEST(Config, EveryFaultIsReportedAtOnce) {
  const std::string faults = Faults(
      "sed: 3\n"
      "learner {\n"
      "  sac { gama: 0.9 batch_size: 0 }\n"
      "}\n"
      "shards: 'nowhere'\n",
      {"learner.sac.taau=1", "actor.num_envs=many"});
  EXPECT_THAT(faults,
              AllOf(HasSubstr("test.txtpb:1: "), HasSubstr("\"sed\""), HasSubstr("nearest is seed"),
                    HasSubstr("test.txtpb:3: "), HasSubstr("nearest is gamma")));
  EXPECT_THAT(faults, HasSubstr("learner.sac.batch_size = 0: must be 1 to 1048576 windows"));
  EXPECT_THAT(faults, HasSubstr("shards[0] = 'nowhere': must look like host:port"));
  EXPECT_THAT(faults, HasSubstr("nearest is tau"));
  EXPECT_THAT(faults, HasSubstr("--set actor.num_envs=many: 'many' is not a whole number"));
}

TEST(Config, ASyntaxErrorNamesItsLine) {
  EXPECT_THAT(Faults("seed: 1\nlearner { sac { gamma: abc } }\n"),
              AllOf(HasSubstr("test.txtpb:2: "), HasSubstr("gamma: abc")));
  EXPECT_THAT(Faults("seed: 1\nlearner {\n"), HasSubstr("test.txtpb:"));
}

TEST(Config, AVeryLongNameIsAFaultLikeAnyOther) {
  EXPECT_THAT(Faults(std::string(200'000, 'a') + ": 1\n"), HasSubstr("test.txtpb:1: "));
}

TEST(Config, NestingWithoutEndIsAFault) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "a{";
  EXPECT_THAT(Faults(text), HasSubstr("test.txtpb:1: "));
}

TEST(Config, AMissingFileIsNamed) {
  const absl::StatusOr<proto::Config> config = LoadConfig("/nowhere/at_all.txtpb", {});
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("/nowhere/at_all.txtpb"));
}

TEST(Config, PrintedTextIsReadBackToTheSameConfiguration) {
  const proto::Config config =
      Parsed("", {"shards=a:1,b:2", "learner.sac.gamma=0.98", "environment.id=Hopper-v5"});
  EXPECT_EQ(PrintConfig(Parsed(PrintConfig(config))), PrintConfig(config));
}

TEST(ConfigSet, SetsScalarsOfEveryType) {
  const proto::Config config =
      Parsed("learner { sac { gamma: 0.5 } }",
             {"learner.sac.gamma=0.98", "total_env_steps=1e5", "run=my run-1", "run=my-run",
              "learner.sac.backup_entropy=false", "tables.selector=FIFO",
              "environment.healthy_z_range.low=-inf", "environment.healthy_z_range.high=inf"});
  EXPECT_EQ(config.learner().sac().gamma(), 0.98);
  EXPECT_EQ(config.total_env_steps(), 100000);
  EXPECT_EQ(config.run(), "my-run");
  EXPECT_FALSE(config.learner().sac().backup_entropy());
  EXPECT_EQ(config.tables(0).selector(), proto::FIFO);
}

TEST(ConfigSet, ListsAreReplacedAppendedToAndIndexed) {
  const proto::Config config =
      Parsed("shards: 'x:9'", {"shards=a:1,b:2", "shards+=c:3", "shards[1]=d:4", "shards[3]=e:5",
                               "learner.sac.actor.hidden_sizes=64,32", "tables[0].name=replay",
                               "tables[1].name=other", "tables[1].capacity_rows=5000"});
  EXPECT_THAT(config.shards(), testing::ElementsAre("a:1", "d:4", "c:3", "e:5"));
  EXPECT_THAT(config.learner().sac().actor().hidden_sizes(), testing::ElementsAre(64, 32));
  ASSERT_EQ(config.tables_size(), 2);
  EXPECT_EQ(config.tables(1).capacity_rows(), 5000);
}

struct BadSet {
  std::string name;
  std::string word;
  std::string message;
};

class ConfigBadSet : public testing::TestWithParam<BadSet> {};

TEST_P(ConfigBadSet, IsNamedWithItsReason) {
  EXPECT_THAT(Faults("tables { name: 'replay' } tables { name: 'b' }", {GetParam().word}),
              AllOf(HasSubstr("--set " + GetParam().word), HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Words, ConfigBadSet,
    testing::Values(BadSet{"NoEquals", "seed", "no '='"}, BadSet{"Empty", "=3", "no '='"},
                    BadSet{"UnknownTop", "sead=3", "the nearest is seed"},
                    BadSet{"UnknownInside", "learner.sac.gama=1", "the nearest is gamma"},
                    BadSet{"UnknownEnumValue", "tables[0].selector=FIFOO", "the nearest is FIFO"},
                    BadSet{"Message", "learner.sac=3", "has fields of its own"},
                    BadSet{"ScalarHasNoFields", "seed.x=3", "seed has no fields"},
                    BadSet{"WhichElement", "tables.name=x", "tables has 2 elements"},
                    BadSet{"IndexTooLarge", "tables[7].name=x", "tables has 2 elements"},
                    BadSet{"NotAnIndex", "tables[x].name=x", "tables[0]"},
                    BadSet{"NotAList", "seed[0]=3", "not a list"},
                    BadSet{"AppendToScalar", "seed+=3", "not a list"},
                    BadSet{"Overflow", "learner.sac.batch_size=99999999999", "int32"},
                    BadSet{"NegativeUnsigned", "seed=-3", "uint64"},
                    BadSet{"FractionOfAWhole", "seed=1.5", "whole number"},
                    BadSet{"NotABool", "learner.sac.backup_entropy=maybe", "true or false"}),
    [](const auto& info) { return info.param.name; });

struct Fault {
  std::string name;
  std::vector<std::string> sets;
  std::string message;
};

class ConfigFault : public testing::TestWithParam<Fault> {};

TEST_P(ConfigFault, IsExplainedWithItsNumbers) {
  EXPECT_THAT(Faults("", GetParam().sets), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Rules, ConfigFault,
    testing::Values(
        Fault{
            "AboveTheRange", {"learner.sac.gamma=1.5"}, "learner.sac.gamma = 1.5: must be 0 to 1"},
        Fault{"ExcludedMinimum", {"learner.sac.tau=0"}, "must be above 0 and at most 1"},
        Fault{"ExcludedMaximum", {"learner.sac.actor.dropout=1"}, "at least 0 and below 1"},
        Fault{"NotANumber", {"learner.sac.gamma=nan"}, "learner.sac.gamma = nan"},
        Fault{"ElementOfAList",
              {"learner.sac.actor.hidden_sizes=64,0"},
              "learner.sac.actor.hidden_sizes[1] = 0: must be 1 to 65536 units"},
        Fault{"UnsetEnum", {"tables.selector=SELECTOR_UNSPECIFIED"}, "must be one of UNIFORM"},
        Fault{"WindowDisagrees",
              {"learner.sac.n_step=3", "tables.window.length=2"},
              "must be learner.sac.n_step + 1 = 4"},
        Fault{"NarrowBand", {"tables.rate_limiter.slack=300"}, "must be at least 512"},
        Fault{"QueueBelowMinimum",
              {"shards=a:1,b:2", "tables.rate_limiter.queue_length=300",
               "tables.rate_limiter.min_size=601"},
              "rate_limiter.queue_length = 300 of table 'replay': 2 such queues have no room for "
              "min_size 601"},
        Fault{"QueueBelowBatch",
              {"tables.rate_limiter.queue_length=255"},
              "rate_limiter.queue_length = 255 of table 'replay': writers of a shard are held back "
              "before a batch of 256 windows is there"},
        Fault{"QueueOfWindowsThatAreSampledForEver",
              {"tables.rate_limiter.queue_length=10000", "tables.selector=FIFO"},
              "selector FIFO gives the same windows for ever while max_times_sampled = 0"},
        Fault{"QueueOfWindowsThatAreNeverSampled",
              {"tables.rate_limiter.queue_length=10000", "tables.selector=FIFO",
               "tables.max_times_sampled=4", "tables.rate_limiter.samples_per_insert=2"},
              "samples_per_insert = 2 with max_times_sampled = 4 leaves windows that are never "
              "sampled"},
        Fault{"QueueAndRatioOfARandomSelector",
              {"tables.rate_limiter.queue_length=10000"},
              "samples_per_insert = 256 with max_times_sampled = 0 leaves windows that are never "
              "sampled"},
        Fault{"MoreSamplesThanEachWindowGives",
              {"tables.selector=FIFO", "tables.max_times_sampled=4"},
              "rate_limiter.samples_per_insert = 256 of table 'replay': each window is sampled "
              "max_times_sampled = 4 times at most"},
        Fault{"MinSizeAboveCapacity",
              {"shards=a:1,b:2", "tables.capacity_rows=6000", "tables.window.stride=2",
               "tables.rate_limiter.min_size=6001"},
              "rate_limiter.min_size = 6001 of table 'replay': the table never holds that many "
              "windows: 2 shards of capacity_rows = 6000 with a window every 2 rows hold at most "
              "6000"},
        Fault{"VectorEnvironmentsThatWaitForOneAnother",
              {"environment.gymnasium.id=CartPole-v1", "environment.gymnasium.vector=true",
               "learner.ppo.max_policy_lag=0"},
              "environment.gymnasium.vector steps its environments all at once"},
        Fault{"ReplicaOfPpo",
              {"learner.sampling=REPLICA", "learner.ppo.epochs=2"},
              "learner.sampling = REPLICA: only learner.sac learns from a replica"},
        Fault{"ReplicaOfPriorities",
              {"learner.sampling=REPLICA", "tables.selector=PRIORITIZED", "learner.ranks=2",
               "learner.rendezvous=a:1"},
              "learner.sampling = REPLICA: selector = PRIORITIZED of table 'replay'; must be "
              "UNIFORM with several ranks"},
        Fault{"ReplicaOfTheOldest",
              {"learner.sampling=REPLICA", "tables.selector=MAX_HEAP"},
              "learner.sampling = REPLICA: selector = MAX_HEAP of table 'replay'; must be UNIFORM "
              "or PRIORITIZED"},
        Fault{"PrioritiesOfSequences",
              {"tables.selector=PRIORITIZED", "learner.sac.recurrence.kind=GRU"},
              "selector = PRIORITIZED of table 'replay', which the learner samples: only "
              "learner.sac without a recurrence"},
        Fault{"ReplicaOfSequences",
              {"learner.sampling=REPLICA", "learner.sac.recurrence.kind=GRU"},
              "must be n_step + 1: a replica holds transitions, not sequences"},
        Fault{"ReplicaOfAQueue",
              {"learner.sampling=REPLICA", "tables.rate_limiter.queue_length=10000",
               "tables.rate_limiter.samples_per_insert=0"},
              "learner.sampling = REPLICA: rate_limiter.queue_length = 10000 of table 'replay'"},
        Fault{"ReplicaOfWindowsThatWearOut",
              {"learner.sampling=REPLICA", "tables.max_times_sampled=255",
               "tables.rate_limiter.samples_per_insert=200"},
              "learner.sampling = REPLICA: max_times_sampled = 255 of table 'replay'"},
        Fault{"AnotherTablesBand",
              {"tables[0].name=replay", "tables[1].name=other",
               "tables[1].rate_limiter.samples_per_insert=4", "tables[1].rate_limiter.slack=4"},
              "rate_limiter.slack = 4 of table 'other': must be at least 5 samples (a batch of 1 + "
              "samples_per_insert 4)"},
        Fault{"AnotherTablesCapacity",
              {"tables[0].name=replay", "tables[1].name=other", "tables[1].capacity_rows=128",
               "tables[1].rate_limiter.min_size=129"},
              "rate_limiter.min_size = 129 of table 'other'"},
        Fault{"NoSuchTable", {"learner.table=replya"}, "the nearest is 'replay'"},
        Fault{"NoSuchActorTable", {"actor.table=x"}, "actor.table = 'x'"},
        Fault{"TableTwice", {"tables[0].name=replay", "tables[1].name=replay"}, "is there twice"},
        Fault{"TableName", {"tables.name=../x"}, "must be 1 to 64 letters"},
        Fault{"ShardPort", {"shards=h:70000"}, "must look like host:port"},
        Fault{"ShardTwice", {"shards=h:7,h:7"}, "is there twice"},
        Fault{"Subset", {"learner.sac.min_subset=3"}, "must be at most num_critics = 2"},
        Fault{"LogStd", {"learner.sac.log_std_min=2"}, "must be below log_std_max"},
        Fault{
            "ValueCriticWithGradient",
            {"learner.sac.critic_kind=V_FROM_REPLAY", "learner.sac.actor_gradient=SCORE_FUNCTION"},
            "learner.sac.actor_gradient = SCORE_FUNCTION: critic_kind = V_FROM_REPLAY"},
        Fault{"PolicyGradientOverEpochs",
              {"learner.ppo.surrogate=POLICY_GRADIENT", "learner.ppo.epochs=2"},
              "learner.ppo.epochs = 2: must be 1 with surrogate = POLICY_GRADIENT"},
        Fault{"UnrollsOfAnotherLength",
              {"learner.ppo.unroll_length=128", "tables.window.length=128"},
              "must be learner.ppo.unroll_length + 1 = 129"},
        Fault{"SequencesThatDoNotFillAnUnroll",
              {"learner.ppo.unroll_length=100", "learner.ppo.recurrence.kind=GRU"},
              "learner.ppo.recurrence.sequence_length = 16: must divide "
              "learner.ppo.unroll_length = 100"},
        Fault{"WindowWithoutRoomForTheBurnIn",
              {"learner.sac.recurrence.kind=LSTM", "tables.window.length=2"},
              "must be learner.sac.recurrence.burn_in + sequence_length + learner.sac.n_step = 25"},
        Fault{"WindowWithoutRoomForTheStack",
              {"learner.sac.encoder.frame_stack=3", "tables.window.length=2"},
              "must be learner.sac.encoder.frame_stack + learner.sac.n_step = 4"},
        Fault{"UnrollWithoutRoomForTheStack",
              {"learner.ppo.unroll_length=128", "learner.ppo.encoder.frame_stack=4",
               "tables.window.length=129"},
              "must be learner.ppo.encoder.frame_stack + unroll_length + 1 = 133"},
        Fault{"StackLongerThanAnUnroll",
              {"learner.ppo.unroll_length=2", "learner.ppo.encoder.frame_stack=4"},
              "learner.ppo.encoder: frame_stack must be at most unroll_length + 1 = 3"},
        Fault{"EncoderWithRecurrence",
              {"learner.sac.encoder.features=8", "learner.sac.recurrence.kind=GRU"},
              "learner.sac.encoder: must not be set together with recurrence"},
        Fault{"EncoderOfValuesFromReplay",
              {"learner.sac.encoder.features=8", "learner.sac.critic_kind=V_FROM_REPLAY"},
              "learner.sac.encoder: must not be set together with critic_kind"},
        Fault{"EncoderInAReplica",
              {"learner.sac.encoder.features=8", "learner.sampling=REPLICA"},
              "learner.sac.encoder: learner.sampling must be REMOTE"},
        Fault{"FusedEncoder",
              {"learner.ppo.encoder.features=8", "learner.engine=FUSED"},
              "learner.ppo.encoder: learner.engine FUSED does not compute images"},
        Fault{"OnPolicyFromARing",
              {"learner.ppo.unroll_length=128", "tables.selector=UNIFORM"},
              "must be FIFO and 1"},
        Fault{"SynchronousFromAnotherTable",
              {"learner.ppo.epochs=1", "tables[0].name=replay", "tables[1].name=other",
               "actor.table=other"},
              "must be learner.table = 'replay'"},
        Fault{"Device", {"learner.device=gpu"}, "must be cpu, cuda or cuda:N"},
        Fault{"Interval", {"environment.healthy_z_range.low=1"}, "low at most high"},
        Fault{"UnackedBelowMessage",
              {"actor.message_bytes=65537", "actor.max_unacked_bytes=65536"},
              "actor.max_unacked_bytes = 65536: must hold a message of actor.message_bytes = "
              "65537"},
        Fault{"MessageWithoutRoomForProtobuf",
              {"actor.num_envs=4", "actor.message_bytes=99873", "actor.max_unacked_bytes=200000",
               "replay_server.max_message_bytes=100000"},
              "actor.message_bytes = 99873: with 128 bytes of protobuf, 32 for each of "
              "actor.num_envs = 4, a message exceeds replay_server.max_message_bytes = 100000"},
        Fault{"Reconnect", {"actor.reconnect_min_ms=5000"}, "reconnect_max_ms = 2000"}),
    [](const auto& info) { return info.param.name; });

TEST(Config, PposTableIsAQueueOfUnrolls) {
  const auto config =
      ParseConfig("learner { ppo { unroll_length: 100 batch_windows: 3 } }", "test", {});
  ASSERT_TRUE(config.ok()) << config.status();
  const auto table = EffectiveTable(*config, "replay");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->window().length(), 101);
  EXPECT_EQ(table->window().stride(), 101);
  EXPECT_TRUE(table->window().start_at_final_rows());
  EXPECT_EQ(table->selector(), proto::FIFO);
  EXPECT_EQ(table->max_times_sampled(), 1);
  EXPECT_EQ(table->rate_limiter().queue_length(), 6);
  EXPECT_EQ(table->rate_limiter().samples_per_insert(), 0);
  EXPECT_EQ(SampledAtOnce(*config), 1);
}

TEST(Config, AMessageMayJustFit) {
  EXPECT_EQ(Faults("environment { id: 'Pendulum-v1' }",
                   {"actor.num_envs=4", "actor.message_bytes=99872",
                    "actor.max_unacked_bytes=99872", "replay_server.max_message_bytes=100000"}),
            "");
}

TEST(Config, BandsThatJustHoldAreAccepted) {
  EXPECT_EQ(Faults("", {"shards=a:1,b:2", "tables.capacity_rows=6000", "tables.window.stride=2",
                        "tables.rate_limiter.min_size=6000", "tables.rate_limiter.slack=512"}),
            "");
  EXPECT_EQ(Faults("", {"shards=a:1,b:2", "tables.selector=FIFO", "tables.max_times_sampled=1",
                        "tables.rate_limiter.queue_length=256", "tables.rate_limiter.min_size=512",
                        "tables.rate_limiter.samples_per_insert=1"}),
            "");
  EXPECT_EQ(Faults("", {"tables.rate_limiter.queue_length=10000",
                        "tables.rate_limiter.samples_per_insert=0"}),
            "");
}

TEST(EffectiveTable, DerivesTheLearnersTableFromItsAlgorithm) {
  const proto::Config config =
      Parsed("", {"learner.sac.n_step=3", "learner.sac.batch_size=100",
                  "learner.sac.updates_per_env_step=2", "learner.sac.random_steps=500"});
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, "replay");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->window().length(), 4);
  EXPECT_EQ(table->rate_limiter().samples_per_insert(), 200);
  EXPECT_EQ(table->rate_limiter().min_size(), 500);
  EXPECT_EQ(table->rate_limiter().slack(), 2 * 100 + 64 * 200);
}

TEST(EffectiveTable, AMemoryMakesWindowsLonger) {
  const proto::Config config =
      Parsed("", {"learner.sac.n_step=3", "learner.sac.recurrence.kind=GRU",
                  "learner.sac.recurrence.burn_in=5", "learner.sac.recurrence.sequence_length=10"});
  EXPECT_EQ(EffectiveTable(config, "replay")->window().length(), 18);
}

TEST(EffectiveTable, StacksOfFramesMakeWindowsLongerAndNothingElse) {
  const proto::Table sac = *EffectiveTable(
      Parsed("", {"learner.sac.n_step=3", "learner.sac.encoder.frame_stack=4"}), "replay");
  EXPECT_EQ(sac.window().length(), 4 + 3);
  EXPECT_EQ(sac.window().stride(), 1);
  EXPECT_TRUE(sac.window().start_at_final_rows()) << "a window's first row begins no transition";
  const proto::Table ppo = *EffectiveTable(
      Parsed("", {"learner.ppo.unroll_length=10", "learner.ppo.encoder.frame_stack=4"}), "replay");
  EXPECT_EQ(ppo.window().length(), 4 + 11);
  EXPECT_EQ(ppo.window().stride(), 11);
  const proto::Table one = *EffectiveTable(
      Parsed("", {"learner.ppo.unroll_length=10", "learner.ppo.encoder.features=8"}), "replay");
  EXPECT_EQ(one.window().length(), 11);
}

TEST(EffectiveTable, KeepsWhatIsWritten) {
  const proto::Config config =
      Parsed("", {"tables.rate_limiter.min_size=7", "tables.rate_limiter.samples_per_insert=0"});
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, "replay");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->rate_limiter().min_size(), 7);
  EXPECT_EQ(table->rate_limiter().samples_per_insert(), 0);
}

TEST(EffectiveTable, LeavesOtherTablesToThemselves) {
  const proto::Config config = Parsed("", {"tables[0].name=replay", "tables[1].name=other"});
  const absl::StatusOr<proto::Table> table = EffectiveTable(config, "other");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_FALSE(table->window().has_length());
  EXPECT_EQ(table->rate_limiter().min_size(), 1);
  EXPECT_EQ(table->rate_limiter().samples_per_insert(), 0);
}

TEST(EffectiveTable, AnUnknownNameListsTheTables) {
  const absl::StatusOr<proto::Table> table = EffectiveTable(Parsed(""), "queue");
  EXPECT_EQ(table.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(table.status().message()), HasSubstr("replay"));
}

}  // namespace
}  // namespace troupe
