// make_fuzz_corpus REPOSITORY: makes tests/fuzz/corpus/<target>/* and tests/fuzz/config.dict anew.
// The seeds are small, valid inputs and some that are nearly so; each target's own file says how
// it reads them.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/crc32c.h"
#include "common/safetensors.h"
#include "google/protobuf/descriptor.h"
#include "proto/config.pb.h"
#include "proto/experience.pb.h"
#include "proto/weights.pb.h"
#include "tests/fuzz/corpus.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

// An image as the targets take it: the JSON header, a zero byte, the data.
std::string Framed(const std::string& image) {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, image.data(), sizeof(header_bytes));
  const std::string rest = image.substr(sizeof(header_bytes));
  return rest.substr(0, header_bytes) + kZero + rest.substr(header_bytes);
}

void AddSafetensors(const Corpus& corpus) {
  const std::string bytes(64, '\x3f');
  const absl::string_view all(bytes);
  const std::string tensors = EncodeSafetensors({{"a", proto::FLOAT32, {2, 3}, all.substr(0, 24)},
                                                 {"b", proto::FLOAT64, {}, all.substr(0, 8)},
                                                 {"c", proto::UINT8, {5}, all.substr(0, 5)},
                                                 {"d", proto::INT64, {0, 7}, ""},
                                                 {"e", proto::INT32, {1, 1, 1}, all.substr(0, 4)}},
                                                {{"format", "troupe"}, {"text", "\"\\\n\xc3\xa4"}})
                                  .value();
  corpus.Add("safetensors", "tensors", Framed(tensors));
  corpus.Add("safetensors", "raw", "R" + tensors);
  corpus.Add("safetensors", "empty", Framed(EncodeSafetensors({}, {}).value()));
  corpus.Add("safetensors", "overflow",
             "{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,4294967296],"
             "\"data_offsets\":[0,0]}}" +
                 kZero);
  corpus.Add("safetensors", "nested", std::string(200, '[') + std::string(200, ']'));
}

// Of a squashed Gaussian; what other distributions need as well is there, too.
std::map<std::string, std::string> PolicyText(const std::string& network) {
  return {{"format", "troupe.policy.2"},
          {"run", "run"},
          {"version", "1099511627777"},
          {"env_steps", "64"},
          {"updates", "10"},
          {"warmup", "0"},
          {"final", "0"},
          {"observation_size", "2"},
          {"action_size", "1"},
          {"distribution", "squashed_gaussian"},
          {"observation_clip", "0.0"},
          {"action_low", "[-2.0]"},
          {"action_high", "[2.0]"},
          {"network", network},
          {"log_std_min", "-5.0"},
          {"log_std_max", "2.0"},
          {"squash", "0"},
          {"num_choices", "[2]"}};
}

TensorView PolicyTensor(const char* name, std::vector<int64_t> shape) {
  static const std::vector<float>* const values = new std::vector<float>(8, 0.25f);
  size_t size_bytes = sizeof(float);
  for (const int64_t axis : shape) size_bytes *= axis;
  return {name, proto::FLOAT32, std::move(shape),
          absl::string_view(reinterpret_cast<const char*>(values->data()), size_bytes)};
}

// 4x4 pixels in stacks of 2, one convolution of 2x2 by 2 and one feature.
void AddPoliciesOfImages(const Corpus& corpus) {
  auto metadata = PolicyText("{}");
  metadata["observation_size"] = "0";
  metadata["image_shape"] = "[4,4,1]";
  metadata["encoder"] =
      "{\"layers\":[{\"channels\":1,\"kernelSize\":2,\"stride\":2}],\"features\":1,"
      "\"frameStack\":2}";
  std::vector<TensorView> tensors = {PolicyTensor("actor.head.weight", {1, 2}),
                                     PolicyTensor("actor.head.bias", {2}),
                                     PolicyTensor("actor.encoder.conv.0.weight", {1, 2, 2, 2}),
                                     PolicyTensor("actor.encoder.conv.0.bias", {1}),
                                     PolicyTensor("actor.encoder.linear.weight", {4, 1}),
                                     PolicyTensor("actor.encoder.linear.bias", {1})};
  const auto add = [&](const char* seed) {
    corpus.Add("policy", seed, Framed(EncodeSafetensors(tensors, metadata).value()));
  };
  metadata["distribution"] = "categorical";
  add("images_choices");
  metadata["distribution"] = "squashed_gaussian";
  tensors.push_back(PolicyTensor("actor.encoder.norm.weight", {1}));
  tensors.push_back(PolicyTensor("actor.encoder.norm.bias", {1}));
  add("images");
}

