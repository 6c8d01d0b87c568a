// llamagen_c2i, llamagen_t2i, arpg, llamagen_vq.
#include <algorithm>
#include <array>
#include <cstdlib>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "image/arpg.h"
#include "image/llamagen.h"
#include "image/vq_model.h"
#include "tests/goldens/golden_case.h"

namespace volley::goldens {
namespace {

WeightLoader loader(const Run& run) {
  return {run.weights, *run.backend, WeightType::kF32};
}

template <typename T>
void append(std::vector<T>& to, std::span<const T> from) {
  to.insert(to.end(), from.begin(), from.end());
}

// ---- LlamaGen

// What stands before the image tokens of one output, and of its guidance partner.
struct Conditions {
  PromptRows given;
  PromptRows null;
  // The last caption row is padding. The authors force it to see itself, so it gives the first logits; nobody
  // else sees it.
  bool ends_with_padding = false;
};

Conditions class_conditions(const image::LlamaGen& model, int64_t label) {
  const std::array<int32_t, 1> given{model.class_token(label)}, null{model.null_class_token()};
  return {.given = token_prompt(model, given), .null = token_prompt(model, null)};
}

// Rows of a caption that are not padding, and the last one in any case.
PromptRows caption_rows(const image::LlamaGen& model, const std::vector<float>& projected,
                        std::span<const int32_t> mask) {
  PromptRows prompt;
  const auto dim = static_cast<size_t>(model.config().dim);
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0 && i + 1 < mask.size()) continue;
    prompt.rows.push_back({.kind = RowKind::kEmbedding, .position = model.position(static_cast<int64_t>(i))});
    append(prompt.embeddings, std::span(projected).subspan(i * dim, dim));
  }
  return prompt;
}

std::vector<Conditions> all_conditions(const Run& run, const image::LlamaGen& model) {
  const Case& golden = run.golden;
  std::vector<Conditions> conditions;
  if (model.config().condition == image::Condition::kClass) {
    for (int32_t label : golden.ids("cond")) conditions.push_back(class_conditions(model, label));
    return conditions;
  }
  const Shape shape = golden.shape("cond", 3);
  const std::vector<float> features = golden.floats("cond");
  std::vector<int32_t> masks(static_cast<size_t>(shape[0] * shape[1]), 1);
  if (golden.has("mask")) masks = golden.ids("mask");
  if (shape[1] != model.config().cls_token_num || shape[2] != model.config().caption_dim ||
      static_cast<int64_t>(masks.size()) != shape[0] * shape[1]) {
    throw Error(golden.folder() + ": cond " + shape.to_string() + " and a mask of " +
                std::to_string(masks.size()) + " do not fit the model");
  }
  const std::unique_ptr<Queue> queue = run.backend->make_queue();
  Arena arena(*run.backend);
  const std::vector<float> null = model.caption().project(*queue, arena, model.caption().uncond_embedding());
  for (int64_t b = 0; b < shape[0]; ++b) {
    const auto size = static_cast<size_t>(shape[1] * shape[2]);
    const auto mask =
        std::span(masks).subspan(static_cast<size_t>(b * shape[1]), static_cast<size_t>(shape[1]));
    const std::vector<float> given = model.caption().project(
        *queue, arena, std::span(features).subspan(static_cast<size_t>(b) * size, size));
    conditions.push_back({.given = caption_rows(model, given, mask),
                          .null = caption_rows(model, null, mask),
                          .ends_with_padding = mask.back() == 0});
  }
  return conditions;
}

