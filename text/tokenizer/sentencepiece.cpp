// A SentencePiece model file. Ref: src/sentencepiece_model.proto of google/sentencepiece for the fields.
#include <algorithm>
#include <cmath>

#include "core/io/untrusted_text.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/protobuf.h"
#include "text/tokenizer/read_tokenizer.h"
#include "text/tokenizer/tokenizer_json.h"

namespace volley::text {
namespace {

constexpr const char* kMark = "\xe2\x96\x81";  // U+2581, an escaped space

enum PieceType : uint64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
enum ModelType : uint64_t { kUnigram = 1, kBpe = 2 };

struct SentencePieceFile {
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<uint64_t> types;
  uint64_t model_type = kUnigram;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  int32_t unk = 0, bos = 1, eos = 2, pad = -1;
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

using Wire = ProtobufField::Wire;

// Calls `use` with every field of a message; false where it is broken or `use` says so.
template <typename Use>
bool for_each_field(std::span<const std::byte> message, const Use& use) {
  ProtobufReader reader(message);
  ProtobufField field;
  while (!reader.at_end()) {
    if (!reader.next(field) || !use(field)) return false;
  }
  return true;
}

bool read_piece(std::span<const std::byte> message, SentencePieceFile& file) {
  std::string piece;
  float score = 0;
  uint64_t type = kNormal;
  const bool is_read = for_each_field(message, [&](const ProtobufField& field) {
    if (field.number == 1 && field.wire == Wire::kBytes) piece = as_text(field.bytes);
    if (field.number == 2 && field.wire == Wire::kFixed32) score = field.as_float();
    if (field.number == 3 && field.wire == Wire::kVarint) type = field.value;
    return piece.size() <= kMaxTokenBytes;
  });
  file.pieces.push_back(std::move(piece));
  file.scores.push_back(score);
  file.types.push_back(type);
  return is_read && std::isfinite(score) && type >= kNormal && type <= kByte;
}

bool read_trainer(std::span<const std::byte> message, SentencePieceFile& file) {
  return for_each_field(message, [&](const ProtobufField& field) {
    if (field.wire != Wire::kVarint) return true;
    const auto id = static_cast<int32_t>(field.value);
    switch (field.number) {
      case 3:
        file.model_type = field.value;
        break;
      case 24:
        file.whitespace_as_suffix = field.value != 0;
        break;
      case 35:
        file.byte_fallback = field.value != 0;
        break;
      case 40:
        file.unk = id;
        break;
      case 41:
        file.bos = id;
        break;
      case 42:
        file.eos = id;
        break;
      case 43:
        file.pad = id;
        break;
      default:
        break;
    }
    return true;
  });
}

bool read_normalizer_spec(std::span<const std::byte> message, SentencePieceFile& file) {
  return for_each_field(message, [&](const ProtobufField& field) {
    const bool is_number = field.wire == Wire::kVarint;
    if (field.number == 2 && field.wire == Wire::kBytes) file.charsmap = as_text(field.bytes);
    if (field.number == 3 && is_number) file.add_dummy_prefix = field.value != 0;
    if (field.number == 4 && is_number) file.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5 && is_number) file.escape_whitespaces = field.value != 0;
    return true;
  });
}

Result<SentencePieceFile> parse_file(std::span<const std::byte> bytes) {
  SentencePieceFile file;
  ProtobufReader reader(bytes);
  ProtobufField field;
  while (!reader.at_end()) {
    const size_t at = reader.position();
    if (!reader.next(field))
      return Fault{"SentencePiece: no field of a message at byte " + std::to_string(at)};
    if (field.wire != Wire::kBytes) continue;
    bool is_read = true;
    const char* what = "";
    if (field.number == 1) {
      if (std::ssize(file.pieces) >= kMaxVocabulary) return Fault{"SentencePiece: too many pieces"};
      what = "piece";
      is_read = read_piece(field.bytes, file);
    } else if (field.number == 2) {
      what = "trainer_spec";
      is_read = read_trainer(field.bytes, file);
    } else if (field.number == 3) {
      what = "normalizer_spec";
      is_read = read_normalizer_spec(field.bytes, file);
    }
    if (!is_read)
      return Fault{std::string("SentencePiece: broken ") + what + " at byte " + std::to_string(at)};
  }
  if (file.pieces.empty()) return Fault{"SentencePiece: no pieces"};
  if (file.model_type != kUnigram && file.model_type != kBpe) {
    return Fault{"SentencePiece: model type " + std::to_string(file.model_type) +
                 ": only unigram (1) and BPE (2) are supported"};
  }
  if (file.whitespace_as_suffix) return Fault{"SentencePiece: treat_whitespace_as_suffix is not supported"};
  if (!file.escape_whitespaces) {
    return Fault{"SentencePiece: escape_whitespaces = false is not supported"};
  }
  for (int32_t* id : {&file.unk, &file.bos, &file.eos, &file.pad}) {
    if (*id >= std::ssize(file.pieces)) {
      return Fault{"SentencePiece: special id " + std::to_string(*id) + " of " +
                   std::to_string(file.pieces.size()) + " pieces"};
    }
    *id = std::max(*id, -1);
  }
  return file;
}

std::unique_ptr<const SubwordModel> make_model(const SentencePieceFile& file, const Pipeline& pipeline) {
  std::vector<bool> is_usable(file.pieces.size());
  for (size_t id = 0; id < is_usable.size(); ++id) {
    is_usable[id] = file.types[id] == kNormal && !file.pieces[id].empty();
    if (file.types[id] == kUnused && file.model_type == kBpe) {
      throw Error(pipeline.subject + ": SentencePiece: unused pieces in a BPE model are not supported");
    }
  }
  if (file.model_type == kBpe) {
    BpeModel bpe{.vocabulary = pipeline.vocabulary,
                 .merges = merges_of_scores(*pipeline.vocabulary, file.scores, is_usable),
                 .units = BpeModel::Units::kCharacters,
                 .fuse_unknown = BpeModel::FuseUnknown::kOn,
                 .unk = file.unk};
    if (file.byte_fallback) bpe.byte_fallback = BpeModel::ByteFallback::kOn;
    return make_bpe(std::move(bpe));
  }
  UnigramModel unigram{.vocabulary = pipeline.vocabulary,
                       .scores = {file.scores.begin(), file.scores.end()},
                       .unk = file.unk,
                       .sums = UnigramModel::Sums::kFloat};
  float worst = std::numeric_limits<float>::max();
  for (size_t id = 0; id < is_usable.size(); ++id) {
    if (is_usable[id]) worst = std::min(worst, file.scores[id]);
  }
  unigram.unknown_score = worst - 10.0f;
  unigram.is_usable = std::move(is_usable);
  if (file.byte_fallback) unigram.byte_fallback = UnigramModel::ByteFallback::kOn;
  return make_unigram(std::move(unigram), pipeline.subject);
}

}  // namespace

TokenizerPtr parse_sentencepiece(std::span<const std::byte> bytes, const nlohmann::json& config,
                                 const std::string& subject) {
  const SentencePieceFile file = parse_file(bytes).value_or_throw(subject);
  Pipeline pipeline{.subject = subject,
                    .vocabulary = std::make_shared<const Vocabulary>(file.pieces),
                    .pieces = file.pieces,
                    .special_ids = {.bos = file.bos, .eos = file.eos, .unk = file.unk, .pad = file.pad}};
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const bool is_special = file.types[id] == kControl || file.types[id] == kUnknown;
    if ((!is_special && file.types[id] != kUserDefined) || file.pieces[id].empty()) continue;
    pipeline.added_tokens.push_back(
        {.id = static_cast<int32_t>(id), .content = file.pieces[id], .is_special = is_special});
  }
  pipeline.model = make_model(file, pipeline);

