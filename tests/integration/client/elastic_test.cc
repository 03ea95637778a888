// Shards behind one name that come, go, and return elsewhere, with all kinds of clients.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "actor/row_writer.h"
#include "common/crc32c.h"
#include "common/follow_client.h"
#include "common/replay_client.h"
#include "common/shard_directory.h"
#include "common/snapshot_client.h"
#include "common/version.h"
#include "replay_server/server.h"
#include "tests/integration/security/certificates.h"
#include "tests/unit/client/small_layout.h"
#include "tests/unit/replay_server/rows.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

constexpr char kName[] = "shards.test:7000";

absl::Time Soon() { return absl::Now() + absl::Minutes(2); }

// What happens in time.
void Await(const std::function<bool()>& condition) {
  const absl::Time deadline = Soon();
  while (!condition()) {
    ASSERT_LT(absl::Now(), deadline) << "waited in vain";
    absl::SleepFor(absl::Milliseconds(1));
  }
}

// What the name resolves to; changed by the test, read by the directory's thread.
class Names final {
 public:
  void Set(std::vector<std::string> addresses) {
    absl::MutexLock lock(&mu_);
    addresses_ = std::move(addresses);
  }
  absl::StatusOr<std::vector<std::string>> Resolve() const {
    absl::MutexLock lock(&mu_);
    if (addresses_.empty()) return absl::UnavailableError("no such name");
    return addresses_;
  }

 private:
  mutable absl::Mutex mu_;
  std::vector<std::string> addresses_ ABSL_GUARDED_BY(mu_);
};

// One data directory, and a server of it now and then.
class ElasticShard final {
 public:
  explicit ElasticShard(const std::string& data_dir) {
    options_.data_dir = data_dir;
    options_.tables.push_back({.name = "replay", .path = "", .capacity_rows = 64 * 1024});
    Start("127.0.0.1:0");
  }

  void Start(const std::string& address) {
    auto server = Server::Start(address, options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    address_ = absl::StrCat("127.0.0.1:", server_->port());
  }
  // Calls are cut off.
  void Stop() { server_ = nullptr; }
  // The last one.
  const std::string& address() const { return address_; }
  bool is_up() const { return server_ != nullptr; }
  proto::TableDescription Table() const { return server_->shard().Describe().tables(0); }
  uint64_t id() const { return server_->shard().id(); }

 private:
  ShardOptions options_;
  std::unique_ptr<Server> server_;
  std::string address_;
};

class ElasticTest : public ::testing::Test {
 protected:
  ElasticTest() { AddShard(); }

