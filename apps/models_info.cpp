// volley models info: what a model or checkpoint holds, and what it needs.
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "apps/model_info.h"
#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/models.h"
#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"
#include "core/io/untrusted_text.h"
#include "image/image_model.h"
#include "image/run_record.h"
#include "text/text_model.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

struct InfoFlags {
  SharedFlags shared;
  std::string path;
};

std::string weights_text(const WeightsInfo& info) {
  std::string types;
  for (const auto& [dtype, size] : info.dtypes) {
    types += (types.empty() ? "" : ", ") + dtype + " " + std::to_string(size);
  }
  return padded("family", 13) + (info.family.empty() ? "not recognised" : info.family) + "\n" +
         padded("tensors", 13) + std::to_string(info.tensors) + "\n" + padded("parameters", 13) +
         std::to_string(info.parameters) + "\n" + padded("elements", 13) + types + "\n" + padded("size", 13) +
         byte_count(info.bytes) + "\n";
}

// Memory that running a model takes, in bytes. Tables, norms and the tokenizer are f32 in any case.
struct MemoryNeeds {
  int64_t f32 = 0;
  int64_t bf16 = 0;
  int64_t q8_0 = 0;
  int64_t packed = 0;  // as the files are
  int64_t cache = 0;   // of a picture, without a guidance partner

  void add(const WeightSource& weights, const std::string& role) {
    for (const NamedTensor& tensor : weights.tensors()) {
      if (tensor.name.ends_with(".scales"))
        continue;  // of the quants beside them, which count as whole weights
      const int64_t size = tensor.view.shape.size();
      packed += tensor.view.bytes();
      const bool is_conv = tensor.view.shape.rank() == 4;
      const bool is_table = tensor.name.find("embedding") != std::string::npos;
      const bool is_product = role != "vq" && tensor.view.shape.rank() == 2 && !is_table;
      f32 += 4 * size;
      bf16 += is_product || is_conv ? 2 * size : 4 * size;
      q8_0 += is_product ? size + size / kQ8BlockSize * 2 : is_conv ? 2 * size : 4 * size;
    }
  }
};

void add_memory(const image::ImageCard& card, const MemoryNeeds& memory, nlohmann::json& json,
                std::string& text) {
  text += padded("memory", 13) + "weights ";
  if (card.packed) {
    const std::string dtype(image::weight_type_name(*card.packed));
    json["memory"][dtype] = memory.packed;
    text += byte_count(memory.packed) + " in " + dtype + ", mapped";
  } else {
    json["memory"] = {{"f32", memory.f32}, {"bf16", memory.bf16}, {"q8_0", memory.q8_0}};
    text += byte_count(memory.f32) + " in f32, " + byte_count(memory.bf16) + " in bf16, " +
            byte_count(memory.q8_0) + " in q8_0";
  }
  json["memory"]["cache_per_picture"] = memory.cache;
  text += "; cache " + byte_count(memory.cache) +
          " a picture in f32, half of it in bf16; twice that with guidance\n";
}

int64_t cache_bytes(const image::ImageCard& card) {
  int64_t values = 0;
  if (card.llamagen) {
    const image::LlamaGenConfig& c = card.llamagen->config;
    values = 2 * c.n_layer * c.n_kv_head * (c.dim / c.n_head) * (c.cls_token_num + card.tokens());
  } else if (card.arpg) {
    values = 2 * (card.arpg->config.n_layer / 2 + 1) * card.arpg->config.dim * (1 + card.tokens());
  }
  return 4 * values;
}

std::string conditions_text(const image::ImageCard& card) {
  if (card.is_caption_model()) {
    return padded("draws", 13) + "captions, from up to " +
           std::to_string(card.llamagen->config.cls_token_num) + " text features of " +
           std::to_string(card.llamagen->config.caption_dim) + "\n";
  }
  std::string text;
  if (card.text_encoder) {
    text = padded("draws", 13) + "prompts of up to " + std::to_string(card.text_encoder->config.max_words) +
           " words, and classes\n";
  }
  text += padded("classes", 13) + std::to_string(card.classes.size()) + ": ";
  // A thousand numbers tell no more than two.
  const bool is_numbered = card.classes.front() == "0" && card.classes.size() > 2;
  if (is_numbered) return text + "0 to " + std::to_string(card.classes.size() - 1) + "\n";
  std::string names;
  for (const std::string& name : card.classes) names += (names.empty() ? "" : ", ") + printable(name, 100);
  return text + names + "\n";
}

