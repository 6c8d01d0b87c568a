#include "text/text_model.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "core/base/error.h"
#include "core/io/open_weights.h"
#include "core/io/untrusted_text.h"
#include "text/tokenizer/read_tokenizer.h"

namespace volley::text {
namespace {

namespace fs = std::filesystem;

// What ends a turn in the chat formats, whatever a file says of it.
constexpr std::array<std::string_view, 6> kTurnEnds{"<|im_end|>",      "<|eot_id|>",    "<|eom_id|>",
                                                    "<|end_of_text|>", "<|endoftext|>", "</s>"};

int32_t token_id(const GgufMetadata& values, std::string_view key) {
  return static_cast<int32_t>(values.integer_or(key, -1, {-1, INT32_MAX}));
}

template <typename To, typename From>
std::vector<To> converted(const std::vector<From>& from) {
  std::vector<To> to;
  to.reserve(from.size());
  for (const From& value : from) to.push_back(static_cast<To>(value));
  return to;
}

TokenizerArrays arrays_of(const GgufMetadata& values) {
  TokenizerArrays arrays{.model = std::string(values.text("tokenizer.ggml.model")),
                         .pre = std::string(values.text_or("tokenizer.ggml.pre", "")),
                         .tokens = converted<std::string>(values.texts("tokenizer.ggml.tokens")),
                         .special_ids = {.bos = token_id(values, "tokenizer.ggml.bos_token_id"),
                                         .eos = token_id(values, "tokenizer.ggml.eos_token_id"),
                                         .unk = token_id(values, "tokenizer.ggml.unknown_token_id"),
                                         .pad = token_id(values, "tokenizer.ggml.padding_token_id")},
                         .chat_template = std::string(values.text_or("tokenizer.chat_template", ""))};
  if (values.has("tokenizer.ggml.scores")) {
    arrays.scores = converted<float>(values.numbers("tokenizer.ggml.scores"));
  }
  if (values.has("tokenizer.ggml.token_type")) {
    for (const int64_t type : values.integers("tokenizer.ggml.token_type"))
      arrays.types.push_back(static_cast<int32_t>(std::clamp<int64_t>(type, 0, INT32_MAX)));
  }
  if (values.has("tokenizer.ggml.merges")) {
    arrays.merges = converted<std::string>(values.texts("tokenizer.ggml.merges"));
  }
  const auto flag = [&](std::string_view key) {
    return values.has(key) ? std::optional(values.boolean_or(key, false)) : std::nullopt;
  };
  arrays.add_bos = flag("tokenizer.ggml.add_bos_token");
  arrays.add_eos = flag("tokenizer.ggml.add_eos_token");
  arrays.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
  return arrays;
}

// Ids that generation_config.json names; none if there is no such file.
std::vector<int64_t> configured_ends(const fs::path& folder, int64_t vocabulary) {
  const std::string path = (folder / "generation_config.json").string();
  std::error_code code;
  if (!fs::exists(path, code)) return {};
  const nlohmann::json json = read_json_file(path);
  const JsonFields fields(json, path);
  if (!fields.has("eos_token_id")) return {};
  const IntRange ids{0, vocabulary - 1};
  if (json.at("eos_token_id").is_array()) return fields.integers("eos_token_id", ids);
  return {fields.integer("eos_token_id", ids)};
}

void find_end_tokens(TextCheckpoint& checkpoint, std::vector<int64_t> ends) {
  const Tokenizer& tokenizer = *checkpoint.tokenizer;
  ends.push_back(tokenizer.special_ids().eos);
  for (const std::string_view piece : kTurnEnds) {
    const int32_t id = tokenizer.find(piece);
    if (id >= 0 && tokenizer.is_special(id)) ends.push_back(id);
  }
  for (const int64_t id : ends) {
    if (id >= 0 && id < checkpoint.llama.config.vocab_size)
      checkpoint.end_tokens.push_back(static_cast<int32_t>(id));
  }
  // std::ranges::unique's result does not compile with clang 14 and libstdc++ 12.
  std::vector<int32_t>& tokens = checkpoint.end_tokens;
  std::ranges::sort(tokens);
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
}

void find_chat_format(TextCheckpoint& checkpoint) {
  const std::string& chat_template = checkpoint.tokenizer->chat_template();
  if (chat_template.empty()) return;
  try {
    checkpoint.chat_format = recognize_chat_template(chat_template, checkpoint.path);
  } catch (const Error& error) {
    checkpoint.chat_fault = error.what();
  }
}

// Of a folder that holds one GGUF file and no other model: that file.
std::optional<std::string> gguf_file_of(const std::string& path) {
  std::error_code code;
  if (!fs::is_directory(path, code) || fs::exists(fs::path(path) / "config.json", code)) return std::nullopt;
  std::optional<std::string> found;
  for (fs::directory_iterator entry(path, code), end; !code && entry != end; entry.increment(code)) {
    if (entry->path().extension() != ".gguf") continue;
    if (found) return std::nullopt;
    found = entry->path().string();
  }
  return found;
}

}  // namespace

std::string name_of_model(const std::string& path) {
  fs::path name = fs::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  return (fs::is_directory(path) ? name.filename() : name.stem()).string();
}

bool TextCheckpoint::has_blocks() const {
  return std::ranges::any_of(llama.weights->tensors(),
                             [](const NamedTensor& tensor) { return is_block_type(tensor.view.dtype); });
}

TextCheckpoint open_text_checkpoint(const std::string& given) {
  const std::string path = gguf_file_of(given).value_or(given);
  TextCheckpoint checkpoint{.path = path, .name = name_of_model(path), .llama = open_llama(path)};
  const int64_t vocabulary = checkpoint.llama.config.vocab_size;
  std::vector<int64_t> ends;
  if (checkpoint.llama.gguf) {
    const GgufMetadata& values = checkpoint.llama.gguf->values();
    checkpoint.tokenizer = make_tokenizer(arrays_of(values), path);
    for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
      ends.push_back(token_id(values, key));
  } else {
    const fs::path folder = fs::is_directory(path) ? fs::path(path) : fs::path(path).parent_path();
    checkpoint.tokenizer = read_tokenizer(folder.empty() ? "." : folder.string());
    ends = configured_ends(folder, vocabulary);
  }
  if (checkpoint.tokenizer->vocab_size() > vocabulary) {
    throw Error(path + ": the tokenizer has " + std::to_string(checkpoint.tokenizer->vocab_size()) +
                " tokens, the model " + std::to_string(vocabulary));
  }
  find_end_tokens(checkpoint, std::move(ends));
  find_chat_format(checkpoint);
  return checkpoint;
}

void check_draft_vocabulary(const TextCheckpoint& model, const TextCheckpoint& draft) {
  const auto refuse = [&](const std::string& fault) {
    throw Error("--draft-model " + draft.path + ": " + fault + "; a draft model needs the model's vocabulary",
                ErrorKind::kUsage);
  };
  const int64_t size = model.llama.config.vocab_size, draft_size = draft.llama.config.vocab_size;
  if (size != draft_size) {
    refuse("has " + std::to_string(draft_size) + " tokens, model " + model.name + " " + std::to_string(size));
  }
  const int32_t shared = std::min(model.tokenizer->vocab_size(), draft.tokenizer->vocab_size());
  for (int32_t id = 0; id < shared; ++id) {
    const std::string piece = draft.tokenizer->piece(id), expected = model.tokenizer->piece(id);
    if (piece == expected) continue;
    refuse("token " + std::to_string(id) + " is " + quote(piece) + ", that of model " + model.name + " " +
           quote(expected));
  }
}

TextModel::TextModel(TextCheckpoint checkpoint, const Options& options)
    : checkpoint_(std::move(checkpoint)), backend_(options.backend), storage_(options.storage) {
  // The hash is of what is read here; files are not changed in place while they are mapped.
  if (options.hash == HashWeights::kYes) {
    hash_.emplace(weight_files(checkpoint_.path));
    hash_->begin();
  }
  llama_ = std::make_unique<const Llama>(checkpoint_.llama.config,
                                         WeightLoader(*checkpoint_.llama.weights, *backend_, storage_));
  // What the file holds is in the model; its mapping and copies of it would only take memory.
  checkpoint_.llama.weights.reset();
  checkpoint_.llama.gguf.reset();
}

std::optional<std::string> TextModel::weights_hash() const {
  if (!hash_) return std::nullopt;
  return hash_->hex();
}

}  // namespace volley::text
