// Seeds of the targets that read messages of proto/replay.proto and proto/weights.proto.
#include <array>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "common/crc32c.h"
#include "common/row_codec.h"
#include "proto/replay.pb.h"
#include "proto/weights.pb.h"
#include "tests/fuzz/corpus.h"
#include "tests/fuzz/encoded_rows.h"
#include "tests/unit/replica/made_up_rows.h"

namespace troupe {
namespace {

// Rows as append_request_fuzz, calls_fuzz and table_fuzz have them: one FLOAT64 column.
constexpr size_t kRowBytes = 24;

proto::Layout OneColumn() {
  proto::Layout layout;
  proto::Column* column = layout.add_columns();
  column->set_name("observation");
  column->set_dtype(proto::FLOAT64);
  return layout;
}

proto::AppendRequest Rows(std::initializer_list<std::pair<uint64_t, size_t>> runs) {
  proto::AppendRequest request;
  for (const auto& [stream, count] : runs) {
    proto::RowRun* run = request.add_runs();
    run->set_stream(stream);
    run->set_rows(std::string(count * kRowBytes, '\0'));
  }
  return request;
}

proto::AppendRequest OpenAppend(const std::string& table) {
  proto::AppendRequest request;
  request.mutable_open()->set_run("run");
  request.mutable_open()->set_table(table);
  *request.mutable_open()->mutable_layout() = OneColumn();
  request.mutable_open()->add_streams(7);
  return request;
}

void AddAppendRequests(const Corpus& corpus) {
  corpus.Add("append_request", "open", OpenAppend("replay").SerializeAsString());
  corpus.Add("append_request", "two_streams", Rows({{7, 3}, {8, 2}}).SerializeAsString());
  corpus.Add("append_request", "blocks", Rows({{7, 70}, {9, 1}, {7, 80}}).SerializeAsString());
  proto::AppendRequest request = Rows({{7, 2}, {7, 2}});
  request.mutable_runs(0)->mutable_rows()->at(8) = 1;  // terminated
  request.mutable_runs(1)->set_first_row(2);
  corpus.Add("append_request", "two_runs", request.SerializeAsString());
  request.mutable_runs(1)->set_first_row(~uint64_t{0});
  corpus.Add("append_request", "far_row", request.SerializeAsString());
  corpus.Add("append_request", "length_of_4_gib", "\x12\x80\x80\x80\x80\x10");
}

std::string WithLength(const std::string& message) {
  const auto size = static_cast<uint16_t>(message.size());
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + message;
}

// The method's number in calls_fuzz.cc, then the messages.
void AddCall(const Corpus& corpus, const std::string& seed, char method,
             const std::vector<std::string>& messages) {
  std::string bytes(1, method);
  for (const std::string& message : messages) bytes += WithLength(message);
  corpus.Add("calls", seed, bytes);
}

void AddReplayCalls(const Corpus& corpus) {
  for (const char* table : {"replay", "queue", "ranked"}) {
    AddCall(corpus, absl::StrCat("append_", table), 0,
            {OpenAppend(table).SerializeAsString(), Rows({{7, 3}, {8, 2}}).SerializeAsString()});
    proto::SampleRequest open;
    open.mutable_open()->set_run("run");
    open.mutable_open()->set_table(table);
    proto::SampleRequest draw;
    draw.set_num_windows(2);
    draw.mutable_priorities()->add_row_ids(64);
    draw.mutable_priorities()->add_priorities(2);
    AddCall(corpus, absl::StrCat("sample_", table), 1,
            {open.SerializeAsString(), draw.SerializeAsString()});
  }
  AddCall(corpus, "describe", 2, {""});
  proto::UpdatePrioritiesRequest update;
  update.set_run("run");
  update.set_table("ranked");
  update.mutable_priorities()->add_row_ids(64);
  update.mutable_priorities()->add_priorities(3);
  AddCall(corpus, "update_priorities", 3, {update.SerializeAsString()});
  proto::FollowRequest follow;
  follow.set_run("run");
  follow.set_table("replay");
  follow.set_next_block(2);
  follow.add_partial()->set_block(1);
  AddCall(corpus, "follow", 4, {follow.SerializeAsString()});
  proto::BackupRequest backup;
  backup.set_run("run");
  backup.set_name("copy");
  AddCall(corpus, "backup", 5, {backup.SerializeAsString()});
}

void AddWeightsCalls(const Corpus& corpus) {
  proto::SnapshotChunk chunk;
  chunk.mutable_header()->set_run("run");
  chunk.mutable_header()->set_version(1);
  chunk.mutable_header()->set_size_bytes(5);
  chunk.mutable_header()->set_crc32c(Crc32c(0, "image", 5));
  proto::SnapshotChunk rest;
  rest.set_data("image");
  AddCall(corpus, "publish", 6, {chunk.SerializeAsString(), rest.SerializeAsString()});
  proto::SubscribeRequest subscribe;
  subscribe.set_run("run");
  AddCall(corpus, "subscribe", 7, {subscribe.SerializeAsString()});
}

// Rows of the layout, each with other bytes, some of which become smaller.
std::string EncodedRows(const proto::Layout& layout, size_t count) {
  const RowCodec codec(Layout::FromProto(layout).value());
  std::string rows;
  for (size_t i = 0; i < count; ++i) {
    std::string packed(codec.sizes().packed(), '\0');
    for (size_t at = sizeof(RowHeader); i % 2 == 1 && at < packed.size(); ++at) {
      packed[at] = static_cast<char>(i * at * at);
    }
    codec.Encode(packed, &rows);
  }
  return rows;
}

// Encoded rows that evict others, and are told; table 8 of requests.h.
void AddEncodedTable(const Corpus& corpus) {
  proto::AppendRequest request;
  for (const size_t count : {100, 130, 60}) {
    proto::RowRun* run = request.add_runs();
    run->set_stream(count);
    run->set_rows(EncodedRows(EncodedLayout(), count));
  }
  proto::SampleRequest draw;
  draw.set_num_windows(3);
  corpus.Add("table", "encoded",
             "\10" + kZero + WithLength(request.SerializeAsString()) + "\1" +
                 WithLength(draw.SerializeAsString()) + "\3" + WithLength("") + "\4" +
                 WithLength(""));
}

void AddRowCodecs(const Corpus& corpus) {
  for (char number = 0; number < static_cast<char>(std::size(kCodecs)); ++number) {
    corpus.Add("row_codec", absl::StrCat("codecs_", static_cast<int>(number)),
               number + EncodedRows(LayoutOfCodecs(number), 3));
  }
}

// A life of each table of requests.h: what the numbers mean: table_fuzz.cc.
void AddTables(const Corpus& corpus) {
  proto::SampleRequest draw;
  draw.set_num_windows(3);
  draw.mutable_priorities()->add_row_ids(65);
  draw.mutable_priorities()->add_priorities(0.5f);
  proto::FollowRequest follow;
  follow.set_next_block(2);
  follow.add_partial()->set_block(1);
  const std::string restart = "\4" + WithLength("");
  proto::AppendRequest more = Rows({{7, 2}});
  more.mutable_runs(0)->set_first_row(70);
  more.mutable_runs(0)->mutable_rows()->at(8) = 1;  // terminated
  const std::string life = kZero + WithLength(Rows({{7, 70}, {8, 3}}).SerializeAsString()) + "\1" +
                           WithLength(draw.SerializeAsString()) + "\3" +
                           WithLength(follow.SerializeAsString()) + restart + kZero +
                           WithLength(more.SerializeAsString()) + "\1" +
                           WithLength(draw.SerializeAsString());
  for (char table = 0; table < 8; ++table) {
    corpus.Add("table", absl::StrCat("life_", static_cast<int>(table)), table + life);
  }
  corpus.Add("table", "evicting",
             kZero + kZero + WithLength(Rows({{7, 70}, {8, 130}, {9, 130}}).SerializeAsString()) +
                 "\3" + WithLength(follow.SerializeAsString()));
}

// What the numbers mean: acks_fuzz.cc.
void AddAcks(const Corpus& corpus) {
  const auto reply = [](std::initializer_list<std::pair<uint64_t, uint64_t>> held) {
    proto::AppendReply acks;
    for (const auto& [stream, rows] : held) {
      proto::StreamAck* ack = acks.add_acks();
      ack->set_stream(stream);
      ack->set_held_rows(rows);
    }
    const std::string bytes = acks.SerializeAsString();
    return std::string(1, static_cast<char>(bytes.size())) + bytes;
  };
  const std::string push = "\6\7\x10", send = "\x40\x40\x40", drop = "\x60", cut = "\x6e";
  const std::string ack = "\x80", resume = "\x81";
  const std::string begin = push + resume + reply({}) + send + ack + reply({{1, 3}, {2, 2}});
  corpus.Add("acks", "acked", begin + push + send + ack + reply({{1, 6}, {2, 6}, {3, 6}}));
  corpus.Add("acks", "resumed", begin + cut + push + resume + reply({{1, 4}, {2, 2}}) + send);
  corpus.Add("acks", "lost", begin + cut + resume + reply({{1, 1}, {2, 0}}) + push + send);
  corpus.Add("acks", "dropped", begin + cut + drop + drop + push + resume + reply({}) + send);
  corpus.Add("acks", "too_many", begin + ack + reply({{1, 1000}}) + resume + reply({{9, 1}}));
}

void AddSnapshotChunks(const Corpus& corpus) {
  proto::SnapshotChunk whole;
  whole.mutable_header()->set_run("run");
  whole.mutable_header()->set_version(1);
  whole.mutable_header()->set_size_bytes(5);
  whole.set_data("image");
  const std::string fitted = WithLength(whole.SerializeAsString());
  whole.mutable_header()->set_crc32c(Crc32c(0, "image", 5));
  whole.set_data("im");
  proto::SnapshotChunk rest;
  rest.set_data("age");
  const std::string parts =
      WithLength(whole.SerializeAsString()) + WithLength(rest.SerializeAsString());
  corpus.Add("snapshot_chunks", "whole", fitted);
  corpus.Add("snapshot_chunks", "parts", parts + fitted);
}

void AddSampleReplies(const Corpus& corpus) {
  proto::DescribeReply describe;
  proto::TableDescription* table = describe.add_tables();
  table->set_name("replay");
  table->set_window_length(2);
  *table->mutable_layout() = OneColumn();
  proto::SampleReply counts;
  counts.set_mass(1e3);
  counts.set_num_windows(1000);
  counts.mutable_counts()->set_inserted(1000);
  proto::SampleReply batch = counts;
  for (uint64_t i = 0; i < 4; ++i) {
    batch.add_row_ids(64 + i);
    batch.add_probabilities(0.001f);
  }
  batch.set_windows(std::string(4 * 2 * kRowBytes, 'r'));
  const std::string begin =
      WithLength(describe.SerializeAsString()) + WithLength(counts.SerializeAsString());
  const std::string whole = WithLength(batch.SerializeAsString());
  corpus.Add("sample_replies", "batches", begin + whole + whole + whole + whole);
  batch.mutable_row_ids()->RemoveLast();
  corpus.Add("sample_replies", "short", begin + WithLength(batch.SerializeAsString()) + whole);
  table->set_window_length(65536);
  table->mutable_layout()->mutable_columns(0)->add_shape(1 << 24);
  corpus.Add("sample_replies", "too_large", WithLength(describe.SerializeAsString()));
}

// Two streams in turn, in blocks of their own; then the first again, as if it were another shard's.
void AddFollowReplies(const Corpus& corpus) {
  std::string input(2, '\0');
  for (const auto& [block, stream, first_row, count] :
       std::vector<std::array<uint64_t, 4>>{{1, 7, 0, 40},
                                            {2, 8, 70, 20},
                                            {1, 7, 40, 24},
                                            {3, 7, 64, 30},
                                            {2, 8, 90, 5},
                                            {1, 7, 0, 10}}) {
    proto::FollowReply reply;
    proto::FollowedRows* run = reply.add_runs();
    run->set_block(block);
    run->set_stream(stream);
    run->set_first_row(first_row);
    run->set_rows(MadeUpRows(stream, first_row, count));
    input += WithLength(reply.SerializeAsString());
  }
  corpus.Add("follow_replies", "two_streams", input);
  input[0] = 4;
  corpus.Add("follow_replies", "five_steps", input);
}

}  // namespace

void AddMessages(const Corpus& corpus) {
  AddAppendRequests(corpus);
  AddReplayCalls(corpus);
  AddWeightsCalls(corpus);
  AddTables(corpus);
  AddEncodedTable(corpus);
  AddRowCodecs(corpus);
  AddAcks(corpus);
  AddSnapshotChunks(corpus);
  AddSampleReplies(corpus);
  AddFollowReplies(corpus);
}

}  // namespace troupe
