// Cards of checkpoints that have none. Ref: FoundationVision/LlamaGen, autoregressive/sample/sample_c2i.py
// and sample_t2i.py; hp-l33/ARPG, README.md and models/arpg.py: what they take for granted stands here.
#include "image/published_card.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <map>
#include <system_error>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/untrusted_text.h"
#include "image/grid_transformer.h"
#include "image/imagenet_names.h"
#include "image/published_models.h"

namespace volley::image {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultImageSize = 256;
constexpr size_t kMostFiles = 1000;  // of a folder that are looked into

struct Found {
  std::string path;
  CheckpointKind kind = CheckpointKind::kVq;
};

bool is_checkpoint_name(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".pt" || extension == ".pth" || extension == ".safetensors";
}

std::optional<CheckpointKind> kind_of(const std::string& path) {
  return recognise_checkpoint(*open_weights(path, CrcCheck::kSkip));
}

std::vector<std::string> checkpoints_in(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    std::error_code type;
    if (is_checkpoint_name(entry->path()) && fs::is_regular_file(entry->path(), type))
      paths.push_back(entry->path().string());
    if (paths.size() > kMostFiles) throw Error(folder + ": holds more than 1000 checkpoints; name a file");
  }
  std::ranges::sort(paths);
  return paths;
}

// The transformer of a folder of checkpoints.
Found transformer_in(const std::string& folder) {
  std::vector<Found> found;
  std::string names;
  for (const std::string& path : checkpoints_in(folder)) {
    const auto kind = kind_of(path);
    if (!kind || *kind == CheckpointKind::kVq) continue;
    found.push_back({.path = path, .kind = *kind});
    names += (names.empty() ? "" : ", ") + quote(fs::path(path).filename().string());
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    throw Error(folder + ": holds neither config.json nor a LlamaGen or ARPG checkpoint (.pt, .safetensors)",
                ErrorKind::kModelMissing);
  }
  throw Error(folder + ": holds several models: " + names + "; name one of the files", ErrorKind::kUsage);
}

bool is_index_folder(const fs::path& folder) {
  std::error_code code;
  return fs::exists(folder / "model.safetensors.index.json", code);
}

Found find_transformer(const std::string& path) {
  std::error_code code;
  if (!fs::exists(path, code)) throw Error(path + ": no such model file or folder", ErrorKind::kModelMissing);
  if (fs::is_directory(path, code) && !is_index_folder(path)) return transformer_in(path);
  const auto kind = kind_of(path);
  if (!kind) {
    throw Error(path +
                ": not recognised as LlamaGen or ARPG by the names of its tensors; volley models info " +
                path + " lists what it holds");
  }
  if (*kind == CheckpointKind::kVq) {
    throw Error(path + ": is a tokenizer (" + std::string(checkpoint_kind_name(*kind)) +
                    "); -m names a transformer, --vq the tokenizer",
                ErrorKind::kUsage);
  }
  return {.path = path, .kind = *kind};
}

// ---- The tokenizer

// The file that the authors' script takes.
const PublishedModel& expected_vq(CheckpointKind kind) {
  return *find_published_model(kind == CheckpointKind::kLlamaGenCaption ? "llamagen-vq16-t2i"
                                                                        : "llamagen-vq16");
}

