#include "text/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "core/io/byte_reader.h"
#include "core/io/json.h"
#include "core/io/mapped_file.h"
#include "tests/unit/text/message_of.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/read_tokenizer.h"
#include "text/tokenizer/streaming_decoder.h"

namespace volley::text {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

const std::filesystem::path kFolder = VOLLEY_TOKENIZERS;

json read_fixture(const std::string& name) {
  return read_json_file((kFolder / (name + ".json")).string());
}

TokenizerPtr parse(const json& file) {
  return parse_tokenizer_json(file.dump(), nullptr, "t.json");
}

std::string fault_of(const json& file) {
  return message_of([&] { parse(file); });
}

// A fixture's vocabulary as a GGUF file would hold it.
TokenizerArrays arrays_of(const json& file, const std::string& pre) {
  TokenizerArrays arrays{.model = "gpt2", .pre = pre};
  const auto put = [&](size_t id, const std::string& token, int32_t type) {
    if (id >= arrays.tokens.size()) {
      arrays.tokens.resize(id + 1);
      arrays.types.resize(id + 1, TokenizerArrays::kNormal);
    }
    arrays.tokens[id] = token;
    arrays.types[id] = type;
  };
  for (const auto& [token, id] : file["model"]["vocab"].items()) put(id, token, TokenizerArrays::kNormal);
  for (const json& token : file["added_tokens"])
    put(token["id"], token["content"], TokenizerArrays::kControl);
  for (const json& merge : file["model"]["merges"]) {
    arrays.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  return arrays;
}

TEST(TokenizerArrays, ByteLevelEqualsTheJson) {
  const json texts = read_fixture("texts");
  for (const auto& [name, pre] : std::vector<std::pair<std::string, std::string>>{{"gpt2", "gpt-2"},
                                                                                  {"gpt2", "default"},
                                                                                  {"smollm2", "smollm"},
                                                                                  {"qwen2", "qwen2"},
                                                                                  {"llama3", "llama-bpe"}}) {
    const json file = read_fixture(name);
    const TokenizerPtr made = make_tokenizer(arrays_of(file, pre), "m.gguf");
    const TokenizerPtr wanted = parse(file);
    EXPECT_EQ(made->vocab_size(), wanted->vocab_size());
    for (const json& text : texts) {
      EXPECT_EQ(made->encode(text.get<std::string>()), wanted->encode(text.get<std::string>())) << name;
    }
  }
}

TEST(TokenizerArrays, ScoredBpeEqualsTheJson) {
  const json file = read_fixture("llama2");
  TokenizerArrays arrays{.model = "llama", .special_ids = {.bos = 1, .eos = 2, .unk = 0}};
  for (const auto& [token, id] : file["model"]["vocab"].items()) {
    if (id.get<size_t>() >= arrays.tokens.size()) arrays.tokens.resize(id.get<size_t>() + 1);
    arrays.tokens[id.get<size_t>()] = token;
  }
  for (size_t id = 0; id < arrays.tokens.size(); ++id) {
    const bool is_byte = arrays.tokens[id].starts_with("<0x");
    arrays.scores.push_back(id < 259 ? 0.0f : -static_cast<float>(id - 259));
    arrays.types.push_back(id == 0   ? TokenizerArrays::kUnknown
                           : id < 3  ? TokenizerArrays::kControl
                           : is_byte ? TokenizerArrays::kByte
                                     : TokenizerArrays::kNormal);
  }
  const TokenizerPtr made = make_tokenizer(arrays, "m.gguf");
  const TokenizerPtr wanted = parse(file);
  for (const json& item : read_fixture("texts")) {
    const auto text = item.get<std::string>();
    // "<unk>" is a token of its own in tokenizer.json only.
    if (text.find("<unk>") != text.npos) continue;
    const Ids ids = made->encode(text, {.frame = Frame::kWhole});
    EXPECT_EQ(ids, wanted->encode(text, {.frame = Frame::kWhole}));
    EXPECT_EQ(made->decode(ids), wanted->decode(ids));
  }
}

TEST(TokenizerArrays, FaultsAreOneLine) {
  const auto fault = [](const TokenizerArrays& arrays) {
    return message_of([&] { make_tokenizer(arrays, "m.gguf"); });
  };
  EXPECT_EQ(fault({.model = "gpt2"}), "m.gguf: no tokens");
  EXPECT_EQ(fault({.model = "rwkv", .tokens = {"a"}}),
            "m.gguf: tokenizer.ggml.model 'rwkv': expected gpt2 or llama");
  EXPECT_EQ(fault({.model = "gpt2", .pre = "dbrx", .tokens = {"a"}}),
            "m.gguf: tokenizer.ggml.pre 'dbrx': expected default, gpt-2, llama-bpe, qwen2 or smollm");
  EXPECT_EQ(fault({.model = "llama", .tokens = {"a", "b"}, .scores = {1}}), "m.gguf: 1 scores for 2 tokens");
  EXPECT_EQ(fault({.model = "gpt2", .tokens = {"a", "b"}, .types = {1}}),
            "m.gguf: 1 token types for 2 tokens");
  EXPECT_EQ(fault({.model = "gpt2", .tokens = {"a"}, .merges = {"a b"}}),
            "m.gguf: merge 0: token 'b' is not in the vocabulary");
  EXPECT_EQ(fault({.model = "gpt2", .tokens = {"a"}, .merges = {"ab"}}),
            "m.gguf: merge 'ab': expected two tokens");
  EXPECT_EQ(fault({.model = "gpt2", .tokens = {"a"}, .special_ids = {.eos = 7}}),
            "m.gguf: special token id 7 is outside of the vocabulary");
  EXPECT_EQ(fault({.model = "gpt2", .tokens = {"a"}, .add_bos = true}),
            "m.gguf: a text is to have a token bos, and none is named");
}

TEST(Tokenizer, BytesGoThroughUnchanged) {
  std::mt19937 random(3);
  for (const char* name : {"gpt2", "smollm2", "llama3", "whisper", "o200k", "llama2"}) {
    const TokenizerPtr made = parse(read_fixture(name));
    for (int i = 0; i < 2000; ++i) {
      std::string text;
      const int count = std::uniform_int_distribution(1, 60)(random);
      for (int k = 0; k < count; ++k)
        text += static_cast<char>(std::uniform_int_distribution(0, 255)(random));
      ASSERT_EQ(made->decode(made->encode(text, {.special_text = SpecialText::kPlain})), text) << name;
    }
  }
}

TEST(Tokenizer, LongRunsAreNotQuadratic) {
  const auto seconds = [](const Tokenizer& tokenizer, size_t bytes) {
    const std::string run(bytes, 'a');
    const std::clock_t start = std::clock();  // of this process alone: others may keep the machine busy
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(run)), run);
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  };
  for (const char* name : {"gpt2", "llama2", "t5"}) {
    const TokenizerPtr made = parse(read_fixture(name));
    const double small = seconds(*made, 100'000);
    // Quadratic would be 256 times as long.
    EXPECT_LT(seconds(*made, 1'600'000), 100 * small + 0.5) << name;
  }
}

TEST(Tokenizer, PiecesAndSpecials) {
  const TokenizerPtr made = parse(read_fixture("smollm2"));
  EXPECT_EQ(made->vocab_size(), 700);
  const int32_t the = made->find("Ġthe");
  ASSERT_GE(the, 0);
  EXPECT_EQ(made->piece(the), "Ġthe");
  EXPECT_EQ(made->token_bytes(the), " the");
  EXPECT_EQ(made->find("<|im_end|>"), 2);
  EXPECT_TRUE(made->is_special(2));
  EXPECT_FALSE(made->is_special(the));
  EXPECT_EQ(made->find("no such token"), -1);
  EXPECT_EQ(made->piece(-1), "");
  EXPECT_EQ(made->piece(700), "");
  EXPECT_EQ(made->decode({-5, the, 1 << 30}), " the");
  EXPECT_EQ(made->encode("a<|im_end|>").back(), 2);
  EXPECT_NE(made->encode("a<|im_end|>", {.special_text = SpecialText::kPlain}).back(), 2);
}

TEST(Tokenizer, OneServesManyThreads) {
  const TokenizerPtr made = parse(read_fixture("qwen2"));
  const json texts = read_fixture("texts");
  std::vector<Ids> wanted;
  for (const json& text : texts) wanted.push_back(made->encode(text.get<std::string>()));
  std::vector<int> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = 0; i < texts.size(); ++i) {
          const size_t at = (i * 7 + t) % texts.size();
          wrong[t] += made->encode(texts[at].get<std::string>()) != wanted[at] ? 1 : 0;
        }
      });
    }
  }
  EXPECT_EQ(wrong, (std::vector<int>(4)));
}

