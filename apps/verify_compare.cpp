#include "apps/verify_compare.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

#include "core/io/untrusted_text.h"
#include "image/prompt_words.h"

namespace volley::apps {
namespace {

// Difference of a block's mean colours, of 255, up to which its pixels may be those of a lossy file.
constexpr int64_t kLossyDifference = 48;

// Whether the prompt names the class that was drawn.
Verdict compare_prompt(const image::ImageCard& card, const image::ImageRequest& request) {
  if (request.prompt.empty()) return std::nullopt;
  const auto named = [&]() -> std::string {
    try {
      return "class " + find_prompt(card, request.prompt).name;
    } catch (const Error&) {
      return "no class of the model";
    }
  }();
  if (named == "class " + request.class_name) return std::nullopt;
  return Difference{.what = "record",
                    .message = "prompt: recorded " + quote(request.prompt) + ", which names " +
                               printable(named, 100) + ", found class " + printable(request.class_name, 100)};
}

// Whether the program could have written this prompt for a model that reads words.
Verdict compare_words(const image::ImageRequest& request) {
  if (request.prompt.empty()) return std::nullopt;
  if (!request.is_text()) return differs("record", "prompt", request.prompt, "a class, which stands alone");
  if (image::prompt_words(request.prompt).empty())
    return differs("record", "prompt", request.prompt, "no words");
  return std::nullopt;
}

// Whether a lossy file can be of these pixels: compression keeps the mean colours of its blocks nearly.
Verdict compare_roughly(const image::Picture& recorded, const image::Picture& found) {
  constexpr int64_t kBlock = 8;
  for (int64_t top = 0; top < found.height; top += kBlock) {
    for (int64_t left = 0; left < found.width; left += kBlock) {
      const int64_t right = std::min(left + kBlock, found.width);
      const int64_t bottom = std::min(top + kBlock, found.height);
      std::array<int64_t, 3> difference{};
      for (int64_t y = top; y < bottom; ++y) {
        for (int64_t x = left; x < right; ++x) {
          for (size_t c = 0; c < 3; ++c) {
            const size_t at = static_cast<size_t>(3 * (y * found.width + x)) + c;
            difference[c] += recorded.rgb[at] - found.rgb[at];
          }
        }
      }
      const int64_t pixels = (bottom - top) * (right - left);
      for (int64_t value : difference) {
        if (std::abs(value) <= kLossyDifference * pixels) continue;
        return Difference{.what = "pixels",
                          .message = "block at column " + std::to_string(left) + ", row " +
                                     std::to_string(top) + ": mean colours differ by " +
                                     std::to_string(std::abs(value) / pixels) + " of 255, expected at most " +
                                     std::to_string(kLossyDifference) + " in a lossy file"};
      }
    }
  }
  return std::nullopt;
}

}  // namespace

Verdict differs(std::string what, const std::string& name, const std::string& recorded,
                const std::string& found) {
  return Difference{
      .what = std::move(what),
      .message = name + ": recorded " + printable(recorded, 100) + ", found " + printable(found, 100)};
}

Verdict compare_weights(const image::ImageCard& card, const image::RunRecord& record) {
  const image::Transformer transformer = image::transformer_for(record.request.decoder);
  std::map<std::string, std::string> found{{"vq", image::hash_file(card.vq.file)}};
  if (transformer == image::Transformer::kLlamaGen && card.llamagen) {
    found["llamagen"] = image::hash_file(card.llamagen->file);
  } else if (transformer == image::Transformer::kArpg && card.arpg) {
    found["arpg"] = image::hash_file(card.arpg->file);
  }
  if (card.text_encoder) found["text_encoder"] = image::hash_file(card.text_encoder->file);
  for (const auto& [role, hash] : found) {
    const auto recorded = record.weights.find(role);
    if (recorded == record.weights.end()) return differs("weights", role, "none", hash);
    if (recorded->second != hash) return differs("weights", role, recorded->second, hash);
  }
  for (const auto& [role, hash] : record.weights) {
    if (!found.contains(role)) return differs("weights", role, hash, "none");
  }
  return std::nullopt;
}

Verdict compare_frame(const image::ImageCard& card, const RecordedPicture& made) {
  const image::RunRecord& record = made.record;
  const auto size = [](int64_t width, int64_t height) {
    return std::to_string(width) + "x" + std::to_string(height);
  };
  const std::string recorded = size(record.width, record.height);
  const std::string actual = size(made.width, made.height);
  // A step map has a scale of its own.
  if (recorded != actual && made.file.shows != image::Shows::kStepMap)
    return differs("record", "size", recorded, actual);
  const image::Canvas canvas = canvas_of(card, record.request);
  if (canvas.cells() > image::kMaxCanvas) {
    return differs("record", "outpaint", std::to_string(canvas.cells()) + " cells",
                   std::to_string(image::kMaxCanvas) + " at most");
  }
  const std::string expected =
      size(record.layout.columns * canvas.width(), record.layout.rows * canvas.height());
  if (recorded != expected)
    return differs("record", "size", recorded, expected + " by the grid and the model");
  if (card.is_caption_model() != !record.request.features_hash.empty()) {
    return differs("record", "text_features", record.request.features_hash.empty() ? "none" : "some",
                   card.is_caption_model() ? "a model of captions" : "a model of classes");
  }
  if (card.is_caption_model()) return std::nullopt;
  if (card.text_encoder) {
    if (auto verdict = compare_words(record.request)) return verdict;
  }
  if (record.request.is_text()) {
    if (card.text_encoder) return std::nullopt;
    return differs("record", "class", "none", "a model of classes");
  }
  if (record.request.class_id >= static_cast<int64_t>(card.classes.size())) {
    return differs("record", "class_id", std::to_string(record.request.class_id),
                   std::to_string(card.classes.size()) + " classes");
  }
  const std::string& name = card.classes[static_cast<size_t>(record.request.class_id)];
  if (record.request.class_name != name) return differs("record", "class", record.request.class_name, name);
  return card.text_encoder ? std::nullopt : compare_prompt(card, record.request);
}

Verdict compare_tokens(const image::RunRecord& record, std::span<const image::ImagePicture> pictures) {
  if (pictures.size() != record.pictures.size()) {
    return differs("record", "pictures", std::to_string(record.pictures.size()),
                   std::to_string(pictures.size()));
  }
  for (size_t i = 0; i < pictures.size(); ++i) {
    const std::string name = "picture " + std::to_string(pictures[i].index);
    const auto& recorded = record.pictures[i];
    if (recorded.index != pictures[i].index) {
      return differs("record", "index", std::to_string(recorded.index), std::to_string(pictures[i].index));
    }
    if (recorded.seed != pictures[i].seed) {
      return differs("record", name + ": seed", std::to_string(recorded.seed),
                     std::to_string(pictures[i].seed));
    }
    if (recorded.token_hash != pictures[i].token_hash) {
      return differs("tokens", name + ": hash of its tokens", recorded.token_hash, pictures[i].token_hash);
    }
  }
  return std::nullopt;
}

Verdict compare_pixels(const image::Picture& recorded, const image::Picture& found) {
  for (size_t i = 0; i < recorded.rgb.size(); ++i) {
    if (recorded.rgb[i] == found.rgb[i]) continue;
    const auto pixel = static_cast<int64_t>(i / 3);
    const auto rgb = [pixel](const image::Picture& picture) {
      std::string text;
      for (int64_t c = 0; c < 3; ++c) {
        text += (c > 0 ? "," : "") + std::to_string(picture.rgb[static_cast<size_t>(3 * pixel + c)]);
      }
      return "rgb " + text;
    };
    return differs("pixels",
                   "pixel at column " + std::to_string(pixel % recorded.width) + ", row " +
                       std::to_string(pixel / recorded.width),
                   rgb(recorded), rgb(found));
  }
  return std::nullopt;
}

Verdict compare_pictures(const RecordedPicture& made, std::span<const image::ImagePicture> pictures) {
  const int64_t first = pictures.front().index;
  std::vector<const image::Picture*> cells(static_cast<size_t>(pictures.back().index - first + 1), nullptr);
  for (const image::ImagePicture& picture : pictures)
    cells[static_cast<size_t>(picture.index - first)] = &picture.picture;
  const image::Picture picture = image::make_grid(cells, made.record.layout);
  return made.file.is_lossless ? compare_pixels(made.picture, picture)
                               : compare_roughly(made.picture, picture);
}

Verdict compare_record(const RecordedPicture& made, const Remaking& again) {
  const nlohmann::json found = image::to_json(again.record);
  for (const auto& [key, value] : made.json.items()) {
    if (key == "volley" || (key == "device" && !again.device_is_recorded)) continue;
    const auto other = found.find(key);
    if (other == found.end()) return differs("record", key, value.dump(), "nothing");
    if (*other != value) return differs("record", key, value.dump(), other->dump());
  }
  return std::nullopt;
}

std::string makers(const image::RunRecord& record, const image::RunRecord& again) {
  if (record.volley == again.volley && record.device == again.device) return "";
  const auto maker = [](const image::RunRecord& made) {
    return "volley " + printable(made.volley, 40) + " on " + printable(made.device, 40) + " in " + made.dtype;
  };
  return "; made by " + maker(record) + ", again by " + maker(again);
}

}  // namespace volley::apps