  ElasticShard& AddShard() {
    shards_.push_back(
        std::make_unique<ElasticShard>(dir_.File(absl::StrCat("shard_", shards_.size()))));
    List();
    return *shards_.back();
  }
  // The name resolves to the shards that are up.
  void List() {
    std::vector<std::string> addresses;
    for (const auto& shard : shards_) {
      if (shard->is_up()) addresses.push_back(shard->address());
    }
    names_->Set(addresses);
  }
  ShardDirectoryOptions DirectoryOptions() {
    ShardDirectoryOptions options;
    options.targets = {kName};
    options.credentials = Credentials::Plaintext(/*anywhere=*/true);
    options.least = absl::Milliseconds(5);
    options.most = absl::Milliseconds(50);
    options.resolve = [names = names_](const std::string&) { return names->Resolve(); };
    return options;
  }
  // Of one client process.
  std::shared_ptr<ShardDirectory> Directory() {
    auto directory = ShardDirectory::Create(DirectoryOptions()).value();
    EXPECT_TRUE(directory->WaitForShards(Soon()).ok());
    return directory;
  }
  RowWriterOptions Writing(int64_t index) {
    RowWriterOptions options;
    options.directory = Directory();
    options.first_shard = index;
    options.run = "test";
    options.table = "replay";
    options.message_bytes = 2000;
    options.max_unacked_bytes = 64 << 20;
    options.reconnect_min = absl::Milliseconds(5);
    options.reconnect_max = absl::Milliseconds(100);
    options.move_after = absl::Hours(1);
    return options;
  }
  static std::unique_ptr<RowWriter> Connect(RowWriterOptions options) {
    auto writer =
        RowWriter::Create(std::move(options), Layout::FromProto(testing::SmallLayout()).value())
            .value();
    EXPECT_TRUE(writer->WaitConnected(Soon()).ok());
    return writer;
  }
  std::unique_ptr<ReplayClient> Reader() {
    ReplayClientOptions options;
    options.directory = Directory();
    options.run = "test";
    options.table = "replay";
    options.batch_size = 32;
    options.reconnect_max = absl::Milliseconds(100);
    auto reader = ReplayClient::Create(options).value();
    EXPECT_TRUE(reader->WaitForTable(Soon()).ok());
    return reader;
  }
  static void Append(RowWriter& writer, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) {
      const auto appended = writer.Append(0, [](absl::Span<char>) {});
      ASSERT_TRUE(appended.ok()) << appended.status();
    }
  }
  // Shards of which windows are drawn in some batches.
  static std::set<int32_t> DrawnFrom(ReplayClient& reader) {
    std::set<int32_t> shards;
    for (int i = 0; i < 50; ++i) {
      const auto batch = reader.NextBatch(Soon());
      EXPECT_TRUE(batch.ok()) << batch.status();
      if (!batch.ok()) break;
      shards.insert(batch->buffer->shards.begin(), batch->buffer->shards.end());
    }
    return shards;
  }
  uint64_t StoredRows() const {
    uint64_t rows = 0;
    for (const auto& shard : shards_) rows += shard->Table().rows_appended();
    return rows;
  }

  TempDir dir_;
  const std::shared_ptr<Names> names_ = std::make_shared<Names>();
  std::vector<std::unique_ptr<ElasticShard>> shards_;
};

TEST_F(ElasticTest, AShardThatIsAddedTakesItsShareOfRowsAndDraws) {
  std::vector<std::unique_ptr<RowWriter>> writers;
  for (int64_t i = 0; i < 4; ++i) writers.push_back(Connect(Writing(i)));
  for (auto& writer : writers) Append(*writer, 100);
  const auto reader = Reader();
  EXPECT_EQ(DrawnFrom(*reader), std::set<int32_t>{0});
  const ElasticShard& added = AddShard();
  Await([&] {
    int64_t there = 0;
    for (auto& writer : writers) there += writer->stats().shard == 1;
    return there == 2;
  });
  for (auto& writer : writers) {
    Append(*writer, 100);
    ASSERT_TRUE(writer->Flush(Soon()).ok());
  }
  EXPECT_EQ(added.Table().rows_appended(), 200);
  EXPECT_EQ(StoredRows(), 800);
  Await([&] { return reader->stats().shards_up == 2; });
  Await([&] { return DrawnFrom(*reader) == std::set<int32_t>({0, 1}); });
  Await([&] { return reader->counts().env_steps == 800; });
}

TEST_F(ElasticTest, AShardThatReturnsAtAnotherAddressIsTheSameWithItsRows) {
  const auto writer = Connect(Writing(0));
  Append(*writer, 500);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  const auto reader = Reader();
  DrawnFrom(*reader);
  Append(*writer, 300);
  ElasticShard& shard = *shards_[0];
  const std::string before = shard.address();
  const uint64_t id = shard.id();
  shard.Stop();
  List();
  Append(*writer, 200);
  const auto elsewhere = Listener::Bind(before).value();  // or it might get the same port again
  shard.Start("127.0.0.1:0");
  ASSERT_NE(shard.address(), before);
  ASSERT_EQ(shard.id(), id);
  List();
  const absl::Status flushed = writer->Flush(Soon());
  ASSERT_TRUE(flushed.ok()) << flushed;
  EXPECT_EQ(writer->stats().streams_renamed, 0);
  EXPECT_EQ(writer->stats().moves, 0);
  EXPECT_EQ(shard.Table().rows_appended(), 1000);
  Await([&] { return reader->counts().env_steps == 1000; });
  EXPECT_EQ(DrawnFrom(*reader), std::set<int32_t>{0});
  EXPECT_EQ(reader->stats().shards_up, 1);
}