TEST(Tokenizer, FirstSpaceOfAText) {
  const TokenizerPtr made = parse(read_fixture("llama2"));
  const Ids ids = made->encode(" a");
  EXPECT_EQ(made->decode(ids), " a");
  StreamingDecoder stream(made);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  EXPECT_EQ(text + stream.finish(), " a");
}

TEST(StreamingDecoder, HoldsBackUnfinishedCharacters) {
  const TokenizerPtr made = parse(read_fixture("gpt2"));
  const auto byte = [&](char c) { return made->find(spell_bytes({&c, 1})); };
  StreamingDecoder stream(made);
  EXPECT_EQ(stream.push(byte('\xf0')), "");
  EXPECT_EQ(stream.push(byte('\x9f')), "");
  EXPECT_EQ(stream.push(byte('\x99')), "");
  EXPECT_EQ(stream.push(byte('\x82')), "🙂");
  EXPECT_EQ(stream.push(byte('\xf0')), "");
  EXPECT_EQ(stream.push(byte('a')), "\ufffda");
  EXPECT_EQ(stream.push(byte('\xe4')), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

TEST(ReadTokenizer, FoldersAndTheirConfiguration) {
  const auto folder = std::filesystem::temp_directory_path() / "volley_tokenizer_folder_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_EQ(message_of([&] { read_tokenizer(folder.string()); }),
            folder.string() + ": no tokenizer.json, tokenizer.model or spiece.model in this folder");
  std::filesystem::copy_file(kFolder / "smollm2.json", folder / "tokenizer.json");
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "pad_token": null,
             "chat_template": "x"})";
  TokenizerPtr made = read_tokenizer(folder.string());
  EXPECT_EQ(made->special_ids().bos, 1);
  EXPECT_EQ(made->special_ids().eos, 2);
  EXPECT_EQ(made->special_ids().pad, -1);
  EXPECT_EQ(made->chat_template(), "x");
  std::ofstream(folder / "chat_template.jinja") << "y";
  EXPECT_EQ(read_tokenizer(folder.string())->chat_template(), "y");
  std::filesystem::remove(folder / "tokenizer.json");
  std::filesystem::remove(folder / "tokenizer_config.json");
  std::filesystem::copy_file(kFolder / "bpe.model", folder / "tokenizer.model");
  made = read_tokenizer(folder.string());
  EXPECT_EQ(made->special_ids().eos, 2);
  EXPECT_EQ(message_of([&] { read_tokenizer((folder / "none.json").string()); }),
            (folder / "none.json").string() + ": cannot open: No such file or directory");
  std::filesystem::remove_all(folder);
}