// One sequence whose logits come back to the host, a step at a time.
class HandFed {
 public:
  HandFed(Session& session, const PromptRows& prompt, bool ends_with_padding)
      : session_(session), sequence_(session.cache().create()) {
    SequenceStep step{
        .sequence = sequence_, .phase = Phase::kPrompt, .rows = prompt.rows, .embeddings = prompt.embeddings};
    if (ends_with_padding) {
      const auto kept = static_cast<int64_t>(step.embeddings.size()) - session.model().traits().dim;
      SequenceStep last = step;
      last.rows = {step.rows.back()};
      last.embeddings.assign(step.embeddings.begin() + kept, step.embeddings.end());
      last.write = CacheWrite::kNone;
      step.rows.pop_back();
      step.embeddings.resize(static_cast<size_t>(kept));
      if (!step.rows.empty()) run(step);
      run(last);
    } else {
      run(step);
    }
  }
  ~HandFed() { session_.cache().release(sequence_); }
  HandFed(const HandFed&) = delete;
  HandFed& operator=(const HandFed&) = delete;

  const std::vector<float>& logits() const { return logits_; }
  void feed(int32_t token, int64_t index) {
    SequenceStep step{.sequence = sequence_};
    step.rows.push_back({.token = token, .position = session_.model().position(index)});
    run(step);
  }

 private:
  void run(SequenceStep& step) {
    step.wanted.logits = {static_cast<int32_t>(step.rows.size()) - 1};
    session_.step({&step, 1});
    logits_ = session_.logits_on_host(session_.logits_row(0, 0));
    session_.cache().commit_prefix(
        sequence_, step.write == CacheWrite::kNone ? 0 : static_cast<int64_t>(step.rows.size()));
  }

  Session& session_;
  SequenceId sequence_;
  std::vector<float> logits_;
};

// A setting of generate(): "cfg4", "cfg4.interval5".
GuidanceSchedule parse_setting(const std::string& setting) {
  GuidanceSchedule guidance{.scale = std::strtof(setting.c_str() + 3, nullptr)};
  const size_t at = setting.find(".interval");
  if (at != std::string::npos) {
    guidance.kind = GuidanceSchedule::Kind::kInterval;
    guidance.interval = std::atoll(setting.c_str() + at + 9);
  }
  return guidance;
}

int32_t greedy(const LogitsChain& chain, const std::vector<float>& given, const std::vector<float>* null,
               int64_t index) {
  const SampleRow row = make_sample_row(chain, {.index = index}, {.unconditional = null != nullptr ? 1 : -1});
  std::vector<float> logits = given;
  for (size_t i = 0; i < logits.size() && row.guidance_row >= 0; ++i) {
    logits[i] = (*null)[i] + row.guidance_scale * (given[i] - (*null)[i]);
  }
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

// The setting made by hand: a token a step, each output alone.
void check_by_hand(const Run& run, const image::LlamaGen& model, const std::vector<Conditions>& conditions,
                   const std::string& setting, const LogitsChain& chain) {
  const bool guided = chain.guidance.scale > 1.0f;
  const int64_t first_index = model.config().cls_token_num;
  const int64_t count = run.golden.shape(setting + ".tokens", 2)[1];
  Session session(model, run.backend, {.sequences = 2, .entries = first_index + count});
  std::vector<int32_t> tokens;
  // Rows of the given conditions, then those of their partners.
  std::array<std::vector<float>, 2> first, last;
  for (const Conditions& condition : conditions) {
    HandFed given(session, condition.given, condition.ends_with_padding);
    HandFed null(session, condition.null, condition.ends_with_padding);
    for (int64_t t = 0; t < count; ++t) {
      if (t > 0) {
        given.feed(tokens.back(), first_index + t - 1);
        null.feed(tokens.back(), first_index + t - 1);
      }
      if (t == 0) {
        append<float>(first[0], given.logits());
        append<float>(first[1], null.logits());
      }
      tokens.push_back(greedy(chain, given.logits(), guided ? &null.logits() : nullptr, t));
    }
    append<float>(last[0], given.logits());
    append<float>(last[1], null.logits());
  }
  if (guided) {
    append<float>(first[0], first[1]);
    append<float>(last[0], last[1]);
  }
  run.check.equal(setting + ".tokens", tokens);
  if (run.golden.has(setting + ".prefill_logits")) run.check.close(setting + ".prefill_logits", first[0]);
  if (run.golden.has(setting + ".last_logits")) run.check.close(setting + ".last_logits", last[0]);
}

}  // namespace

