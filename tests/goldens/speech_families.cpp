// whisper, smdm, whisfusion.
#include <algorithm>

#include "core/base/error.h"
#include "core/decode/masked.h"
#include "core/decode/session.h"
#include "speech/diff_llama.h"
#include "speech/whisper_decoder.h"
#include "speech/whisper_encoder.h"
#include "tests/goldens/golden_case.h"

namespace volley::goldens {
namespace {

WeightLoader loader(const Run& run) {
  return {run.weights, *run.backend, WeightType::kF32};
}

// All rows at once under the model's first mask; logits of each.
SequenceStep whole_step(const StepModel& model, SequenceId sequence, std::span<const int32_t> ids) {
  SequenceStep step{.sequence = sequence, .rows = token_prompt(model, ids).rows, .write = CacheWrite::kNone};
  step.visibility.kind = model.traits().masks.front();
  for (size_t i = 0; i < ids.size(); ++i) step.wanted.logits.push_back(static_cast<int32_t>(i));
  return step;
}

void append_logits(const Session& session, const SequenceStep& step, std::vector<float>& logits) {
  for (size_t i = 0; i < step.wanted.logits.size(); ++i) {
    const std::vector<float> row = session.logits_on_host(session.logits_row(0, static_cast<int64_t>(i)));
    logits.insert(logits.end(), row.begin(), row.end());
  }
}

std::span<const int32_t> row_of(std::span<const int32_t> ids, int64_t row, int64_t width) {
  return ids.subspan(static_cast<size_t>(row * width), static_cast<size_t>(width));
}

}  // namespace

// ---- Whisper

namespace {

// The encoder's output [T, d].
std::vector<float> encode(const Run& run, const speech::WhisperConfig& config) {
  const speech::WhisperEncoder encoder(config, loader(run));
  const Shape mel_shape = run.golden.shape("mel", 2);
  if (mel_shape[0] != config.num_mel_bins) {
    throw Error(run.golden.folder() + ": mel " + mel_shape.to_string() + " has no " +
                std::to_string(config.num_mel_bins) + " bands");
  }
  const std::vector<float> values = run.golden.floats("mel");
  const std::unique_ptr<Queue> queue = run.backend->make_queue();
  Arena arena(*run.backend);
  const Tensor mel = arena.tensor({1, mel_shape[0], mel_shape[1]});                   // [1, n_mels, F]
  const Tensor rows = arena.tensor({1, encoder.rows(mel_shape[1]), config.d_model});  // [1, T, d]
  queue->upload(values.data(), mel.data, mel.size() * 4);
  encoder.encode(*queue, arena, {.mel = mel, .out = rows});
  std::vector<float> result(static_cast<size_t>(rows.size()));
  queue->download(rows.data, result.data(), rows.size() * 4);
  return result;
}

// The case holds every 100th row and the mean of all.
void check_encoder_rows(const Run& run, const std::vector<float>& rows, int64_t width) {
  constexpr int64_t kStride = 100;
  std::vector<float> some;
  for (int64_t row = 0; row * width < static_cast<int64_t>(rows.size()); row += kStride) {
    some.insert(some.end(), rows.begin() + row * width, rows.begin() + (row + 1) * width);
  }
  double sum = 0.0;
  for (float value : rows) sum += value;
  const auto mean = static_cast<float>(sum / static_cast<double>(rows.size()));
  run.check.close("encoder_rows", some);
  run.check.close("encoder_mean", {&mean, 1});
}

}  // namespace

void check_whisper(const Run& run) {
  const Case& golden = run.golden;
  const speech::WhisperConfig config = speech::parse_whisper_config(golden.config(), golden.config_path());
  const std::vector<float> rows = encode(run, config);
  check_encoder_rows(run, rows, config.d_model);

  const speech::WhisperDecoder decoder(config, loader(run));
  const Shape ids_shape = golden.shape("decoder_ids", 2);
  const std::vector<int32_t> ids = golden.ids("decoder_ids");
  Session session(decoder, run.backend,
                  {.entries = ids_shape[1],
                   .memory_sequences = 1,
                   .memory_entries = static_cast<int64_t>(rows.size()) / config.d_model});
  const SequenceId sequence = session.cache().create();
  const SequenceId memory = session.add_memory(rows);
  std::vector<float> logits;
  for (int64_t b = 0; b < ids_shape[0]; ++b) {
    SequenceStep step = whole_step(decoder, sequence, row_of(ids, b, ids_shape[1]));
    step.memory = memory;
    session.step({&step, 1});
    append_logits(session, step, logits);
  }
  run.check.close("logits", logits);

  const std::vector<int32_t> greedy = golden.ids("greedy");
  const std::span<const int32_t> made(greedy);
  if (made.size() < 2) throw Error(golden.folder() + ": greedy holds nothing but its given token");
  const Generation generation{.prompt = token_prompt(decoder, made.first(1)),
                              .chain = {.temperature = 0.0f},
                              .max_tokens = static_cast<int64_t>(made.size()) - 1};
  check_methods(run, {.model = decoder,
                      .generations = {generation},
                      .name = "greedy",
                      .expected = made.subspan(1),
                      .memory = rows});
}

// ---- SMDM

std::vector<float> whole_logits(const Run& run, const StepModel& model, const std::string& ids) {
  const Shape shape = run.golden.shape(ids, 2);
  const std::vector<int32_t> tokens = run.golden.ids(ids);
  Session session(model, run.backend, {.entries = shape[1]});
  const SequenceId sequence = session.cache().create();
  std::vector<float> logits;
  for (int64_t b = 0; b < shape[0]; ++b) {
    const SequenceStep step = whole_step(model, sequence, row_of(tokens, b, shape[1]));
    session.step({&step, 1});
    append_logits(session, step, logits);
  }
  return logits;
}

void check_smdm(const Run& run) {
  const Case& golden = run.golden;
  const speech::DiffLlama model(
      speech::parse_diff_llama_config(golden.config(), run.weights, golden.config_path()), loader(run));
  run.check.close("logits", whole_logits(run, model, "ids"));
}

// ---- Whisfusion

namespace {

std::string step_name(int64_t step, const char* what) {
  return "step" + std::to_string(step) + "." + what;
}

// The case's recorded numbers, [candidates, length] a step.
class RecordedUniforms : public MaskUniforms {
 public:
  RecordedUniforms(const Case& golden, int64_t steps, int64_t length) : length_(length) {
    for (int64_t s = 0; s < steps; ++s) numbers_.push_back(golden.floats(step_name(s, "u")));
  }
  float at(const Generation&, const Draw& draw) override {
    return numbers_[static_cast<size_t>(draw.step)]
                   [static_cast<size_t>(draw.candidate * length_ + draw.position)];
  }