TEST(TokenizerJson, UnknownComponentsAreNamed) {
  const json file = read_fixture("gpt2");
  const auto with = [&](const char* key, json value) {
    json changed = file;
    changed[key] = std::move(value);
    return fault_of(changed);
  };
  EXPECT_EQ(with("normalizer", {{"type", "BertNormalizer"}}),
            "t.json: normalizer: type 'BertNormalizer' is not supported");
  EXPECT_EQ(with("normalizer", json::parse(R"({"type":"Sequence","normalizers":[{"type":"Nmt"}]})")),
            "t.json: normalizer: Sequence: type 'Nmt' is not supported");
  EXPECT_EQ(with("pre_tokenizer", {{"type", "UnicodeScripts"}}),
            "t.json: pre_tokenizer: type 'UnicodeScripts' is not supported");
  EXPECT_EQ(
      with("pre_tokenizer", json::parse(R"({"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})")),
      "t.json: pre_tokenizer: Split: regular expression '(': missing closing parenthesis");
  EXPECT_EQ(with("decoder", {{"type", "WordPiece"}}), "t.json: decoder: type 'WordPiece' is not supported");
  EXPECT_EQ(with("decoder", json::parse(R"({"type":"Strip","content":" ","start":1,"stop":0})")),
            "t.json: decoder: Strip at this place of the sequence is not supported");
  EXPECT_EQ(with("post_processor", {{"type", "X"}}), "t.json: post_processor: type 'X' is not supported");
  EXPECT_EQ(with("model", json::parse(R"({"type":"WordPiece","vocab":{}})")),
            "t.json: model: type 'WordPiece': expected BPE or Unigram");
  EXPECT_EQ(with("model", json::parse(R"({"type":"BPE","vocab":{"a":0},"merges":["a b"]})")),
            "t.json: model: merge 0: token 'b' is not in the vocabulary");
  EXPECT_EQ(with("model", json::parse(R"({"type":"BPE","vocab":{"a":0},"merges":["ab"]})")),
            "t.json: model: merges: expected two tokens, found \"ab\"");
  EXPECT_EQ(with("model", json::parse(R"({"type":"BPE","vocab":{"a":-1},"merges":[]})")),
            "t.json: model: id of 'a': expected an integer below 16777216");
  EXPECT_EQ(with("model", json::parse(R"({"type":"BPE","vocab":{"a":1,"b":1},"merges":[]})")),
            "t.json: model: tokens 'a' and 'b' have the same id 1");
  EXPECT_EQ(with("added_tokens", json::parse(R"([{"id":1,"content":""}])")),
            "t.json: added token 1: an empty token");
  EXPECT_EQ(with("added_tokens", json::parse(R"([{"id":99999999,"content":"x"}])")),
            "t.json: added_tokens: key 'id': expected an integer in [0, 16777215], found 99999999");
  EXPECT_EQ(fault_of(json::parse("[]")), "t.json: expected a JSON object, found array");
  EXPECT_EQ(fault_of(json::object()), "t.json: key 'model' is missing");
}

