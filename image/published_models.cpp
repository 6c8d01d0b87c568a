// What is published, where, and what it needs. Ref: README files of FoundationVision/LlamaGen and
// hp-l33/ARPG, and the model cards of the repositories named.
#include "image/published_models.h"

#include <algorithm>
#include <array>

namespace volley::image {
namespace {

constexpr std::string_view kLlamaGenRepository = "FoundationVision/LlamaGen";
constexpr std::string_view kCaptionRepository = "peizesun/llamagen_t2i";
constexpr std::string_view kArpgRepository = "hp-l33/ARPG";
constexpr std::string_view kVq16 = "llamagen-vq16", kVq8 = "llamagen-vq8", kVq16Caption = "llamagen-vq16-t2i";
constexpr std::string_view kMit = "MIT";

constexpr PublishedModel class_model(std::string_view name, std::string_view file, std::string_view size,
                                     int64_t image_size) {
  return {name, kLlamaGenRepository, file, CheckpointKind::kLlamaGenClass, size, image_size, kVq16, kMit, {}};
}
constexpr PublishedModel caption_model(std::string_view name, std::string_view file, int64_t image_size) {
  return {name, kCaptionRepository, file,         CheckpointKind::kLlamaGenCaption,
          "XL", image_size,         kVq16Caption, kMit,
          {}};
}
constexpr PublishedModel arpg_model(std::string_view name, std::string_view file, std::string_view size) {
  return {name, kArpgRepository, file, CheckpointKind::kArpg, size, 256, kVq16, kMit, {}};
}
constexpr PublishedModel tokenizer(std::string_view name, std::string_view repository,
                                   std::string_view file) {
  return {name, repository, file, CheckpointKind::kVq, {}, 0, {}, kMit, {}};
}

constexpr std::array kModels{
    arpg_model("arpg-l", "arpg_300m.pt", "L"),
    arpg_model("arpg-xl", "arpg_700m.pt", "XL"),
    arpg_model("arpg-xxl", "arpg_1b.pt", "XXL"),
    class_model("llamagen-c2i-b-256", "c2i_B_256.pt", "B", 256),
    class_model("llamagen-c2i-l-256", "c2i_L_256.pt", "L", 256),
    class_model("llamagen-c2i-b-384", "c2i_B_384.pt", "B", 384),
    class_model("llamagen-c2i-l-384", "c2i_L_384.pt", "L", 384),
    class_model("llamagen-c2i-xl-384", "c2i_XL_384.pt", "XL", 384),
    class_model("llamagen-c2i-xxl-384", "c2i_XXL_384.pt", "XXL", 384),
    class_model("llamagen-c2i-3b-384", "c2i_3B_384.pt", "3B", 384),
    caption_model("llamagen-t2i-xl-256", "t2i_XL_stage1_256.pt", 256),
    caption_model("llamagen-t2i-xl-512", "t2i_XL_stage2_512.pt", 512),
    tokenizer(kVq16, kLlamaGenRepository, "vq_ds16_c2i.pt"),
    tokenizer(kVq8, kLlamaGenRepository, "vq_ds8_c2i.pt"),
    tokenizer(kVq16Caption, kCaptionRepository, "vq_ds16_t2i.pt"),
};

const PublishedModel* find(std::string_view PublishedModel::*field, std::string_view value) {
  const auto found = std::ranges::find(kModels, value, field);
  return found == kModels.end() ? nullptr : &*found;
}

}  // namespace

std::span<const PublishedModel> published_models() {
  return kModels;
}

const PublishedModel* find_published_model(std::string_view name) {
  return find(&PublishedModel::name, name);
}

const PublishedModel* find_published_file(std::string_view file) {
  return find(&PublishedModel::file, file);
}

PublishedFiles published_files(const PublishedModel& model) {
  return {.name = std::string(model.name),
          .licence = std::string(model.licence),
          .repository = std::string(model.repository),
          .files = {{.name = std::string(model.file), .sha256 = std::string(model.sha256)}}};
}

}  // namespace volley::image