  std::vector<NormalizerPtr> normalizers;
  if (!file.charsmap.empty()) {
    normalizers.push_back(make_charsmap(file.charsmap, CharsmapRule::kLongestPrefix).value_or_throw(subject));
  }
  if (file.remove_extra_whitespaces) normalizers.push_back(make_remove_extra_spaces());
  if (!normalizers.empty()) pipeline.normalizer = make_normalizer_sequence(std::move(normalizers));

  std::vector<PreTokenizerPtr> stages;
  stages.push_back(make_metaspace(
      {.prepend = file.add_dummy_prefix ? MetaspaceRule::Prepend::kFirst : MetaspaceRule::Prepend::kNever,
       .existing = MetaspaceRule::Existing::kIgnored,
       .cut = MetaspaceRule::Cut::kNone}));
  add_safe_cuts(*pipeline.model, stages);
  pipeline.pre_tokenizer = make_sequence(std::move(stages));

  pipeline.decoder.replacements.push_back({kMark, " "});
  if (file.byte_fallback) pipeline.decoder.byte_fallback = DecoderRule::ByteFallback::kOn;
  if (file.add_dummy_prefix || file.remove_extra_whitespaces) pipeline.decoder.strip_left = 1;

  read_tokenizer_config(config, subject, pipeline);
  if (config.is_object()) {
    const JsonFields fields(config, subject);
    if (fields.boolean_or("add_bos_token", false) && pipeline.special_ids.bos >= 0) {
      pipeline.prefix.push_back(pipeline.special_ids.bos);
    }
    if (fields.boolean_or("add_eos_token", false) && pipeline.special_ids.eos >= 0) {
      pipeline.suffix.push_back(pipeline.special_ids.eos);
    }
  }
  return make_tokenizer(std::move(pipeline));
}

}  // namespace volley::text
