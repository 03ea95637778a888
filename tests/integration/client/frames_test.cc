// Rows with compressed columns, from a writer over two shards to those who sample and follow them,
// over broken connections, restarts, backups and restores: to the byte what was packed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/row_writer.h"
#include "common/follow_client.h"
#include "common/replay_client.h"
#include "common/row_codec.h"
#include "replay_server/backup.h"
#include "replay_server/restore.h"
#include "replay_server/server.h"
#include "tests/unit/common/frame_rows.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {
namespace {

using testing::FrameLayout;
using testing::FrameRow;
using ::testing::HasSubstr;

constexpr int64_t kEnvs = 3;
constexpr int64_t kWindow = 4;
constexpr int64_t kBatch = 64;

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }

// Of environment e are the rows that FrameRow(e, 0), FrameRow(e, 1), ... are.
class FramesTest : public ::testing::TestWithParam<proto::Compression> {
 protected:
  FramesTest() {
    for (const char* name : {"first", "second"}) Start(name);
    writing_.run = "run";
    writing_.table = "replay";
    writing_.num_envs = kEnvs;
    writing_.message_bytes = 16 << 10;
    writing_.max_unacked_bytes = 4 << 20;
    writing_.reconnect_max = absl::Milliseconds(20);
  }

  // The shard with its data in this folder; where it was, if it ran before.
  void Start(const std::string& name) {
    TableOptions table;
    table.name = "replay";
    table.capacity_rows = 4096;
    table.window.length = kWindow;
    ShardOptions options;
    options.data_dir = dir_.File(name);
    options.backup_dir = dir_.File("backups");
    options.tables = {table};
    auto server = Server::Start(absl::StrCat("127.0.0.1:", ports_[name]), options);
    ASSERT_TRUE(server.ok()) << server.status();
    servers_[name] = *std::move(server);
    ports_[name] = servers_[name]->port();
  }
  std::string Address(const std::string& name) { return absl::StrCat("127.0.0.1:", ports_[name]); }

  std::unique_ptr<RowWriter> Writer(const std::string& shard) {
    writing_.shards = {Address(shard)};
    return RowWriter::Create(writing_, layout_).value();
  }
  // The next rows of all environments.
  static void Append(RowWriter* writer, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t env = 0; env < kEnvs; ++env) {
        const auto appended = writer->Append(env, [&](absl::Span<char> to) {
          const std::string packed = FrameRow(env, row);
          ASSERT_EQ(to.size(), packed.size());
          packed.copy(to.data(), to.size());
        });
        ASSERT_TRUE(appended.ok()) << appended.status();
      }
    }
  }

  static std::pair<uint64_t, uint64_t> WhoIs(const uint8_t* packed) {
    static const Layout layout = FrameLayout(proto::COMPRESSION_NONE);
    std::pair<uint64_t, uint64_t> who;
    std::memcpy(&who.first, packed + layout.Find("stream")->offset_bytes, sizeof(who.first));
    std::memcpy(&who.second, packed + layout.Find("row")->offset_bytes, sizeof(who.second));
    return who;
  }
  static std::string Bytes(const uint8_t* row) {
    return {reinterpret_cast<const char*>(row), FrameRow(0, 0).size()};
  }

  // Draws from these shards until each environment's windows were seen in number.
  void ExpectWindows(const std::vector<std::string>& shards) {
    ReplayClientOptions options;
    for (const std::string& shard : shards) options.shards.push_back(Address(shard));
    options.run = "run";
    options.table = "replay";
    options.batch_size = kBatch;
    auto client = ReplayClient::Create(options).value();
    ASSERT_TRUE(client->WaitForTable(Soon()).ok());
    for (int i = 0; i < 20; ++i) {
      const auto batch = client->NextBatch(Soon());
      ASSERT_TRUE(batch.ok()) << batch.status();
      for (int64_t window = 0; window < kBatch; ++window) {
        const auto [env, first] = WhoIs(batch->row(window, 0));
        for (int64_t t = 0; t < kWindow; ++t) {
          ASSERT_TRUE(Bytes(batch->row(window, t)) == FrameRow(env, first + t));
        }
      }
    }
  }
  // Follows these shards until they have sent so many rows.
  void ExpectRows(const std::vector<std::string>& shards, uint64_t count) {
    FollowClientOptions options;
    for (const std::string& shard : shards) options.shards.push_back(Address(shard));
    options.run = "run";
    options.table = "replay";
    options.capacity_rows = 4096;
    options.stride_bytes = layout_.stride_bytes();
    if (layout_.has_compressed_columns()) options.codec = std::make_shared<RowCodec>(layout_);
    auto client = FollowClient::Create(options).value();
    std::map<std::pair<uint64_t, uint64_t>, int> seen;
    while (seen.size() < count) {
      const auto reply = client->Next(Soon());
      ASSERT_TRUE(reply.ok()) << reply.status();
      for (const proto::FollowedRows& run : reply->runs()) {
        const auto* rows = reinterpret_cast<const uint8_t*>(run.rows().data());
        for (size_t at = 0; at < run.rows().size(); at += layout_.stride_bytes()) {
          const auto who = WhoIs(rows + at);
          EXPECT_EQ(++seen[who], 1);
          ASSERT_TRUE(Bytes(rows + at) == FrameRow(who.first, who.second));
        }
      }
    }
    EXPECT_EQ(client->stats().rows, count);
    EXPECT_EQ(client->stats().rows_behind, 0);
  }

  TempDir dir_;
  const Layout layout_ = FrameLayout(GetParam());
  std::map<std::string, int> ports_;
  std::map<std::string, std::unique_ptr<Server>> servers_;
  RowWriterOptions writing_;
};

