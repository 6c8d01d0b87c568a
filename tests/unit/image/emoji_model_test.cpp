// The model in the box against its training code: logits (calculated in f64) and pixels (f32) that PyTorch
// gave for the shipped weights. The tensors are described in tools/train/export.py, write_reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "core/decode/generation.h"
#include "core/decode/session.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"
#include "image/image_prompt.h"
#include "image/picture.h"
#include "tests/support/devices.h"

namespace volley::image {
namespace {

const std::string kFolder = std::string(VOLLEY_SOURCE_DIR) + "/assets/models/emoji-128";
constexpr int64_t kStride = 8;  // of the vocabulary entries and pixels kept

class EmojiModel : public testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<WeightSource> reference_ = open_weights(kFolder + "/reference.safetensors");

  ImageModel load(Transformer transformer) const {
    return ImageModel(read_image_card(kFolder), {.backend = backend_, .transformer = transformer});
  }
  std::vector<int64_t> integers(std::string_view name) const { return to_i64(*reference_->find(name)); }
  std::vector<float> floats(std::string_view name) const { return to_f32(*reference_->find(name)); }

  std::vector<std::string> reference_prompts() const {
    std::vector<std::string> prompts(1);
    for (const int64_t byte : integers("prompts")) {
      if (byte == '\n') {
        prompts.emplace_back();
      } else {
        prompts.back() += static_cast<char>(byte);
      }
    }
    prompts.pop_back();
    return prompts;
  }

  // Prompt 0 or 1 as a request.
  ImageRequest reference_request(size_t prompt) const {
    ImageRequest request{.cfg = 2.0};
    if (prompt == 1) {
      request.prompt = reference_prompts()[1];
    } else {
      request.class_id = integers("class_id")[0];
      request.class_name = read_image_card(kFolder).classes[static_cast<size_t>(request.class_id)];
    }
    return request;
  }

  // Row `c` of [3, dim].
  static std::vector<float> row_of(const std::vector<float>& rows, size_t c) {
    const size_t dim = rows.size() / 3;
    return {rows.begin() + static_cast<int64_t>(c * dim), rows.begin() + static_cast<int64_t>((c + 1) * dim)};
  }

  // Sums round by their largest terms, here by two units of the last place of the largest result: a projected
  // condition has values of several hundred beside small ones.
  static void expect_near(std::span<const float> ours, std::span<const float> expected) {
    ASSERT_EQ(ours.size(), expected.size());
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < ours.size(); ++i)
      ASSERT_NEAR(ours[i], expected[i], 1e-5f + 2.4e-7f * largest + 1e-5f * std::abs(expected[i]))
          << "value " << i;
  }

  // Row `row` of [.., vocab / 8] expected logits against a whole row of ours. All logits of a row come of one
  // hidden row, so that what rounding does to them goes by the largest. The bound is what the training code
  // itself needs: PyTorch in f32 differs from itself in f64 by up to 5e-5 of the largest (2e-6 on another
  // processor).
  static void expect_logits(const std::vector<float>& ours, const std::vector<float>& expected, size_t row) {
    const size_t kept = ours.size() / kStride;
    const auto wanted = std::span(expected).subspan(row * kept, kept);
    float largest = 0;
    for (const float want : wanted) largest = std::max(largest, std::abs(want));
    for (size_t i = 0; i < kept; ++i)
      ASSERT_NEAR(ours[i * kStride], wanted[i], 1e-4f + 5e-5f * largest)
          << "row " << row << ", entry " << i * kStride;
  }
};

TEST_P(EmojiModel, ConditionsEqualTheTrainingCodes) {
  const std::vector<int64_t> classes = integers("class_id");
  const std::vector<std::string> prompts = reference_prompts();
  const std::vector<float> condition = floats("condition");
  ASSERT_EQ(prompts.size(), classes.size());
  for (const Transformer transformer : {Transformer::kLlamaGen, Transformer::kArpg}) {
    const ImageModel model = load(transformer);
    const std::string name(transformer_name(transformer));
    const std::vector<float> rows = floats(name + ".row"), null = floats("null." + name);
    const auto queue = backend_->make_queue();
    Arena arena(*backend_);
    const auto width = static_cast<size_t>(model.text_encoder()->config().dim);
    for (size_t c = 0; c < classes.size(); ++c) {
      TextEncoder::Asked asked{.prompt = prompts[c]};
      if (classes[c] >= 0) asked.class_id = classes[c];
      expect_near(model.text_encoder()->encode(*queue, arena, asked),
                  std::span(condition).subspan(c * width, width));
    }
    // The same as the job asks for it: by class, and by words alone.
    for (const size_t c : {size_t{0}, size_t{1}}) {
      const ImagePrompt prompt = make_image_prompt(model, reference_request(c));
      ASSERT_EQ(prompt.given.rows.size(), 1u);
      const size_t dim = prompt.given.embeddings.size();
      expect_near(prompt.given.embeddings, std::span(rows).subspan(c * dim, dim));
      ASSERT_TRUE(prompt.null.has_value());
      expect_near(prompt.null->embeddings, null);
    }
  }
}