fs::path folder_of(const std::string& path) {
  std::error_code code;
  if (fs::is_directory(path, code)) return path;
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// By the published name, else the only tokenizer that lies there.
std::string vq_beside(const std::string& transformer, const PublishedModel& expected) {
  const fs::path folder = folder_of(transformer);
  std::error_code code;
  if (fs::exists(folder / expected.file, code)) return (folder / expected.file).string();
  std::vector<std::string> found;
  for (const std::string& path : checkpoints_in(folder.string())) {
    if (fs::equivalent(path, transformer, code)) continue;
    // Other files of the folder may be anything.
    try {
      if (kind_of(path) == CheckpointKind::kVq) found.push_back(path);
    } catch (const Error&) {
    }
  }
  if (found.size() > 1) {
    throw Error(folder.string() + ": holds " + std::to_string(found.size()) + " tokenizers, none of them " +
                    std::string(expected.file) + "; --vq names one",
                ErrorKind::kUsage);
  }
  return found.empty() ? "" : found.front();
}

std::string find_vq(const Found& transformer, const ImageFiles& files) {
  if (!files.vq.empty()) {
    const auto kind = kind_of(files.vq);
    if (kind == CheckpointKind::kVq) return files.vq;
    throw Error("--vq " + files.vq + ": expected a LlamaGen VQ tokenizer, found " +
                    (kind ? std::string(checkpoint_kind_name(*kind)) : "other tensors"),
                ErrorKind::kUsage);
  }
  const PublishedModel& expected = expected_vq(transformer.kind);
  if (const std::string beside = vq_beside(transformer.path, expected); !beside.empty()) return beside;
  for (const std::string& folder : files.vq_folders) {
    std::error_code code;
    const fs::path path = fs::path(folder) / expected.file;
    if (fs::exists(path, code)) return path.string();
  }
  throw Error(transformer.path + ": its tokenizer " + std::string(expected.file) +
                  " is neither beside it nor among the pulled models; volley models pull " +
                  std::string(expected.name) + " gets it, --vq names one",
              ErrorKind::kModelMissing);
}

// ---- The grid

// 256, 384 or 512 where the file's name says it as a number of its own: "c2i_L_384.pt".
int64_t size_in_name(const std::string& path) {
  std::error_code code;
  fs::path named = path;
  if (named.filename().string().starts_with("model.safetensors")) named = named.parent_path();
  const std::string name = named.filename().string();
  for (int64_t size : {256, 384, 512}) {
    const std::string digits = std::to_string(size);
    for (size_t at = name.find(digits); at != std::string::npos; at = name.find(digits, at + 1)) {
      const auto is_digit = [&](size_t i) {
        return i < name.size() && std::isdigit(static_cast<unsigned char>(name[i])) != 0;
      };
      if (!(at > 0 && is_digit(at - 1)) && !is_digit(at + digits.size())) return size;
    }
  }
  return 0;
}

struct ImageSize {
  int64_t pixels = 0;
  SizeSource source = SizeSource::kStated;
};

ImageSize choose_size(const Found& transformer, const ImageFiles& files) {
  const int64_t named = size_in_name(transformer.path);
  if (files.image_size == 0) {
    if (named > 0) return {.pixels = named, .source = SizeSource::kFileName};
    // Published under a name without a size, such as ARPG's.
    const PublishedModel* published = find_published_file(fs::path(transformer.path).filename().string());
    if (published != nullptr && published->kind == transformer.kind)
      return {.pixels = published->image_size, .source = SizeSource::kFileName};
    return {.pixels = kDefaultImageSize, .source = SizeSource::kAssumed};
  }
  if (named > 0 && named != files.image_size) {
    throw Error("--image-size " + std::to_string(files.image_size) + ": weights and grid disagree: " +
                    transformer.path + " is named for " + std::to_string(named) + " pixels",
                ErrorKind::kUsage);
  }
  return {.pixels = files.image_size, .source = SizeSource::kStated};
}

// Some exports keep the table of rotary angles, which has a row for each condition token and cell. LANTERN's
// has ten more.
void check_grid(const WeightSource& weights, int64_t conditions, int64_t cells) {
  const HostView* table = weights.find("freqs_cis");
  if (table == nullptr || table->shape.rank() != 3) return;
  const int64_t rows = table->shape[0], expected = conditions + cells;
  if (rows == expected || rows == expected + 10) return;
  throw Error(weights.path() + ": weights and grid disagree: tensor freqs_cis: expected " +
              std::to_string(expected) + " rows for " + std::to_string(cells) + " cells, found " +
              std::to_string(rows) + "; --image-size states another size");
}

// ---- The card

SamplingDefaults authors_sampling(CheckpointKind kind, int64_t dim) {
  if (kind == CheckpointKind::kLlamaGenClass) return {.cfg = 4.0, .top_k = 2000};
  if (kind == CheckpointKind::kLlamaGenCaption) return {.cfg = 7.5, .top_k = 1000};
  // ARPG's scale grows with the model.
  return {.cfg = dim >= 1536   ? 7.5
                 : dim >= 1280 ? 6.0
                               : 5.0,
          .guidance = GuidanceSchedule::Kind::kLinear,
          .steps = 64,
          .schedule = "arccos"};
}

// Classes are numbers; a thousand of them are taken for ImageNet's, whose names a prompt may use.
void number_classes(ImageCard& card, int64_t count) {
  for (int64_t id = 0; id < count; ++id) card.classes.push_back(std::to_string(id));
  const std::vector<std::string_view> names = imagenet_names();
  if (count != static_cast<int64_t>(names.size())) return;
  const auto lower = [](std::string_view name) {
    std::string text(name);
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
  };
  std::map<std::string, int64_t> times;
  for (std::string_view name : names) ++times[lower(name)];
  for (size_t id = 0; id < names.size(); ++id) {
    std::string name(names[id]);
    if (times[lower(name)] > 1) name += " " + std::to_string(id);  // to tell the two apart
    card.names.push_back({.name = std::move(name), .class_id = static_cast<int64_t>(id)});
  }
  std::ranges::sort(card.names, {}, &EmojiName::name);
}

std::string card_name(const std::string& path) {
  fs::path file = path;
  if (file.filename().empty()) file = file.parent_path();
  // transformers' own name says nothing, its folder does.
  if (file.filename().string().starts_with("model.safetensors")) file = file.parent_path();
  const PublishedModel* published = find_published_file(file.filename().string());
  return published != nullptr ? std::string(published->name) : printable(file.stem().string(), 100);
}

ImageCard published_card(const ImageFiles& files) {
  const Found transformer = find_transformer(files.path);
  const ImageSize size = choose_size(transformer, files);
  ImageCard card{.folder = files.path, .name = card_name(transformer.path), .image_size = size.pixels};
  card.size_source = size.source;
  card.vq.file = find_vq(transformer, files);
  card.vq.config = infer_vq_config(*open_weights(card.vq.file, CrcCheck::kSkip));
  const int64_t factor = card.vq.config.factor();
  if (size.pixels % factor != 0) {
    throw Error("--image-size " + std::to_string(size.pixels) + ": expected a multiple of the tokenizer's " +
                    std::to_string(factor) + " pixels",
                ErrorKind::kUsage);
  }
  card.grid = size.pixels / factor;
  const auto weights = open_image_weights(transformer.path, CrcCheck::kSkip);
  const StatedSizes stated = read_stated_sizes((folder_of(transformer.path) / "config.json").string());
  int64_t vocab = 0, conditions = 1;
  if (transformer.kind == CheckpointKind::kArpg) {
    const ArpgConfig config = infer_arpg_config(*weights, card.tokens(), stated);
    vocab = config.vocab_size;
    number_classes(card, config.num_classes);
    card.arpg = {.file = transformer.path,
                 .config = config,
                 .defaults = authors_sampling(transformer.kind, config.dim)};
  } else {
    const LlamaGenConfig config = infer_llamagen_config(*weights, card.tokens(), stated);
    vocab = config.vocab_size;
    conditions = config.cls_token_num;
    number_classes(card, config.num_classes);
    card.llamagen = {.file = transformer.path,
                     .config = config,
                     .defaults = authors_sampling(transformer.kind, config.dim)};
  }
  check_grid(*weights, conditions, card.tokens());
  if (vocab != card.vq.config.codebook_size) {
    throw Error(transformer.path + ": expected the " + std::to_string(card.vq.config.codebook_size) +
                " codes of " + card.vq.file + ", found " + std::to_string(vocab));
  }
  return card;
}

// Whether config.json is that of a model folder, which states everything.
bool is_model_folder(const std::string& path) {
  const fs::path config = fs::path(path) / "config.json";
  std::error_code code;
  if (!fs::is_directory(path, code) || !fs::exists(config, code)) return false;
  const nlohmann::json json = read_json_file(config.string());
  if (json.is_object() && json.contains("format")) return true;
  return checkpoints_in(path).empty() && !is_index_folder(path);  // a broken one, which its reader refuses
}

}  // namespace

ImageCard open_image_card(const ImageFiles& files) {
  if (!is_model_folder(files.path)) return published_card(files);
  for (const auto& [flag, is_given] :
       {std::pair{"--vq", !files.vq.empty()}, {"--image-size", files.image_size != 0}}) {
    if (!is_given) continue;
    throw Error(
        std::string(flag) + ": model folder " + files.path + " states it; the flag is for bare checkpoints",
        ErrorKind::kUsage);
  }
  return read_image_card(files.path);
}

}  // namespace volley::image