int show_image_model(const std::string& path, const image::ImageCard& card, const SharedFlags& flags,
                     Console& console) {
  nlohmann::json json{{"schema", kModelsSchema},
                      {"path", path},
                      {"name", card.name},
                      {"image_size", card.image_size},
                      {"grid", card.grid},
                      {"classes", card.classes},
                      {"weights", nlohmann::json::object()}};
  std::string text = padded("model", 13) + card.name + "\n" + padded("pictures", 13) +
                     std::to_string(card.image_size) + "x" + std::to_string(card.image_size) + " pixels of " +
                     std::to_string(card.grid) + "x" + std::to_string(card.grid) + " codes" +
                     (card.size_source == image::SizeSource::kAssumed ? " (assumed)" : "") + "\n";
  MemoryNeeds memory{.cache = cache_bytes(card)};
  const auto add = [&](const std::string& role, const std::string& file) {
    const auto weights = image::open_image_weights(file);
    const WeightsInfo info = describe_weights(*weights);
    memory.add(*weights, role);
    nlohmann::json entry = to_json(info);
    entry["sha256"] = image::hash_file(file);
    std::string types;
    for (const auto& [dtype, size] : info.dtypes) types += (types.empty() ? "" : " and ") + dtype;
    text += padded(role, 13) + fs::path(file).filename().string() + ": " + std::to_string(info.parameters) +
            " parameters in " + plural(info.tensors, "tensor") + ", " + types + ", " +
            byte_count(info.bytes) + "\n" + padded("", 13) + "sha256 " + entry["sha256"].get<std::string>() +
            "\n";
    json["weights"][role] = std::move(entry);
  };
  add("vq", card.vq.file);
  if (card.text_encoder) add("text_encoder", card.text_encoder->file);
  if (card.llamagen) add("llamagen", card.llamagen->file);
  if (card.arpg) add("arpg", card.arpg->file);
  text += conditions_text(card);
  if (!card.names.empty()) {
    text += padded("prompts", 13) + plural(static_cast<int64_t>(card.names.size()), "name") + " such as " +
            printable(card.names.front().name, 100) + "\n";
  }
  add_memory(card, memory, json, text);
  if (const image::PublishedModel* published = image::find_published_model(card.name)) {
    json["licence"] = published->licence;
    text += padded("licence", 13) + std::string(published->licence) + " (" +
            std::string(published->repository) + ")\n";
  }
  if (flags.json) {
    console.print_line(json.dump());
  } else {
    console.print(text);
  }
  return kExitDone;
}

int show_checkpoint(const std::string& path, const SharedFlags& flags, Console& console) {
  const auto weights = open_weights(path);
  const WeightsInfo info = describe_weights(*weights);
  if (flags.json) {
    console.print_line(
        nlohmann::json{{"schema", kModelsSchema}, {"path", path}, {"weights", {{"model", to_json(info)}}}}
            .dump());
  } else {
    console.print(padded("weights", 13) + printable(path, 1000) + "\n" + weights_text(info));
  }
  return kExitDone;
}

// Bytes of the cache that a token takes, as f32.
int64_t token_cache_bytes(const text::LlamaConfig& config) {
  return int64_t{4} * 2 * config.num_hidden_layers * config.attention.kv_heads * config.attention.head_width;
}

