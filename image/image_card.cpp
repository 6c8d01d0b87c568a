// config.json and names.json of a model folder.
#include "image/image_card.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/untrusted_text.h"

namespace volley::image {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxGrid = 256;
constexpr size_t kMaxClasses = 100000;

// A file of the folder: a plain name, so that a card cannot reach outside.
std::string part_file(const ImageCard& card, const JsonFields& fields, const std::string& path) {
  const std::string file = fields.text("file");
  if (file.empty() || file.find('/') != std::string::npos || file.find('\0') != std::string::npos ||
      file == "..") {
    throw Error(path + ": key 'file': expected a plain file name, found " + quote(file));
  }
  return (fs::path(card.folder) / file).string();
}

SamplingDefaults parse_defaults(const JsonFields& fields, const std::string& path) {
  SamplingDefaults defaults{.cfg = fields.number_or("cfg", 1.0, {0.0, 1000.0}),
                            .cfg_interval = fields.integer_or("cfg_interval", -1, {-1, 1 << 20}),
                            .temperature = fields.number_or("temperature", 1.0, {0.0, 1000.0}),
                            .top_k = fields.integer_or("top_k", 0, {0, 1 << 24}),
                            .top_p = fields.number_or("top_p", 1.0, {0.0, 1.0}),
                            .steps = fields.integer_or("steps", 0, {0, 65536}),
                            .schedule = fields.text_or("schedule", "")};
  const std::string guidance =
      fields.text_or("guidance_schedule", defaults.cfg_interval >= 0 ? "interval" : "constant");
  const auto kind = guidance_of(guidance);
  if (!kind) throw Error(path + ": key 'guidance_schedule': unknown value " + quote(guidance));
  if (!defaults.schedule.empty() && defaults.schedule != "arccos" && defaults.schedule != "cosine") {
    throw Error(path + ": key 'schedule': expected arccos or cosine, found " + quote(defaults.schedule));
  }
  defaults.guidance = *kind;
  return defaults;
}

void expect_equal(const std::string& path, const std::string& key, int64_t expected, int64_t found) {
  if (expected != found) {
    throw Error(path + ": " + key + ": expected " + std::to_string(expected) + ", found " +
                std::to_string(found));
  }
}

template <typename Config>
std::optional<CardPart<Config>> parse_transformer(const ImageCard& card, const JsonFields& root,
                                                  std::string_view role,
                                                  Config (*parse)(const nlohmann::json&, const std::string&),
                                                  const std::string& config_path) {
  if (!root.has(role)) return std::nullopt;
  const JsonFields fields = root.object(role);
  const std::string path = config_path + ": " + std::string(role);
  CardPart<Config> part{.file = part_file(card, fields, path), .config = parse(fields.value(), path)};
  if (fields.has("ffn_dim")) part.ffn_dim = fields.integer("ffn_dim", {1, 1 << 24});
  if (fields.has("defaults")) part.defaults = parse_defaults(fields.object("defaults"), path + ": defaults");
  expect_equal(path, "block_size", card.tokens(), part.config.block_size);
  if (part.config.condition == Condition::kClass) {
    expect_equal(path, "num_classes", static_cast<int64_t>(card.classes.size()), part.config.num_classes);
  } else if (card.text_encoder) {
    expect_equal(path, "caption_dim", card.text_encoder->config.dim, part.config.caption_dim);
  } else if (!card.classes.empty()) {
    throw Error(path + ": model_type t2i: needs a text_encoder in config.json, or no classes");
  }
  if (card.text_encoder && part.config.condition == Condition::kClass) {
    throw Error(path + ": model_type c2i: beside a text_encoder, expected t2i");
  }
  if (part.config.vocab_size > card.vq.config.codebook_size) {
    throw Error(path + ": vocab_size " + std::to_string(part.config.vocab_size) + " exceeds the codebook's " +
                std::to_string(card.vq.config.codebook_size));
  }
  return part;
}

void read_text_encoder(ImageCard& card, const JsonFields& root, const std::string& config_path) {
  if (!root.has("text_encoder")) return;
  const JsonFields fields = root.object("text_encoder");
  const std::string path = config_path + ": text_encoder";
  card.text_encoder = {.file = part_file(card, fields, path),
                       .config = parse_text_encoder_config(fields.value(), path)};
  expect_equal(path, "num_classes", static_cast<int64_t>(card.classes.size()),
               card.text_encoder->config.num_classes);
}

void read_names(ImageCard& card) {
  const std::string path = (fs::path(card.folder) / "names.json").string();
  std::error_code code;
  if (!fs::exists(path, code)) return;
  const nlohmann::json names = read_json_file(path);
  if (!names.is_object()) throw Error(path + ": expected an object of names and their classes");
  std::map<std::string, int64_t> ids;
  for (const std::string& name : card.classes) ids.emplace(name, static_cast<int64_t>(ids.size()));
  for (const auto& [name, class_name] : names.items()) {
    const auto id = class_name.is_string() ? ids.find(class_name.get<std::string>()) : ids.end();
    if (id == ids.end()) throw Error(path + ": " + quote(name) + ": its class is none of config.json's");
    card.names.push_back({.name = name, .class_id = id->second});
  }
  std::ranges::sort(card.names, {}, &EmojiName::name);
}

}  // namespace