TEST_P(FramesTest, WindowsAndFollowedRowsAreWhatWasPacked) {
  const auto writer = Writer("first");
  Append(writer.get(), 0, 300);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  ASSERT_NO_FATAL_FAILURE(ExpectWindows({"first"}));
  ASSERT_NO_FATAL_FAILURE(ExpectRows({"first"}, 300 * kEnvs));
}

TEST_P(FramesTest, AShardThatRestartsHasEveryRowOnce) {
  const auto writer = Writer("first");
  for (int64_t life = 0; life < 5; ++life) {
    Append(writer.get(), 100 * life, 100 * life + 50);
    if (life % 2 == 0) {
      ASSERT_TRUE(writer->Flush(Soon()).ok());
    }
    servers_["first"] = nullptr;
    Append(writer.get(), 100 * life + 50, 100 * life + 100);
    Start("first");
  }
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  EXPECT_EQ(writer->stats().rows_acked, 500 * kEnvs);
  EXPECT_EQ(writer->stats().unacked_bytes, 0);
  ASSERT_NO_FATAL_FAILURE(ExpectWindows({"first"}));
  ASSERT_NO_FATAL_FAILURE(ExpectRows({"first"}, 500 * kEnvs));
}

TEST_P(FramesTest, BackupsAndRestoresServeTheSameRows) {
  for (const char* shard : {"first", "second"}) {
    const auto writer = Writer(shard);
    const int64_t begin = std::string(shard) == "first" ? 0 : 150;
    Append(writer.get(), begin, begin + 150);
    ASSERT_TRUE(writer->Flush(Soon()).ok());
    const auto backup = Backup(&servers_[shard]->shard(), shard, [] { return false; });
    ASSERT_TRUE(backup.ok()) << backup.status();
    EXPECT_EQ(backup->rows(), 150 * kEnvs);
    servers_[shard] = nullptr;
  }
  const std::string backups = dir_.File("backups");
  const auto restored =
      Restore({backups + "/first", backups + "/second"}, {dir_.File("third"), dir_.File("fourth")});
  ASSERT_TRUE(restored.ok()) << restored.status();
  Start("third");
  Start("fourth");
  ASSERT_NO_FATAL_FAILURE(ExpectWindows({"third", "fourth"}));
  ASSERT_NO_FATAL_FAILURE(ExpectRows({"third", "fourth"}, 300 * kEnvs));
  if (GetParam() == proto::COMPRESSION_NONE) return;
  struct stat info = {};
  ASSERT_EQ(stat((dir_.File("third") + "/replay.rows").c_str(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, info.st_size / 4);
}

TEST_P(FramesTest, AnotherCompressionIsAnotherLayout) {
  const auto writer = Writer("first");
  ASSERT_TRUE(writer->WaitConnected(Soon()).ok());
  const proto::Compression other = GetParam() == proto::LZ4 ? proto::ZSTD : proto::LZ4;
  const auto refused = RowWriter::Create(writing_, FrameLayout(other)).value();
  const absl::Status status = refused->WaitConnected(Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("layout differs in column 1: 'observation.pixels' UINT8[40,40,1] "));
}

TEST_P(FramesTest, AWriterHoldsNoMoreRowsThanItMay) {
  servers_["first"] = nullptr;
  writing_.max_unacked_rows = 10;
  const auto writer = Writer("first");
  Append(writer.get(), 0, 3);
  ASSERT_TRUE(writer->Append(0, [](absl::Span<char>) {}).ok());
  EXPECT_EQ(writer->stats().rows_appended, 10);
  std::thread one_more([&] { EXPECT_TRUE(writer->Append(0, [](absl::Span<char>) {}).ok()); });
  while (writer->stats().blocked == absl::ZeroDuration()) std::this_thread::yield();
  EXPECT_EQ(writer->stats().rows_appended, 10);
  Start("first");
  one_more.join();
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  EXPECT_EQ(writer->stats().rows_acked, 11);
}

INSTANTIATE_TEST_SUITE_P(All, FramesTest,
                         ::testing::Values(proto::COMPRESSION_NONE, proto::LZ4, proto::ZSTD),
                         [](const auto& info) { return proto::Compression_Name(info.param); });

// A shard keeps bytes as they come; who reads them finds out.
TEST(Frames, BytesThatAreNoPictureAreNamedToWhoSamplesThem) {
  TempDir dir;
  TableOptions table;
  table.name = "replay";
  table.capacity_rows = 4096;
  table.window.length = 1;
  ShardOptions options;
  options.data_dir = dir.File("data");
  options.tables = {table};
  const auto server = Server::Start("127.0.0.1:0", options).value();
  std::string rows;
  RowCodec(FrameLayout(proto::LZ4)).Encode(FrameRow(1, 0), &rows);
  const size_t begin = RowSizes(FrameLayout(proto::LZ4)).bytes_offset();
  for (size_t at = begin; at < rows.size(); ++at) rows[at] = '\xff';
  Table& stored = **server->shard().FindTable("replay");
  ASSERT_TRUE(server->shard().ClaimRun("run").ok());
  ASSERT_TRUE(stored.Open("run", FrameLayout(proto::LZ4)).ok());
  ASSERT_TRUE(stored.Append({{7, 0, rows}}, 0, false).ok());
  ReplayClientOptions reading;
  reading.shards = {absl::StrCat("127.0.0.1:", server->port())};
  reading.run = "run";
  reading.table = "replay";
  reading.batch_size = 1;
  reading.reconnect_max = absl::Milliseconds(20);
  auto client = ReplayClient::Create(reading).value();
  ASSERT_TRUE(client->WaitForTable(Soon()).ok());
  const absl::Time deadline = Soon();
  std::string why;
  while (why.find("of column 'observation.pixels' are not 1600 bytes") == std::string::npos) {
    const auto batch = client->NextBatch(absl::Now() + absl::Milliseconds(50));
    ASSERT_FALSE(batch.ok());
    why = std::string(batch.status().message());
    ASSERT_LT(absl::Now(), deadline) << why;
  }
}

}  // namespace
}  // namespace troupe