int show_text_model(const text::TextCheckpoint& checkpoint, const SharedFlags& flags, Console& console) {
  const WeightsInfo info = describe_weights(*checkpoint.llama.weights);
  const int64_t vocabulary = checkpoint.tokenizer->vocab_size();
  const int64_t cache = token_cache_bytes(checkpoint.llama.config);
  nlohmann::json json{{"schema", kModelsSchema},
                      {"path", checkpoint.path},
                      {"name", checkpoint.name},
                      {"context", checkpoint.context()},
                      {"vocabulary", vocabulary},
                      {"memory", {{"cache_per_token", cache}}},
                      {"weights", {{"model", to_json(info)}}}};
  std::string text = padded("model", 13) + printable(checkpoint.name, 200) + "\n" + padded("weights", 13) +
                     printable(checkpoint.path, 1000) + "\n" + weights_text(info) + padded("context", 13) +
                     plural(checkpoint.context(), "token") + " of a vocabulary of " +
                     std::to_string(vocabulary) + "\n" + padded("chat format", 13);
  if (checkpoint.chat_format) {
    json["chat_format"] = name_of(*checkpoint.chat_format);
    text += std::string(name_of(*checkpoint.chat_format));
  } else {
    text += checkpoint.chat_fault.empty() ? "none" : "not known";
  }
  text +=
      "\n" + padded("memory", 13) + "cache " + byte_count(cache) + " a token in f32, half of it in bf16\n";
  for (const StoredModel& stored : stored_models()) {
    if (stored.path != checkpoint.path) continue;
    const PublishedFiles& files = stored.entry.files;
    json["licence"] = files.licence;
    text += padded("licence", 13) + files.licence + " (" + files.repository +
            (files.wheel ? ", " + origin_of(files) : "") + ")\n";
  }
  if (flags.json) {
    console.print_line(json.dump());
  } else {
    console.print(text);
  }
  return kExitDone;
}

bool is_text_family(const std::string& path) {
  const std::string family = recognise_family(*open_weights(path, CrcCheck::kSkip));
  return family == "llama" || family == "qwen2" || family == "qwen3" || family == "llada";
}

// Opens it if it is one and nothing of it is missing; says what is.
std::optional<text::TextCheckpoint> open_text_model(const std::string& path, Console& console) {
  if (!is_text_family(path)) return std::nullopt;
  try {
    return text::open_text_checkpoint(path);
  } catch (const Error& error) {
    console.note(error.what());  // its tensors can be looked at all the same
    return std::nullopt;
  }
}

bool holds(const std::string& path, const char* file) {
  std::error_code code;
  return fs::exists(fs::symlink_status(fs::path(path) / file, code));
}

// A folder in transformers' layout, or a file; an empty folder is refused as one.
bool is_checkpoint(const std::string& path) {
  std::error_code code;
  return !fs::is_directory(path, code) || holds(path, "model.safetensors") ||
         holds(path, "model.safetensors.index.json") || fs::is_empty(path, code);
}

// A text model has a tokenizer, an image model a transformer and a tokenizer; other checkpoints are looked at
// as tensors.
int show(const InfoFlags& flags, Console& console) {
  const std::string path = find_model(flags.path);
  if (is_checkpoint(path)) {
    if (const auto checkpoint = open_text_model(path, console))
      return show_text_model(*checkpoint, flags.shared, console);
    const auto kind = image::recognise_checkpoint(*open_weights(path, CrcCheck::kSkip));
    if (!kind || *kind == image::CheckpointKind::kVq) return show_checkpoint(path, flags.shared, console);
    std::optional<image::ImageCard> card;
    try {
      card = open_card(flags.shared, path);
    } catch (const Error& error) {
      console.note(error.what());  // its tensors can be looked at all the same
    }
    if (!card) return show_checkpoint(path, flags.shared, console);
    return show_image_model(path, *card, flags.shared, console);
  }
  return show_image_model(path, open_card(flags.shared, path), flags.shared, console);
}

}  // namespace

Verb add_models_info(CLI::App& models) {
  const auto flags = std::make_shared<InfoFlags>();
  CLI::App& verb = add_verb(models, "info", "what a model or checkpoint holds, and the memory it needs");
  add_argument(verb,
               {.names = "path",
                .type = "NAME|PATH",
                .meaning = "model in the box, pulled model, model folder, safetensors, GGUF or PyTorch file"},
               Argument::kRequired, flags->path);
  add_shared_flags(verb, flags->shared, {"vq", "image-size", "json"});
  return {.parser = &verb,
          .schema = std::string(kModelsSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return show(*flags, p.console); }};
}

}  // namespace volley::apps
