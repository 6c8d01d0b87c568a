// Ids and texts of the PyPI packages `tokenizers` and `sentencepiece` for odd texts
// (tools/tokenizer_cases.py).
#include <gtest/gtest.h>

#include <filesystem>

#include "core/io/json.h"
#include "text/tokenizer/read_tokenizer.h"
#include "text/tokenizer/streaming_decoder.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

using nlohmann::json;

const std::filesystem::path kFolder = VOLLEY_TOKENIZERS;

class TokenizerCases : public testing::TestWithParam<std::string> {
 protected:
  TokenizerPtr tokenizer() const {
    const std::string name = GetParam();
    return read_tokenizer((kFolder / (name.ends_with(".model") ? name : name + ".json")).string());
  }
  json texts_ = read_json_file((kFolder / "texts.json").string());
  json expected_ = read_json_file((kFolder / (GetParam() + ".expected.json")).string());
};

using Ids = std::vector<int32_t>;

TEST_P(TokenizerCases, EncodeAsThePackage) {
  const TokenizerPtr made = tokenizer();
  ASSERT_EQ(texts_.size(), expected_.size());
  ASSERT_GT(texts_.size(), 150u);
  for (size_t i = 0; i < texts_.size(); ++i) {
    const auto text = texts_[i].get<std::string>();
    SCOPED_TRACE("text " + std::to_string(i) + ": " + text.substr(0, 300));
    const json& wanted = expected_[i];
    if (wanted.contains("ids")) {
      const Ids ids = wanted["ids"].get<Ids>();
      EXPECT_EQ(made->encode(text), ids);
      Ids framed = wanted.value("prefix", Ids());
      framed.insert(framed.end(), ids.begin(), ids.end());
      const Ids suffix = wanted.value("suffix", Ids());
      framed.insert(framed.end(), suffix.begin(), suffix.end());
      EXPECT_EQ(made->encode(text, {.frame = Frame::kWhole}), framed);
    }
    const Ids plain = wanted.contains("plain") ? wanted["plain"].get<Ids>() : wanted["ids"].get<Ids>();
    EXPECT_EQ(made->encode(text, {.special_text = SpecialText::kPlain}), plain);
  }
}

TEST_P(TokenizerCases, DecodeAsThePackage) {
  const TokenizerPtr made = tokenizer();
  for (size_t i = 0; i < texts_.size(); ++i) {
    const json& wanted = expected_[i];
    if (!wanted.contains("ids")) continue;
    const auto text = texts_[i].get<std::string>();
    SCOPED_TRACE("text " + std::to_string(i) + ": " + text.substr(0, 300));
    const Ids ids = wanted["ids"].get<Ids>();
    const std::string decoded = wanted.value("decoded", text);
    EXPECT_EQ(replace_invalid_utf8(made->decode(ids, DecodeSpecials::kKeep)), decoded);
    EXPECT_EQ(replace_invalid_utf8(made->decode(ids)), wanted.value("skipped", decoded));
  }
}

TEST_P(TokenizerCases, StreamsWholeCharacters) {
  const TokenizerPtr made = tokenizer();
  StreamingDecoder stream(made);
  int64_t held_back = 0;
  for (const json& wanted : expected_) {
    const Ids ids = wanted[wanted.contains("ids") ? "ids" : "plain"].get<Ids>();
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string part = stream.push(id);
      EXPECT_EQ(replace_invalid_utf8(part), part);
      held_back += part.empty() ? 1 : 0;
      streamed += part;
    }
    streamed += stream.finish();
    EXPECT_EQ(streamed, replace_invalid_utf8(made->decode(ids)));
  }
  // Unigram tokens are whole characters.
  const bool has_bytes = GetParam() != "t5" && GetParam() != "albert" && GetParam() != "unigram.model";
  if (has_bytes) {
    EXPECT_GT(held_back, 50);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerCases,
                         testing::Values("gpt2", "smollm2", "qwen2", "llama3", "whisper", "o200k", "added",
                                         "llama2", "mistral", "t5", "albert", "bpe.model", "unigram.model"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace volley::text