void check_llamagen(const Run& run) {
  const Case& golden = run.golden;
  const image::LlamaGen model(image::parse_llamagen_config(golden.config(), golden.config_path()),
                              loader(run));
  const std::vector<Conditions> conditions = all_conditions(run, model);
  for (const std::string& setting : golden.names_before(".tokens")) {
    if (!setting.starts_with("cfg"))
      throw Error(golden.folder() + ": tensor " + setting + ".tokens: unknown setting");
    const LogitsChain chain{.guidance = parse_setting(setting), .temperature = 0.0f};
    check_by_hand(run, model, conditions, setting, chain);
    // Methods write every prompt row to the cache.
    if (std::ranges::any_of(conditions, &Conditions::ends_with_padding)) continue;
    std::vector<Generation> generations;
    for (const Conditions& condition : conditions) {
      generations.push_back({.prompt = condition.given,
                             .chain = chain,
                             .max_tokens = golden.shape(setting + ".tokens", 2)[1],
                             .first_index = model.config().cls_token_num});
      if (chain.guidance.scale > 1.0f) generations.back().unconditional = condition.null;
    }
    const std::vector<int32_t> expected = golden.ids(setting + ".tokens");
    check_methods(run, {.model = model, .generations = generations, .name = setting, .expected = expected});
  }
}

// ---- ARPG

namespace {

// Keeps the logits of the first and the last step of a batch, conditional rows of all outputs before the
// others, and the sizes of its steps.
class StepLogits : public Observer {
 public:
  StepLogits(const Session& session, int64_t outputs) : session_(session), outputs_(outputs) {}

  void on_step(const StepEvent& event) override {
    if (event.generation != 0) return;  // all outputs take the same steps
    sizes.push_back(static_cast<int32_t>(event.positions.size()));
    last.clear();
    for (int64_t partner = 0; partner < 2; ++partner) {
      for (int64_t b = 0; b < outputs_; ++b) {
        for (int64_t i = 0; i < sizes.back(); ++i) {
          append<float>(last, session_.logits_on_host(session_.logits_row(2 * b + partner, i)));
        }
      }
    }
    if (event.step == 0) first = last;
  }

  std::vector<int32_t> sizes;
  std::vector<float> first, last;

 private:
  const Session& session_;
  int64_t outputs_;
};

// "arccos.linear.8": schedule, guidance, steps.
struct ArpgSetting {
  std::string decoder;
  GuidanceSchedule guidance;
};

ArpgSetting parse_arpg_setting(const std::string& setting, float scale, const std::string& folder) {
  const size_t first = setting.find('.'), second = setting.rfind('.');
  const std::string guidance = second > first ? setting.substr(first + 1, second - first - 1) : "";
  if (guidance != "linear" && guidance != "constant") {
    throw Error(folder + ": tensor " + setting + ".tokens: unknown setting");
  }
  using Kind = GuidanceSchedule::Kind;
  return {.decoder = "parallel:schedule=" + setting.substr(0, first) + ",steps=" + setting.substr(second + 1),
          .guidance = {.kind = guidance == "linear" ? Kind::kLinear : Kind::kConstant, .scale = scale}};
}

}  // namespace