TEST_F(ElasticTest, ShardsWhoseAddressesChangeHandsGetTheirOwnRows) {
  AddShard();
  const auto first = Connect(Writing(0));
  const auto second = Connect(Writing(1));
  Append(*first, 500);
  Append(*second, 300);
  ASSERT_TRUE(first->Flush(Soon()).ok());
  ASSERT_TRUE(second->Flush(Soon()).ok());
  std::set<uint64_t> before = {shards_[0]->Table().rows_appended(),
                               shards_[1]->Table().rows_appended()};
  EXPECT_EQ(before, (std::set<uint64_t>{300, 500}));
  const uint64_t of_first = shards_[0]->Table().rows_appended();
  const std::string address = shards_[0]->address();
  shards_[0]->Stop();
  shards_[1]->Stop();
  Append(*first, 50);
  Append(*second, 30);
  shards_[0]->Start(shards_[1]->address());
  shards_[1]->Start(address);
  for (const auto& writer : {first.get(), second.get()}) {
    const absl::Status flushed = writer->Flush(Soon());
    ASSERT_TRUE(flushed.ok()) << flushed;
    EXPECT_EQ(writer->stats().streams_renamed, 0);
  }
  EXPECT_EQ(shards_[0]->Table().rows_appended(), of_first * 11 / 10);
  EXPECT_EQ(StoredRows(), 880);
}

TEST_F(ElasticTest, AShardThatIsGoneIsRoutedAroundAndTakesItsWritersBack) {
  AddShard();
  RowWriterOptions options = Writing(0);
  options.move_after = absl::Milliseconds(200);
  const auto writer = Connect(std::move(options));
  const int32_t home = writer->stats().shard;
  const int gone =
      writer->shard_name() == absl::StrCat(kName, " (", shards_[0]->address(), ")") ? 0 : 1;
  Append(*writer, 1000);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  const auto reader = Reader();
  DrawnFrom(*reader);
  shards_[gone]->Stop();
  List();
  Append(*writer, 10);
  Await([&] { return writer->stats().shard != home; });
  Append(*writer, 1000);
  Await([&] { return DrawnFrom(*reader).size() == 1; });
  shards_[gone]->Start(shards_[gone]->address());
  List();
  Await([&] { return writer->stats().shard == home; });
  Append(*writer, 100);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  EXPECT_EQ(StoredRows(), 2110);
  EXPECT_EQ(writer->stats().rows_dropped, 0);
  Await([&] { return reader->stats().shards_up == 2 && reader->counts().env_steps == 2110; });
  Await([&] { return DrawnFrom(*reader).size() == 2; });
}

TEST_F(ElasticTest, AShardThatIsAddedGetsTheNewestSnapshot) {
  const SnapshotClientOptions options{
      .directory = Directory(), .run = "test", .reconnect_max = absl::Milliseconds(100)};
  const auto publisher = SnapshotPublisher::Create(options).value();
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->run = "test";
  snapshot->version = PolicyVersion{.epoch = 1, .counter = 1}.Packed();
  snapshot->image = "policy";
  snapshot->crc32c = Crc32c(0, snapshot->image.data(), snapshot->image.size());
  ASSERT_TRUE(publisher->Publish(snapshot).ok());
  ASSERT_TRUE(publisher->WaitPublished(snapshot->version, Soon()).ok());
  const ElasticShard& added = AddShard();
  const auto subscriber =
      SnapshotSubscriber::Create({.shards = {added.address()}, .run = "test"}, 0).value();
  const auto received = subscriber->WaitNewer(0, Soon());
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ((*received)->image, "policy");
}