TEST(SentencePiece, BrokenFilesAreOneLine) {
  const MappedFile file = MappedFile::open((kFolder / "unigram.model").string()).value_or_throw("fixture");
  const std::string whole(as_text(file.bytes()));
  const auto fault = [](std::string_view bytes) {
    return message_of([&] { parse_sentencepiece(as_bytes(bytes), nullptr, "t.model"); });
  };
  EXPECT_EQ(fault(whole), "no error");
  EXPECT_EQ(fault(""), "t.model: SentencePiece: no pieces");
  EXPECT_EQ(fault("\x0f"), "t.model: SentencePiece: no field of a message at byte 0");
  EXPECT_EQ(fault(std::string_view(whole).substr(0, 9)),
            "t.model: SentencePiece: no field of a message at byte 0");
  EXPECT_EQ(fault(std::string_view("\x0a\x02\x18\x09", 4)), "t.model: SentencePiece: broken piece at byte 0");
  EXPECT_EQ(fault(std::string_view("\x0a\x03\x0a\x01"
                                   "a\x12\x02\x18\x04",
                                   9)),
            "t.model: SentencePiece: model type 4: only unigram (1) and BPE (2) are supported");
  // Cut anywhere, it is a fault or a smaller vocabulary.
  for (size_t size = 0; size < whole.size(); size += 41) fault(std::string_view(whole).substr(0, size));
}

}  // namespace
}  // namespace volley::text
