#include "tests/bench/image_case.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/decode/decoder.h"
#include "core/io/open_weights.h"
#include "image/arpg.h"
#include "image/llamagen.h"
#include "image/picture.h"
#include "image/run_record.h"
#include "image/vq_model.h"
#include "tests/bench/profiling_backend.h"
#include "tests/bench/storage_name.h"

namespace volley {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kSide = 16, kCells = kSide * kSide;  // codes of a 256 x 256 picture
constexpr int32_t kClass = 207;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct FamilyInfo {
  ImageFamily family;
  std::string_view name;
  std::string_view tensor;  // that only its checkpoints have
};
constexpr std::array<FamilyInfo, 3> kFamilies{{{ImageFamily::kArpg, "arpg", "embeddings.weight"},
                                               {ImageFamily::kLlamaGen, "llamagen", "tok_embeddings.weight"},
                                               {ImageFamily::kVq, "vq", "quantize.embedding.weight"}}};

// A loaded model and what a run of it does.
class Workload {
 public:
  virtual ~Workload() = default;
  // Makes working memory on `backend`: the one that loaded the model, or a wrapper of it.
  virtual void prepare(const std::shared_ptr<const Backend>& backend) = 0;
  // Makes the pictures; calls `on_first` when the first tokens, or pixels, are there.
  virtual void run(const std::function<void()>& on_first) = 0;
  // Counts since `prepare`.
  virtual Statistics statistics() const = 0;
  virtual std::string output_hash() const = 0;
};

class FirstStep : public Observer {
 public:
  explicit FirstStep(const std::function<void()>& on_first) : on_first_(on_first) {}
  void on_step(const StepEvent&) override {
    if (!seen_) on_first_();
    seen_ = true;
  }

 private:
  const std::function<void()>& on_first_;
  bool seen_ = false;
};

// The authors' settings for class-conditional pictures.
class TokenWorkload : public Workload {
 public:
  TokenWorkload(const ImageCase& wanted, WeightLoader loader, const WeightSource& source) {
    int32_t condition = 0, nothing = 0;
    LogitsChain chain;
    if (wanted.family == ImageFamily::kArpg) {
      auto model = std::make_unique<image::Arpg>(image::infer_arpg_config(source, kCells), std::move(loader));
      condition = model->class_token(kClass);
      nothing = model->null_class_token();
      chain.guidance = {.kind = GuidanceSchedule::Kind::kLinear, .scale = 5.0f};
      decoder_ =
          make_decoder(parse_decoder_spec("parallel:schedule=arccos,steps=" + std::to_string(wanted.steps)));
      model_ = std::move(model);
    } else {
      auto model =
          std::make_unique<image::LlamaGen>(image::infer_llamagen_config(source, kCells), std::move(loader));
      condition = model->class_token(kClass);
      nothing = model->null_class_token();
      chain.guidance = {.scale = 4.0f};
      chain.top_k = 2000;
      decoder_ = make_decoder({.name = "sequential"});
      model_ = std::move(model);
    }
    const Generation generation{.prompt = token_prompt(*model_, {&condition, 1}),
                                .unconditional = token_prompt(*model_, {&nothing, 1}),
                                .chain = chain,
                                .max_tokens = kCells};
    generations_.assign(static_cast<size_t>(wanted.batch), generation);
    for (size_t i = 0; i < generations_.size(); ++i) generations_[i].seed = i;
  }

  void prepare(const std::shared_ptr<const Backend>& backend) override {
    session_.reset();
    session_ =
        std::make_unique<Session>(*model_, backend,
                                  Session::Options{.sequences = 2 * static_cast<int64_t>(generations_.size()),
                                                   .entries = decoder_->entries(generations_.front())});
  }

  void run(const std::function<void()>& on_first) override {
    FirstStep observer(on_first);
    outputs_ = decoder_->decode(*session_, generations_, {.observer = &observer});
  }

  Statistics statistics() const override { return session_->statistics(); }
  std::string output_hash() const override {
    std::vector<int32_t> tokens;
    for (const GenerationOutput& output : outputs_)
      tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
    return image::hash_tokens(tokens);
  }

 private:
  std::unique_ptr<const StepModel> model_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<Generation> generations_;
  std::unique_ptr<Session> session_;
  std::vector<GenerationOutput> outputs_;
};

class PixelWorkload : public Workload {
 public:
  PixelWorkload(const ImageCase& wanted, WeightLoader loader, const WeightSource& source)
      : model_(image::infer_vq_config(source), std::move(loader)), batch_(wanted.batch) {
    for (int64_t i = 0; i < batch_ * kCells; ++i)
      codes_.push_back(static_cast<int32_t>(i % kCells * 7919 % model_.config().codebook_size));
  }

  void prepare(const std::shared_ptr<const Backend>& backend) override {
    arena_.reset();
    queue_ = backend->make_queue();
    backend_ = backend;
    arena_.emplace(*backend_);
  }

  void run(const std::function<void()>& on_first) override {
    const int64_t side = kSide * model_.config().factor();
    arena_->reset();
    const View<int32_t> codes = arena_->indices({batch_, kSide, kSide});
    const Tensor pixels = arena_->tensor({batch_, 3, side, side});
    queue_->upload(codes_.data(), codes.data, codes.size() * 4);
    model_.decode(*queue_, *arena_, {.codes = codes, .pixels = pixels});
    const View<uint8_t> bytes = arena_->bytes_of({batch_, side, side, 3});
    queue_->channel_bytes({.x = pixels, .out = bytes});
    rgb_.resize(static_cast<size_t>(bytes.size()));
    queue_->download(bytes.data, rgb_.data(), bytes.size());
    on_first();
  }