 private:
  std::vector<std::vector<float>> numbers_;
  int64_t length_;
};

// Tokens of all candidates after each step, and logits where the case has them. A step whose candidates are
// the same runs one row of them.
class CandidateSteps : public Observer {
 public:
  CandidateSteps(const Session& session, int64_t candidates, std::vector<int32_t> start)
      : session_(session), tokens_(static_cast<size_t>(candidates), std::move(start)) {}

  void on_step(const StepEvent& event) override {
    std::vector<int32_t>& tokens = tokens_[static_cast<size_t>(event.candidate)];
    for (size_t i = 0; i < event.positions.size(); ++i) {
      tokens[static_cast<size_t>(event.positions[i]) + 1] = event.tokens[i];
    }
    std::vector<int32_t>& made = made_tokens[event.step];
    made.insert(made.end(), tokens.begin(), tokens.end());
    const auto length = static_cast<int64_t>(tokens.size());
    const bool is_shared = session_.logits().shape[0] == length;
    std::vector<float>& logits = made_logits[event.step];
    for (int64_t j = 0; j < length; ++j) {
      const auto row = session_.logits_on_host(session_.logits_row(is_shared ? 0 : event.candidate, j));
      logits.insert(logits.end(), row.begin(), row.end());
    }
  }

  std::map<int64_t, std::vector<int32_t>> made_tokens;
  std::map<int64_t, std::vector<float>> made_logits;

 private:
  const Session& session_;
  std::vector<std::vector<int32_t>> tokens_;
};

std::vector<double> mask_ratios(const nlohmann::json& config, const std::string& path, int64_t steps) {
  const auto found = config.find("mask_ratios");
  if (found == config.end() || !found->is_array() || static_cast<int64_t>(found->size()) < steps) {
    throw Error(path + ": key 'mask_ratios': expected " + std::to_string(steps) + " numbers");
  }
  std::vector<double> ratios;
  for (const nlohmann::json& ratio : *found) {
    if (!ratio.is_number()) throw Error(path + ": key 'mask_ratios': expected numbers");
    ratios.push_back(ratio.get<double>());
  }
  ratios.resize(static_cast<size_t>(steps));
  return ratios;
}

}  // namespace

void check_whisfusion(const Run& run) {
  const Case& golden = run.golden;
  const JsonFields fields(golden.config(), golden.config_path());
  const speech::DiffLlama model(
      speech::parse_diff_llama_config(golden.config(), run.weights, golden.config_path()), loader(run));
  const int64_t length = fields.integer("length", {2, 1 << 20}),
                candidates = fields.integer("candidates", {1, 4096});
  const int64_t steps = fields.integer("steps", {1, 4096});
  for (int64_t s = 0; s < steps; ++s) {
    if (golden.shape(step_name(s, "u")) != Shape({candidates, length})) {
      throw Error(golden.folder() + ": tensor " + step_name(s, "u") + ": expected [candidates, length]");
    }
  }
  const std::vector<float> audio = golden.floats("audio");
  Session session(model, run.backend,
                  {.sequences = candidates,
                   .entries = length,
                   .memory_sequences = 1,
                   .memory_entries = static_cast<int64_t>(audio.size()) / model.traits().memory_width});

  const auto bos = static_cast<int32_t>(fields.integer("bos_token_id"));
  Generation generation{.prompt = token_prompt(model, {&bos, 1}),
                        .max_tokens = length - 1,
                        .memory = session.add_memory(audio),
                        .mask_token = model.mask_token(),
                        .pad_token = static_cast<int32_t>(fields.integer("pad_token_id"))};
  std::vector<int32_t> start(static_cast<size_t>(length), model.mask_token());
  start[0] = bos;
  RecordedUniforms uniforms(golden, steps, length);
  CandidateSteps seen(session, candidates, std::move(start));
  const MaskedLoop loop{.candidates = candidates,
                        .mask_ratios = mask_ratios(golden.config(), golden.config_path(), steps),
                        .uniforms = &uniforms};
  const MaskedCandidates made = loop.run(session, {&generation, 1}, {.observer = &seen})[0];
  for (int64_t s = 0; s < steps; ++s) {
    run.check.equal(step_name(s, "tokens"), seen.made_tokens[s]);
    if (golden.has(step_name(s, "logits"))) run.check.close(step_name(s, "logits"), seen.made_logits[s]);
  }
  run.check.close("scores", made.scores);
  const auto best = static_cast<int32_t>(made.best);
  run.check.equal("best", {&best, 1});
}

}  // namespace volley::goldens
