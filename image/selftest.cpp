#include "image/selftest.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"
#include "image/image_prompt.h"
#include "image/run_record.h"

namespace volley::image {
namespace {

constexpr int64_t kTokens = 16, kSteps = 8, kCaptionRows = 4;

// Numbers about as large as an encoder's, the same everywhere.
std::shared_ptr<const TextFeatures> made_up_features(const LlamaGenConfig& config) {
  TextFeatures features{.rows = std::min(kCaptionRows, config.cls_token_num)};
  for (int64_t i = 0; i < features.rows * config.caption_dim; ++i)
    features.values.push_back(0.01f * static_cast<float>(i * 37 % 41 - 20));
  return std::make_shared<const TextFeatures>(features);
}

Generation make_generation(const ImageModel& model) {
  ImageRequest request;
  if (model.text_encoder() != nullptr) request.prompt = "a red apple";
  if (model.card().is_caption_model()) request.features = made_up_features(model.card().llamagen->config);
  const ImagePrompt prompt = make_image_prompt(model, request);
  const bool is_raster = model.transformer() == Transformer::kLlamaGen;
  return {.prompt = prompt.given,
          .max_tokens = is_raster ? std::min(kTokens, model.card().tokens()) : model.card().tokens(),
          .first_index = prompt.first_index};
}

// The first output of `count` equal generations but for their seeds.
std::vector<int32_t> decode(const ImageModel& model, const DecoderSpec& spec, int64_t count,
                            const std::stop_token& stop) {
  const auto decoder = make_decoder(spec);
  std::vector<Generation> generations(static_cast<size_t>(count), make_generation(model));
  for (size_t i = 0; i < generations.size(); ++i) generations[i].seed = i;
  Session session(model.step_model(), model.backend(),
                  {.sequences = count, .entries = decoder->entries(generations.front())});
  return decoder->decode(session, generations, {.stop = stop}).front().tokens;
}

// The codes of a picture: those at hand, over and over.
std::string check_pixels(const ImageModel& model, const std::vector<int32_t>& tokens) {
  const int64_t side = model.card().image_size, grid = model.card().grid;
  std::vector<int32_t> codes(static_cast<size_t>(grid * grid));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = tokens[i % tokens.size()];
  const auto queue = model.backend()->make_queue();
  Arena arena(*model.backend());
  const View<int32_t> cells = arena.indices({1, grid, grid});
  const Tensor pixels = arena.tensor({1, 3, side, side});
  queue->upload(codes.data(), cells.data, grid * grid * 4);
  model.vq().decode(*queue, arena, {.codes = cells, .pixels = pixels});
  std::vector<float> values(static_cast<size_t>(pixels.size()));
  queue->download(pixels.data, values.data(), pixels.size() * 4);
  if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); }))
    return "the tokenizer gives pixels that are not finite";
  const auto [low, high] = std::ranges::minmax(values);
  return low < high ? "" : "the tokenizer gives pixels that are all alike";
}

}  // namespace

SelftestReport run_selftest(const ImageModel& model, SelftestPixels pixels, const std::stop_token& stop) {
  const bool is_raster = model.transformer() == Transformer::kLlamaGen;
  const DecoderSpec parallel{.name = "parallel", .options = {{"steps", std::to_string(kSteps)}}};
  const std::vector<int32_t> tokens =
      decode(model, is_raster ? DecoderSpec{.name = "sequential"} : parallel, 1, stop);
  const std::vector<int32_t> again =
      is_raster ? decode(model, {.name = "jacobi"}, 1, stop) : decode(model, parallel, 2, stop);
  SelftestReport report{.tokens = static_cast<int64_t>(tokens.size()), .token_hash = hash_tokens(tokens)};
  const int64_t codes = model.card().vq.config.codebook_size;
  const auto is_code = [codes](int32_t token) { return token >= 0 && token < codes; };
  if (stop.stop_requested()) return report;
  if (!std::ranges::all_of(tokens, is_code)) {
    report.fault = "a token is no code of the tokenizer";
  } else if (tokens != again) {
    report.fault = is_raster ? "jacobi does not give sequential decoding's tokens"
                             : "a picture's tokens depend on its company";
  } else if (pixels == SelftestPixels::kYes) {
    report.fault = check_pixels(model, tokens);
  }
  return report;
}

}  // namespace volley::image