  Statistics statistics() const override { return {}; }
  std::string output_hash() const override {
    const auto last = rgb_.end() - std::ssize(rgb_) / batch_;
    return image::hash_tokens(std::vector<int32_t>(last, rgb_.end()));
  }

 private:
  image::VqModel model_;
  int64_t batch_;
  std::vector<int32_t> codes_;
  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<Queue> queue_;
  std::optional<Arena> arena_;
  std::vector<uint8_t> rgb_;
};

std::unique_ptr<Workload> load(const ImageCaseOptions& options, const Backend& backend) {
  const auto source = open_weights(options.weights);
  const WeightLoader loader(*source, backend, storage_of(options.dtype));
  if (options.wanted.family == ImageFamily::kVq)
    return std::make_unique<PixelWorkload>(options.wanted, loader, *source);
  return std::make_unique<TokenWorkload>(options.wanted, loader, *source);
}

json to_json(const OperationProfile& profile) {
  json kinds = json::object();
  for (const auto& [kind, cost] : profile.costs) {
    kinds[kind] = {{"calls", cost.calls},
                   {"seconds", cost.seconds},
                   {"rows", cost.rows},
                   {"weight_bytes", cost.weight_bytes},
                   {"cache_bytes", cost.cache_bytes},
                   {"is_quantized", cost.is_quantized},
                   {"operations", cost.operations}};
  }
  return kinds;
}

// A number from 1 to `most`, or 0.
int64_t parse_count(std::string_view digits, int64_t most) {
  int64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  const bool is_count = error == std::errc() && end == digits.data() + digits.size();
  return is_count && count >= 1 && count <= most ? count : 0;
}

}  // namespace

ImageCase parse_image_case(std::string_view name) {
  for (const FamilyInfo& known : kFamilies) {
    if (!name.starts_with(known.name) || !name.substr(known.name.size()).starts_with("-b")) continue;
    ImageCase wanted{.family = known.family};
    std::string_view digits = name.substr(known.name.size() + 2);
    if (const size_t steps = digits.find("-s"); known.family == ImageFamily::kArpg && steps != digits.npos) {
      wanted.steps = parse_count(digits.substr(steps + 2), kCells);
      digits = digits.substr(0, steps);
    }
    wanted.batch = parse_count(digits, 64);
    if (wanted.batch > 0 && wanted.steps > 0) return wanted;
  }
  throw Error("--case " + std::string(name) +
                  ": expected arpg-bN, arpg-bN-sK, llamagen-bN or vq-bN: N pictures, at most 64, in K steps",
              ErrorKind::kUsage);
}

std::string image_case_name(const ImageCase& wanted) {
  const auto known = std::ranges::find(kFamilies, wanted.family, &FamilyInfo::family);
  const std::string steps = wanted.steps == ImageCase().steps ? "" : "-s" + std::to_string(wanted.steps);
  return std::string(known->name) + "-b" + std::to_string(wanted.batch) + steps;
}

ImageFamily family_of_checkpoint(const std::string& path) {
  const auto source = open_weights(path);
  for (const FamilyInfo& known : kFamilies) {
    if (source->find(known.tensor) != nullptr) return known.family;
  }
  throw Error(path + ": no checkpoint of ARPG, LlamaGen or the VQ tokenizer");
}

json run_image_case(const ImageCaseOptions& options) {
  json report{
      {"case", image_case_name(options.wanted)}, {"dtype", options.dtype}, {"load_average", load_average()}};
  MemoryWatch memory;
  const auto backend = make_backend(options.device, options.threads);
  report["device"] = backend->info().description;

  const Clock::time_point opening = Clock::now();
  const auto workload = load(options, *backend);
  report["load_seconds"] = seconds_since(opening);
  report["load_peak_bytes"] = memory.take_peak();
  const int64_t weight_bytes = backend->allocated_bytes();
  report["weight_bytes"] = weight_bytes;

  workload->prepare(backend);
  report["cache_bytes"] = backend->allocated_bytes() - weight_bytes;
  workload->run([&] {
    report["first_token_seconds"] = seconds_since(opening);
    report["process_to_first_token_seconds"] = seconds_since(options.started);
  });
  report["run_peak_bytes"] = memory.take_peak();
  report["backend_peak_bytes"] = backend->peak_bytes();
  report["output_hash"] = workload->output_hash();
  const Statistics counts = workload->statistics();
  report["forwards"] = counts.forwards;
  report["prompt_forwards"] = counts.prompt_forwards;
  report["rows"] = counts.rows;
  report["tokens"] = counts.tokens;

  std::vector<double> seconds;
  for (int64_t i = 0; i < options.repeats; ++i) {
    const Clock::time_point start = Clock::now();
    workload->run([] {});
    seconds.push_back(seconds_since(start));
  }
  report["seconds"] = seconds;

  const auto profile = std::make_shared<OperationProfile>();
  workload->prepare(std::make_shared<ProfilingBackend>(backend, profile));
  if (options.profiling == Profiling::kYes) workload->run([] {});  // its memory is new
  profile->costs.clear();
  const Clock::time_point start = Clock::now();
  workload->run([] {});
  report["profiled_seconds"] = seconds_since(start);
  const OperationCost total = profile->total();
  report["weight_bytes_read"] = total.weight_bytes;
  report["cache_bytes_read"] = total.cache_bytes;
  report["operations"] = total.operations;
  if (options.profiling == Profiling::kYes) report["profile"] = to_json(*profile);
  return report;
}

}  // namespace volley