void AddPolicies(const Corpus& corpus) {
  std::vector<TensorView> tensors = {
      PolicyTensor("actor.hidden.0.weight", {2, 2}), PolicyTensor("actor.hidden.0.bias", {2}),
      PolicyTensor("actor.head.weight", {2, 2}), PolicyTensor("actor.head.bias", {2})};
  auto metadata = PolicyText("{\"hiddenSizes\":[2]}");
  const auto add = [&](const char* seed) {
    corpus.Add("policy", seed, Framed(EncodeSafetensors(tensors, metadata).value()));
  };
  add("plain");
  corpus.Add("policy", "raw", "R" + EncodeSafetensors(tensors, metadata).value());
  metadata["distribution"] = "categorical";
  add("choices");
  metadata["warmup"] = "1";
  add("warmup");
  for (const char* name :
       {"normalizer.mean", "normalizer.std", "actor.norm.0.weight", "actor.norm.0.bias"}) {
    tensors.push_back(PolicyTensor(name, {2}));
  }
  metadata = PolicyText("{\"hiddenSizes\":[2],\"activation\":\"TANH\",\"layerNorm\":true}");
  metadata["final"] = "1";
  metadata["observation_clip"] = "10.0";
  add("normalized");
  metadata = PolicyText("{}");
  tensors = {PolicyTensor("actor.head.weight", {2, 2}), PolicyTensor("actor.head.bias", {2})};
  add("linear");
  metadata["distribution"] = "gaussian";
  tensors = {PolicyTensor("actor.head.weight", {2, 1}), PolicyTensor("actor.head.bias", {1}),
             PolicyTensor("actor.log_std", {1}), PolicyTensor("normalizer.reward_std", {1})};
  add("gaussian");
  metadata["squash"] = "1";
  add("squashed");
  metadata = PolicyText("{}");
  metadata["recurrence"] = "{\"kind\":\"GRU\",\"units\":1}";
  tensors = {PolicyTensor("actor.head.weight", {3, 2}),
             PolicyTensor("actor.head.bias", {2}),
             PolicyTensor("actor.recurrent.input.weight", {2, 3}),
             PolicyTensor("actor.recurrent.input.bias", {3}),
             PolicyTensor("actor.recurrent.state.weight", {1, 3}),
             PolicyTensor("actor.recurrent.state.bias", {3})};
  add("memory");
  AddPoliciesOfImages(corpus);
}

void AddCheckpoints(const Corpus& corpus) {
  const std::string text =
      "{\"format\":\"troupe.checkpoint.1\",\"updates\":5000,\"counters\":{\"env_steps\":640},"
      "\"files\":{";
  const std::string model = "model";
  const std::string entry =
      absl::StrCat("\"model.safetensors\":{\"size\":", model.size(),
                   ",\"crc32c\":", Crc32c(0, model.data(), model.size()), "}");
  corpus.Add("checkpoint", "fitted", "=" + text + "}}" + kZero + model);
  corpus.Add("checkpoint", "whole", text + entry + "}}" + kZero + model);
  corpus.Add("checkpoint", "other_digest", text + entry + "}}" + kZero + "other");
  corpus.Add("checkpoint", "folder_above",
             "=" + text + "\"..\":{\"size\":0,\"crc32c\":0}}}" + kZero + model);
}

// Every file of deploy/configs, one of them with words of --set behind it.
void AddConfigs(const Corpus& corpus) {
  for (const auto& entry : fs::directory_iterator(corpus.repository() / "deploy/configs")) {
    if (entry.path().extension() != ".txtpb") continue;
    std::ifstream file(entry.path());
    std::ostringstream text;
    text << file.rdbuf();
    corpus.Add("config", entry.path().stem(), text.str());
  }
  std::string sets = "run: \"x\"";
  for (const char* set :
       {"learner.sac.gamma=0.98", "tables[0].capacity_rows=1e6", "tables.name=x", "shards+=a:1",
        "shards=a:1,b:2", "environment.id=Pendulum-v1", "learner.sac.actor.activation=TANH"}) {
    sets += kZero + set;
  }
  corpus.Add("config", "sets", sets);
}

void CollectWords(const google::protobuf::Descriptor& type, std::set<std::string>* words,
                  std::set<std::string>* seen) {
  if (!seen->insert(std::string(type.full_name())).second) return;
  for (int i = 0; i < type.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *type.field(i);
    words->insert(std::string(field.name()));
    if (field.message_type() != nullptr) CollectWords(*field.message_type(), words, seen);
    if (field.enum_type() == nullptr) continue;
    for (int j = 0; j < field.enum_type()->value_count(); ++j) {
      words->insert(std::string(field.enum_type()->value(j)->name()));
    }
  }
}

void WriteConfigDictionary(const Corpus& corpus) {
  std::set<std::string> words = {"=", "+=", "[0]", "[1]", "inf", "-inf", "nan", "1e6", "-1"};
  std::set<std::string> seen;
  CollectWords(*proto::Config::descriptor(), &words, &seen);
  std::string text = "# Names of proto/config.proto; made by make_corpus.cc.\n";
  for (const std::string& word : words) absl::StrAppend(&text, "\"", word, "\"\n");
  WriteWhole((corpus.repository() / "tests/fuzz/config.dict").string(), text);
}