void check_arpg(const Run& run) {
  const Case& golden = run.golden;
  const image::Arpg model(image::parse_arpg_config(golden.config(), golden.config_path()), loader(run));
  const auto scale =
      static_cast<float>(JsonFields(golden.config(), golden.config_path()).number("guidance_scale"));
  std::vector<int32_t> order = golden.ids("order");
  for (int32_t& position : order) position -= 1;  // row 0 of the authors' sequence is the class
  const std::vector<int32_t> classes = golden.ids("classes");
  for (const std::string& name : golden.names_before(".tokens")) {
    const ArpgSetting setting = parse_arpg_setting(name, scale, golden.folder());
    std::vector<Generation> generations;
    for (int32_t label : classes) {
      const std::array<int32_t, 1> given{model.class_token(label)}, null{model.null_class_token()};
      generations.push_back({.prompt = token_prompt(model, given),
                             .unconditional = token_prompt(model, null),
                             .chain = {.guidance = setting.guidance, .temperature = 0.0f},
                             .max_tokens = golden.shape(name + ".tokens", 2)[1],
                             .order = order});
    }
    const std::unique_ptr<Decoder> decoder = make_decoder(parse_decoder_spec(setting.decoder));
    const auto outputs = static_cast<int64_t>(classes.size());
    Session session(model, run.backend,
                    {.sequences = 2 * outputs, .entries = decoder->entries(generations[0])});
    StepLogits steps(session, outputs);
    std::vector<int32_t> tokens;
    for (const GenerationOutput& output : decoder->decode(session, generations, {.observer = &steps})) {
      append<int32_t>(tokens, output.tokens);
    }
    std::vector<int32_t> sizes = golden.ids(name + ".step_sizes");
    std::erase(sizes, 0);  // steps that decide nothing are not taken
    run.check.equal(name + ".step_sizes", steps.sizes, sizes);
    run.check.close(name + ".first_logits", steps.first);
    run.check.close(name + ".last_logits", steps.last);
    run.check.equal(name + ".tokens", tokens);
  }
}

// ---- VQ tokenizer

void check_vq(const Run& run) {
  const Case& golden = run.golden;
  const image::VqModel model(image::parse_vq_config(golden.config(), golden.config_path()), loader(run));
  const int64_t factor = model.config().factor();
  const Shape pixels_shape = golden.shape("pixels", 4), image_shape = golden.shape("image", 4);
  const std::unique_ptr<Queue> queue = run.backend->make_queue();
  Arena arena(*run.backend);

  // Codes to pixels. The grid is what the pixels are, in cells.
  const std::vector<int32_t> codes = golden.ids("codes");
  const Shape grid{pixels_shape[0], pixels_shape[2] / factor, pixels_shape[3] / factor};
  if (grid.size() != static_cast<int64_t>(codes.size())) {
    throw Error(golden.folder() + ": " + std::to_string(codes.size()) + " codes for pixels " +
                pixels_shape.to_string());
  }
  const View<int32_t> code_view = arena.indices(grid);  // [N, h, w]
  const Tensor pixels = arena.tensor(pixels_shape);     // [N, 3, H, W]
  queue->upload(codes.data(), code_view.data, code_view.size() * 4);
  model.decode(*queue, arena, {.codes = code_view, .pixels = pixels});
  std::vector<float> pixel_values(static_cast<size_t>(pixels.size()));
  queue->download(pixels.data, pixel_values.data(), pixels.size() * 4);
  run.check.close("pixels", pixel_values);

  // Pixels to latents and codes.
  const std::vector<float> image = golden.floats("image");
  const Tensor picture = arena.tensor(image_shape);                     // [N, 3, H, W]
  const Tensor latents = arena.tensor(golden.shape("encoder_out", 4));  // [N, e, h, w]
  const View<int32_t> encoded =
      arena.indices({latents.shape[0], latents.shape[2], latents.shape[3]});  // [N, h, w]
  queue->upload(image.data(), picture.data, picture.size() * 4);
  model.encode(*queue, arena, {.pixels = picture, .latents = latents, .codes = encoded});
  std::vector<float> latent_values(static_cast<size_t>(latents.size()));
  std::vector<int32_t> encoded_codes(static_cast<size_t>(encoded.size()));
  queue->download(latents.data, latent_values.data(), latents.size() * 4);
  queue->download(encoded.data, encoded_codes.data(), encoded.size() * 4);
  run.check.close("encoder_out", latent_values);
  run.check.equal("encoded_codes", encoded_codes);
}

}  // namespace volley::goldens