TEST_F(ElasticTest, AFollowerGoesOnWhereItWasWhenAShardReturnsElsewhereAndFollowsNewOnes) {
  const auto writer = Connect(Writing(0));
  const auto other = Connect(Writing(1));
  Append(*writer, 100);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  const auto follower =
      FollowClient::Create(
          {.directory = Directory(),
           .run = "test",
           .table = "replay",
           .capacity_rows = 64 * 1024,
           .stride_bytes = Layout::FromProto(testing::SmallLayout())->stride_bytes(),
           .reconnect_max = absl::Milliseconds(100)})
          .value();
  const auto follow_until = [&](uint64_t rows) {
    const absl::Time deadline = Soon();
    while (follower->stats().rows < rows) {
      ASSERT_LT(absl::Now(), deadline) << follower->stats().rows << " rows came";
      follower->Next(absl::Now() + absl::Milliseconds(100)).IgnoreError();
    }
  };
  follow_until(100);
  ElasticShard& shard = *shards_[0];
  const std::string before = shard.address();
  shard.Stop();
  const auto elsewhere = Listener::Bind(before).value();
  shard.Start("127.0.0.1:0");
  List();
  Append(*writer, 50);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  follow_until(150);
  AddShard();
  Await([&] { return writer->stats().shard == 1 || other->stats().shard == 1; });
  Append(*writer, 70);
  Append(*other, 70);
  ASSERT_TRUE(writer->Flush(Soon()).ok());
  ASSERT_TRUE(other->Flush(Soon()).ok());
  follow_until(290);
  EXPECT_EQ(follower->stats().rows, 290);
  EXPECT_EQ(follower->stats().restarts, 0);
  EXPECT_EQ(follower->stats().shards_up, 2);
}

TEST_F(ElasticTest, WithTlsAShardIsHeldToItsNameWhateverItsAddress) {
  const CertificateAuthority authority;
  authority.Issue({.common_name = "actor"}, dir_.File("actor"));
  std::vector<std::unique_ptr<Server>> servers;
  std::vector<std::string> addresses;
  for (const std::string name : {"elsewhere", "shards.test"}) {
    authority.Issue({.common_name = "replay_server", .dns_name = name}, dir_.File(name));
    ShardOptions options;
    options.data_dir = dir_.File(name + "_data");
    servers.push_back(
        Server::Start("127.0.0.1:0", options, *Credentials::MutualTls(dir_.File(name)).value())
            .value());
    addresses.push_back(absl::StrCat("127.0.0.1:", servers.back()->port()));
  }
  ShardDirectoryOptions options = DirectoryOptions();
  options.credentials = Credentials::MutualTls(dir_.File("actor")).value();
  names_->Set(addresses);
  const auto directory = ShardDirectory::Create(options).value();
  Await([&] { return directory->size() > 0; });
  EXPECT_THAT(directory->WaitForShards(absl::Now()).message(), HasSubstr(addresses[0]));
  EXPECT_EQ(directory->size(), 1);
  EXPECT_EQ(directory->Place(0).address, addresses[1]);
}

TEST_F(ElasticTest, ANameServerThatDoesNotAnswerDelaysNoEnd) {
  const auto never = std::make_shared<absl::Notification>();
  ShardDirectoryOptions options = DirectoryOptions();
  options.resolve = [never](const std::string&) {
    never->WaitForNotification();
    return absl::UnavailableError("");
  };
  auto directory = ShardDirectory::Create(options).value();
  EXPECT_FALSE(directory->WaitForShards(absl::Now() + absl::Milliseconds(50)).ok());
  directory = nullptr;
  never->Notify();
}

TEST_F(ElasticTest, WhoWaitsForShardsHearsWhatIsMissing) {
  shards_[0]->Stop();
  List();
  const auto directory = ShardDirectory::Create(DirectoryOptions()).value();
  Await([&] {
    return absl::StrContains(directory->WaitForShards(absl::Now()).message(), "no such name");
  });
  names_->Set({shards_[0]->address()});
  Await([&] {
    return absl::StrContains(directory->WaitForShards(absl::Now()).message(),
                             absl::StrCat(kName, " at ", shards_[0]->address()));
  });
  shards_[0]->Start(shards_[0]->address());
  EXPECT_TRUE(directory->WaitForShards(Soon()).ok());
  EXPECT_EQ(directory->size(), 1);
}

}  // namespace
}  // namespace troupe