proto::Layout PendulumLayout() {
  proto::Layout layout;
  layout.set_environment("Pendulum-v1");
  for (const auto& [name, size] : {std::pair{"observation", 3}, {"action", 1}, {"reward", 0}}) {
    proto::Column* column = layout.add_columns();
    column->set_name(name);
    column->set_dtype(proto::FLOAT32);
    if (size > 0) column->add_shape(size);
  }
  layout.mutable_columns(1)->add_low(-2);
  layout.mutable_columns(1)->add_high(2);
  return layout;
}

void AddLayouts(const Corpus& corpus) {
  proto::Layout layout = PendulumLayout();
  corpus.Add("layout", "pendulum", layout.SerializeAsString());
  proto::Column* image = layout.add_columns();
  image->set_name("image");
  image->set_dtype(proto::UINT8);
  for (const int axis : {3, 5, 7}) image->add_shape(axis);
  proto::Column* choice = layout.add_columns();
  choice->set_name("choice");
  choice->set_dtype(proto::INT64);
  choice->add_num_choices(4);
  corpus.Add("layout", "image", layout.SerializeAsString());
  image->set_shape(0, 1 << 24);
  image->set_shape(1, 1 << 24);
  corpus.Add("layout", "too_large", layout.SerializeAsString());
}

void AddSnapshots(const Corpus& corpus) {
  proto::SnapshotHeader header;
  header.set_run("run");
  header.set_version((uint64_t{3} << 40) + 7);
  header.set_size_bytes(5);
  const std::string fitted = header.SerializeAsString();  // without a digest: it is filled in
  header.set_crc32c(Crc32c(0, "image", 5));
  header.set_created_unix_ns(1);
  const std::string whole = header.SerializeAsString();
  const auto seed = [](const std::string& bytes) {
    return std::string(1, static_cast<char>(bytes.size())) + bytes + "image";
  };
  corpus.Add("snapshot_store", "fitted", seed(fitted));
  corpus.Add("snapshot_store", "whole", seed(whole));
  corpus.Add("snapshot_store", "raw", "RTROUPESN");
}

// What the numbers mean: row_log_fuzz.cc.
void AddRowLogs(const Corpus& corpus) {
  corpus.Add("row_log", "sound", "T");
  corpus.Add("row_log", "torn_headers", absl::StrCat("T\x08\x02", kZero, kZero, "\x03"));
  corpus.Add("row_log", "torn_rows", absl::StrCat("T\x04\x05", kZero, "\x10\x20"));
  corpus.Add("row_log", "one_flip", absl::StrCat("D\x01\x05\x20\x01\x03"));
  corpus.Add("row_log", "cut_off", absl::StrCat("D\x04", kZero, "\x50", kZero, kZero));
  for (const char check : {0, 1, 2, 3, 4, 5}) {
    // A byte of the part that this check covers, then the check made to fit.
    const char part = check < 4 ? 2 : 5 - check;
    std::string bytes = "H\x20";
    bytes += part;
    bytes += static_cast<char>(check < 4 ? 64 * check + 8 : 8);
    bytes += kZero + "\x40" + std::string(1, check);
    corpus.Add("row_log", absl::StrCat("fitted_", static_cast<int>(check)), bytes);
  }
  // The first row, or the generation, of a block so large that sums with it wrap.
  const std::string largest(7, '\xff');
  corpus.Add("row_log", "far_first_row",
             absl::StrCat("H\x23\x02\x08", kZero, "\xc0", largest, kZero));
  corpus.Add("row_log", "far_generation",
             absl::StrCat("H\x23\x02\x10", kZero, "\xfd", largest, kZero));
}

// What the numbers mean: restore_fuzz.cc.
void AddRestores(const Corpus& corpus) {
  for (char shards = 0; shards < 3; ++shards) {
    corpus.Add("restore", absl::StrCat("into_", shards + 1), std::string(1, shards));
  }
  // A byte of a block of each, one with its check made to fit.
  const std::string forged = absl::StrCat("\x20\x05", kZero, kZero, "\x40");
  corpus.Add("restore", "forged", absl::StrCat("\x01\x06", forged, kZero, forged));
}

void AddRequests(const Corpus& corpus) {
  corpus.Add("metrics_server", "metrics", "GET /metrics HTTP/1.1\r\nHost: a:1\r\n\r\n");
  corpus.Add("metrics_server", "query", "GET /metrics?name[]=up HTTP/1.0\r\n\r\n");
  corpus.Add("metrics_server", "other", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
  corpus.Add("metrics_server", "cut_off", "GET /metrics HTTP/1.1\r\n");
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_fuzz_corpus REPOSITORY\n");
    return 2;
  }
  const troupe::Corpus corpus(argv[1]);
  troupe::AddSafetensors(corpus);
  troupe::AddPolicies(corpus);
  troupe::AddCheckpoints(corpus);
  troupe::AddConfigs(corpus);
  troupe::WriteConfigDictionary(corpus);
  troupe::AddLayouts(corpus);
  troupe::AddSnapshots(corpus);
  troupe::AddRowLogs(corpus);
  troupe::AddRestores(corpus);
  troupe::AddRequests(corpus);
  troupe::AddMessages(corpus);
}