TEST_P(EmojiModel, RasterTransformerEqualsItsTrainingCode) {
  const ImageModel model = load(Transformer::kLlamaGen);
  const std::vector<int64_t> tokens = integers("tokens");
  const std::vector<float> expected = floats("llamagen.logits"), rows = floats("llamagen.row");
  const StepModel& network = model.step_model();
  for (size_t c = 0; c < 3; ++c) {
    // One causal step over the condition and all tokens but the last.
    Session session(network, backend_, {.sequences = 1, .entries = 256});
    SequenceStep step{.sequence = session.cache().create(),
                      .rows = {{.kind = RowKind::kEmbedding, .position = network.position(0)}},
                      .embeddings = row_of(rows, c)};
    for (int64_t i = 0; i + 1 < 256; ++i) {
      step.rows.push_back({.token = static_cast<int32_t>(tokens[c * 256 + static_cast<size_t>(i)]),
                           .position = network.position(1 + i)});
    }
    step.wanted.logits = {0, 100, 255};
    session.step({&step, 1});
    for (int64_t i = 0; i < 3; ++i)
      expect_logits(session.logits_on_host(i), expected, c * 3 + static_cast<size_t>(i));
  }
}

TEST_P(EmojiModel, RandomOrderTransformerEqualsItsTrainingCode) {
  const ImageModel model = load(Transformer::kArpg);
  const StepModel& network = model.step_model();
  const std::vector<int64_t> tokens = integers("tokens"), order = integers("arpg.order");
  const std::vector<float> expected = floats("arpg.logits"), rows = floats("arpg.row");
  for (size_t c = 0; c < 3; ++c) {
    for (const size_t known : {size_t{0}, size_t{40}}) {
      Session session(network, backend_, {.sequences = 1, .entries = 64});
      SequenceStep step{.sequence = session.cache().create(),
                        .rows = {{.kind = RowKind::kEmbedding, .position = network.position(0)}},
                        .embeddings = row_of(rows, c),
                        .visibility = {.kind = MaskKind::kFull}};
      for (size_t i = 0; i < known; ++i) {
        step.rows.push_back({.token = static_cast<int32_t>(tokens[c * 256 + static_cast<size_t>(order[i])]),
                             .position = network.position(1 + order[i])});
      }
      for (size_t asked = known; asked < known + (known == 0 ? 1 : 2); ++asked) {
        step.wanted.logits.push_back(static_cast<int32_t>(step.rows.size()));
        step.rows.push_back({.kind = RowKind::kQuery, .position = network.position(1 + order[asked])});
      }
      session.step({&step, 1});
      const size_t first = c * 3 + (known == 0 ? 0 : 1);
      for (size_t i = 0; i < step.wanted.logits.size(); ++i) {
        expect_logits(session.logits_on_host(static_cast<int64_t>(i)), expected, first + i);
      }
    }
  }
}

TEST_P(EmojiModel, PixelsEqualTheTrainingCodes) {
  const ImageModel model = load(Transformer::kLlamaGen);
  const std::vector<int64_t> tokens = integers("tokens"), bytes = integers("pixels_u8");
  const std::vector<float> expected = floats("pixels");
  const auto queue = backend_->make_queue();
  Arena arena(*backend_);
  const size_t pictures = backend_->info().name == "cpu" ? 3 : 1;  // plain loops are slow
  for (size_t n = 0; n < pictures; ++n) {
    const std::vector<int32_t> codes(tokens.begin() + static_cast<int64_t>(n * 256),
                                     tokens.begin() + static_cast<int64_t>(n * 256 + 256));
    const View<int32_t> device = arena.indices({1, 16, 16});
    const Tensor pixels = arena.tensor({1, 3, 128, 128});
    queue->upload(codes.data(), device.data, 256 * 4);
    model.vq().decode(*queue, arena, {.codes = device, .pixels = pixels});
    std::vector<float> planes(3 * 128 * 128);
    queue->download(pixels.data, planes.data(), pixels.size() * 4);
    for (size_t y = 0; y < 16; ++y) {
      for (size_t x = 0; x < 16; ++x) {
        const float ours = std::clamp(planes[y * kStride * 128 + x * kStride], -1.0f, 1.0f);  // as theirs
        ASSERT_NEAR(ours, expected[(n * 16 + y) * 16 + x], 1e-4f);
      }
    }
    if (n > 0) continue;
    // The 8-bit rule; a value on the border between two bytes may fall to either side.
    const View<uint8_t> device_bytes = arena.bytes_of({1, 128, 128, 3});
    queue->channel_bytes({.x = pixels, .out = device_bytes});
    std::vector<uint8_t> rgb(static_cast<size_t>(device_bytes.size()));
    queue->download(device_bytes.data, rgb.data(), device_bytes.size());
    int64_t different = 0;
    for (size_t i = 0; i < bytes.size(); ++i) {
      const int64_t difference = std::abs(int64_t{rgb[3 * i]} - bytes[i]);
      ASSERT_LE(difference, 1);
      different += difference;
    }
    EXPECT_LT(different, 40);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, EmojiModel, testing::ValuesIn(test::devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::image