std::string_view guidance_name(GuidanceSchedule::Kind kind) {
  switch (kind) {
    case GuidanceSchedule::Kind::kConstant:
      return "constant";
    case GuidanceSchedule::Kind::kInterval:
      return "interval";
    case GuidanceSchedule::Kind::kLinear:
      return "linear";
  }
  return "?";
}

std::optional<GuidanceSchedule::Kind> guidance_of(std::string_view name) {
  for (auto kind : {GuidanceSchedule::Kind::kConstant, GuidanceSchedule::Kind::kInterval,
                    GuidanceSchedule::Kind::kLinear}) {
    if (name == guidance_name(kind)) return kind;
  }
  return std::nullopt;
}

ImageCard read_image_card(const std::string& folder) {
  std::error_code code;
  const std::string path = (fs::path(folder) / "config.json").string();
  if (!fs::exists(folder, code)) throw Error(folder + ": no such model folder", ErrorKind::kModelMissing);
  if (!fs::is_directory(folder, code)) throw Error(folder + ": is a file, expected a model folder");
  if (!fs::exists(path, code)) {
    throw Error(path + ": missing, so the folder is no image model", ErrorKind::kModelMissing);
  }
  const nlohmann::json config = read_json_file(path);
  const JsonFields fields(config, path);
  const std::string format = fields.text("format");
  if (format != kImageModelFormat) {
    throw Error(path + ": key 'format': expected " + std::string(kImageModelFormat) + ", found " +
                quote(format));
  }
  ImageCard card{.folder = folder,
                 .name = printable(fields.text("name"), 100),
                 .image_size = fields.integer("image_size", {1, 1 << 14}),
                 .grid = fields.integer("grid", {1, kMaxGrid}),
                 .classes = fields.texts("classes")};
  if (card.classes.size() > kMaxClasses) {
    throw Error(path + ": key 'classes': more than " + std::to_string(kMaxClasses) + " names");
  }
  std::vector<std::string> sorted = card.classes;
  std::ranges::sort(sorted);
  const auto twin = std::ranges::adjacent_find(sorted);
  if (twin != sorted.end()) throw Error(path + ": key 'classes': " + quote(*twin) + " stands twice");

  const JsonFields vq = fields.object("vq");
  card.vq.file = part_file(card, vq, path + ": vq");
  card.vq.config = parse_vq_config(vq.value(), path + ": vq");
  expect_equal(path, "image_size", card.grid * card.vq.config.factor(), card.image_size);
  read_text_encoder(card, fields, path);
  card.llamagen = parse_transformer<LlamaGenConfig>(card, fields, "llamagen", &parse_llamagen_config, path);
  card.arpg = parse_transformer<ArpgConfig>(card, fields, "arpg", &parse_arpg_config, path);
  if (!card.llamagen && !card.arpg) throw Error(path + ": has neither 'llamagen' nor 'arpg'");
  if (card.arpg && card.arpg->config.condition == Condition::kCaption && !card.text_encoder) {
    throw Error(path + ": arpg: model_type t2i: needs a text_encoder in config.json");
  }
  if (card.classes.empty() && !card.is_caption_model()) {
    throw Error(path + ": key 'classes': expected at least one name");
  }
  if (fields.has("packed")) {
    const std::string dtype = fields.object("packed").text("dtype");
    for (const WeightType type : {WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1}) {
      if (dtype == weight_type_name(type)) card.packed = type;
    }
    if (!card.packed)
      throw Error(path + ": packed: key 'dtype': expected bf16, q8_0 or q4_1, found " + quote(dtype));
  }
  if (fields.has("selftest")) {
    const JsonFields hashes = fields.object("selftest");
    for (const auto& [transformer, hash] : hashes.value().items())
      card.selftest[transformer] = hashes.text(transformer);
  }
  read_names(card);
  return card;
}

}  // namespace volley::image
