// Checkpoints as they are published: which is which, how large, under which names; and that they run.
#include "image/published_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "image/grid_transformer.h"
#include "image/image_job.h"
#include "image/imagenet_names.h"
#include "image/published_models.h"
#include "tests/support/toy_models.h"
#include "tests/unit/image/toy_checkpoints.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

namespace fs = std::filesystem;
using test::ShapesOnly;
using test::TorchForm;
using test::write_text;
using testing::HasSubstr;

// ---- Published sizes, by shapes alone

constexpr int64_t kCodes = 16384, kClasses = 1000;

std::map<std::string, Shape> llamagen_shapes(const PublishedSize& size, CheckpointKind kind) {
  std::map<std::string, Shape> shapes{{"tok_embeddings.weight", {kCodes, size.dim}},
                                      {"norm.weight", {size.dim}},
                                      {"output.weight", {kCodes, size.dim}}};
  if (kind == CheckpointKind::kLlamaGenClass) {
    shapes["cls_embedding.embedding_table.weight"] = {kClasses + 1, size.dim};
  } else {
    shapes["cls_embedding.uncond_embedding"] = {120, 2048};
  }
  for (int64_t l = 0; l < size.layers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    shapes[prefix + "attention.wqkv.weight"] = {3 * size.dim, size.dim};
    shapes[prefix + "attention.wo.weight"] = {size.dim, size.dim};
    shapes[prefix + "feed_forward.w1.weight"] = {size.ffn, size.dim};
  }
  return shapes;
}

std::map<std::string, Shape> arpg_shapes(const PublishedSize& size) {
  std::map<std::string, Shape> shapes{{"embeddings.weight", {kCodes + kClasses + 3, size.dim}},
                                      {"head.weight", {kCodes, size.dim}}};
  for (int64_t l = 0; l < size.layers / 2; ++l) {
    const std::string prefix = "layers.self_dec." + std::to_string(l) + ".";
    shapes[prefix + "attn.to_q.weight"] = {size.dim, size.dim};
    shapes[prefix + "ffn.w1.weight"] = {size.ffn, size.dim};
  }
  return shapes;
}

std::map<std::string, Shape> vq_shapes(const std::vector<int64_t>& mult) {
  std::map<std::string, Shape> shapes{{"quantize.embedding.weight", {kCodes, 8}},
                                      {"decoder.conv_in.weight", {512, 256, 3, 3}},
                                      {"encoder.conv_in.weight", {128, 3, 3, 3}},
                                      {"encoder.conv_out.weight", {256, 512, 3, 3}}};
  for (size_t level = 0; level < mult.size(); ++level) {
    for (const char* block : {"0", "1"}) {
      shapes["encoder.conv_blocks." + std::to_string(level) + ".res." + block + ".conv1.weight"] = {
          128 * mult[level], 128, 3, 3};
    }
  }
  return shapes;
}

const PublishedSize& size_named(std::string_view name) {
  for (const PublishedSize& size : published_sizes()) {
    if (size.name == name) return size;
  }
  throw std::runtime_error("no such size");
}

TEST(PublishedModels, SizesComeFromShapes) {
  // Layers, width, heads. Ref: LlamaGen's gpt.py, ARPG's arpg.py.
  const std::map<std::string_view, std::array<int64_t, 3>> expected{{"B", {12, 768, 12}},
                                                                    {"L", {24, 1024, 16}},
                                                                    {"XL", {36, 1280, 20}},
                                                                    {"XXL", {48, 1536, 24}},
                                                                    {"3B", {24, 3200, 32}}};
  for (const PublishedModel& model : published_models()) {
    SCOPED_TRACE(model.name);
    if (model.kind == CheckpointKind::kVq) continue;
    const int64_t cells = (model.image_size / 16) * (model.image_size / 16);
    const auto [layers, dim, heads] = expected.at(model.size);
    if (model.kind == CheckpointKind::kArpg) {
      const ShapesOnly weights(arpg_shapes(size_named(model.size)));
      EXPECT_EQ(recognise_checkpoint(weights), model.kind);
      const ArpgConfig config = infer_arpg_config(weights, cells);
      EXPECT_EQ((std::array{config.n_layer, config.dim, config.n_head}), (std::array{layers, dim, heads}));
      EXPECT_EQ(config.vocab_size, kCodes);
      EXPECT_EQ(config.num_classes, kClasses);
      EXPECT_EQ(config.grid_side, 16);
      continue;
    }
    const ShapesOnly weights(llamagen_shapes(size_named(model.size), model.kind));
    EXPECT_EQ(recognise_checkpoint(weights), model.kind);
    const LlamaGenConfig config = infer_llamagen_config(weights, cells);
    EXPECT_EQ((std::array{config.n_layer, config.dim, config.n_head}), (std::array{layers, dim, heads}));
    EXPECT_EQ(config.grid_side, model.image_size / 16);
    EXPECT_FLOAT_EQ(config.norm_eps, 1e-5f);
    if (model.kind == CheckpointKind::kLlamaGenClass) {
      EXPECT_EQ(config.num_classes, kClasses);
    } else {
      EXPECT_EQ(config.cls_token_num, 120);
      EXPECT_EQ(config.caption_dim, 2048);
    }
  }
}

TEST(PublishedModels, TokenizersOf16And8Pixels) {
  for (const auto& [mult, factor] :
       {std::pair{std::vector<int64_t>{1, 1, 2, 2, 4}, 16}, {std::vector<int64_t>{1, 2, 2, 4}, 8}}) {
    const ShapesOnly weights(vq_shapes(mult));
    EXPECT_EQ(recognise_checkpoint(weights), CheckpointKind::kVq);
    const VqConfig config = infer_vq_config(weights);
    EXPECT_EQ(config.factor(), factor);
    EXPECT_EQ(config.ch_mult, mult);
    EXPECT_EQ(config.codebook_size, kCodes);
    EXPECT_EQ(config.codebook_embed_dim, 8);
    EXPECT_EQ(config.num_res_blocks, 2);
  }
}

TEST(PublishedModels, NamesAreUniqueAndNeedWhatIsThere) {
  std::map<std::string_view, int> names;
  for (const PublishedModel& model : published_models()) {
    EXPECT_EQ(names[model.name]++, 0) << model.name;
    EXPECT_EQ(find_published_file(model.file), &model);
    EXPECT_FALSE(model.licence.empty());
    if (model.kind == CheckpointKind::kVq) continue;
    const PublishedModel* vq = find_published_model(model.vq);
    ASSERT_NE(vq, nullptr) << model.name;
    EXPECT_EQ(vq->kind, CheckpointKind::kVq);
  }
}

// ---- Small checkpoints in every form

class PublishedCard : public testing::Test {
 protected:
  PublishedCard() {
    test::write_toy_model_folder(box_.file("toy"));
    fs::create_directory(path(""));
    copy("vq.safetensors", "vq_ds16_c2i.safetensors");
    write_text(path("config.json"), R"({"n_head": 2})");  // no published size
  }

  std::string path(const std::string& name) const { return box_.file("bare/" + name); }
  std::string toy(const std::string& name) const { return box_.file("toy/" + name); }
  void copy(const std::string& from, const std::string& to) const { fs::copy_file(toy(from), path(to)); }

  static std::unique_ptr<WeightSource> weights(const std::string& file) { return open_weights(file); }

  ImageCard card(const std::string& file, int64_t image_size = test::kToySide) const {
    return open_image_card({.path = path(file), .image_size = image_size});
  }
  std::string fault(const ImageFiles& files) const {
    try {
      const ImageCard card = open_image_card(files);
      const Transformer transformer = card.arpg ? Transformer::kArpg : Transformer::kLlamaGen;
      ImageModel(card, {.backend = make_backend("cpu", 1), .transformer = transformer});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  }
  std::string file_fault(const std::string& file) const {
    return fault({.path = path(file), .image_size = test::kToySide});
  }

  static std::vector<int32_t> tokens(const ImageCard& card,
                                     std::shared_ptr<const TextFeatures> features = nullptr) {
    ImageRequest request{.model = card.name, .class_id = 2, .seed = 5};
    request.features = std::move(features);
    choose_method(card, {.cfg = 2.0, .top_k = 20}, request);
    const ImageModel model(
        card, {.backend = make_backend("cpu", 1), .transformer = transformer_for(request.decoder)});
    struct Keeper : ImageObserver {
      void on_picture(const ImagePicture& picture) override { tokens = picture.tokens; }
      std::vector<int32_t> tokens;
    } keeper;
    run_image(model, request, {.observer = &keeper});
    EXPECT_EQ(keeper.tokens.size(), static_cast<size_t>(test::kToyTokens));
    return keeper.tokens;
  }
  std::vector<int32_t> expected(Transformer transformer) const {
    ImageCard card = read_image_card(box_.file("toy"));
    if (transformer == Transformer::kLlamaGen) {
      card.arpg.reset();
    } else {
      card.llamagen.reset();
      card.arpg->defaults.steps = 64;
    }
    return tokens(card);
  }

  test::TempFolder box_;
};

TEST_F(PublishedCard, EveryContainerAndWrapperGivesTheSameTokens) {
  for (const auto& [name, transformer] :
       {std::pair{"llamagen", Transformer::kLlamaGen}, {"arpg", Transformer::kArpg}}) {
    SCOPED_TRACE(name);
    const std::vector<int32_t> expected_tokens = expected(transformer);
    const std::string file = std::string(name) + ".safetensors";
    copy(file, file);
    EXPECT_EQ(tokens(card(file)), expected_tokens);
    const auto source = weights(toy(file));
    for (const TorchForm& form :
         {TorchForm{}, TorchForm{.wrapper = "model"}, TorchForm{.wrapper = "module"},
          TorchForm{.wrapper = "state_dict"}, TorchForm{.wrapper = "model", .has_training_state = true}}) {
      SCOPED_TRACE(form.wrapper + (form.has_training_state ? " with training state" : ""));
      test::write_torch_checkpoint(path("checkpoint.pt"), *source, form);
      EXPECT_EQ(tokens(card("checkpoint.pt")), expected_tokens);
    }
    fs::remove(path("checkpoint.pt"));
    fs::remove(path(file));
  }
}

TEST_F(PublishedCard, LanternsNamesGiveTheSameTokens) {
  const std::vector<int32_t> expected_tokens = expected(Transformer::kLlamaGen);
  fs::remove(path("config.json"));
  write_text(
      path("config.json"),
      R"({"model_type": "llama", "num_attention_heads": 2, "rms_norm_eps": 1e-05, "hidden_size": 16})");
  test::write_lantern_checkpoint(path("model.safetensors"), *weights(toy("llamagen.safetensors")));
  const ImageCard by_file = card("model.safetensors");
  EXPECT_EQ(by_file.name, "bare");
  EXPECT_EQ(tokens(by_file), expected_tokens);
  EXPECT_EQ(tokens(card("")), expected_tokens);
  // The epsilon is the configuration's.
  write_text(path("config.json"), R"({"num_attention_heads": 2, "rms_norm_eps": 0.5})");
  EXPECT_FLOAT_EQ(card("").llamagen->config.norm_eps, 0.5f);
  EXPECT_NE(tokens(card("")), expected_tokens);
}

TEST_F(PublishedCard, AFolderOfOneTransformerAndItsTokenizerIsAModel) {
  copy("arpg.safetensors", "arpg_300m.safetensors");
  const ImageCard by_folder = card("");
  EXPECT_EQ(by_folder.vq.file, path("vq_ds16_c2i.safetensors"));
  EXPECT_EQ(by_folder.classes, (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_EQ(by_folder.arpg->defaults.cfg, 5.0);
  EXPECT_EQ(by_folder.arpg->defaults.steps, 64);
  copy("llamagen.safetensors", "c2i.safetensors");
  EXPECT_THAT(file_fault(""),
              HasSubstr("holds several models: 'arpg_300m.safetensors', 'c2i.safetensors'; name one"));
  fs::remove(path("arpg_300m.safetensors"));
  fs::remove(path("c2i.safetensors"));
  EXPECT_THAT(file_fault(""), HasSubstr("holds neither config.json nor a LlamaGen or ARPG checkpoint"));
}

TEST_F(PublishedCard, TheSizeIsStatedOrNamedOrAssumed) {
  copy("llamagen.safetensors", "c2i_B_384.safetensors");
  copy("llamagen.safetensors", "c2i.safetensors");
  EXPECT_EQ(card("c2i_B_384.safetensors", 0).image_size, 384);
  EXPECT_EQ(card("c2i_B_384.safetensors", 0).size_source, SizeSource::kFileName);
  EXPECT_EQ(card("c2i.safetensors", 0).image_size, 256);
  EXPECT_EQ(card("c2i.safetensors", 0).size_source, SizeSource::kAssumed);
  EXPECT_EQ(card("c2i.safetensors", 512).size_source, SizeSource::kStated);
  // The name of a published file, for which the catalogue has the size.
  copy("arpg.safetensors", "arpg_300m.pt");
  EXPECT_EQ(card("arpg_300m.pt", 0).image_size, 256);
  EXPECT_EQ(card("arpg_300m.pt", 0).size_source, SizeSource::kFileName);
  EXPECT_EQ(card("arpg_300m.pt", 512).size_source, SizeSource::kStated);
  copy("llamagen.safetensors", "arpg_700m.pt");
  EXPECT_EQ(card("arpg_700m.pt", 0).size_source, SizeSource::kAssumed) << "a model of another kind";
  EXPECT_EQ(card("c2i.safetensors", 512).grid, 256);
  EXPECT_THAT(fault({.path = path("c2i_B_384.safetensors"), .image_size = 256}),
              HasSubstr("--image-size 256: weights and grid disagree: "));
  EXPECT_THAT(fault({.path = path("c2i.safetensors"), .image_size = 17}), HasSubstr("a multiple of"));
  test::write_with(path("table.safetensors"), *weights(toy("llamagen.safetensors")), "freqs_cis", {65, 4, 2});
  EXPECT_EQ(tokens(card("table.safetensors")), expected(Transformer::kLlamaGen));
  EXPECT_THAT(
      fault({.path = path("table.safetensors"), .image_size = 32}),
      HasSubstr("weights and grid disagree: tensor freqs_cis: expected 257 rows for 256 cells, found 65"));
}

TEST_F(PublishedCard, ATokenizerIsNamedOrFoundOrToBePulled) {
  copy("llamagen.safetensors", "c2i.safetensors");
  fs::create_directory(box_.file("store"));
  fs::rename(path("vq_ds16_c2i.safetensors"), box_.file("store/vq_ds16_c2i.pt"));
  const ImageFiles files{.path = path("c2i.safetensors"), .image_size = test::kToySide};
  try {
    open_image_card(files);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModelMissing);
    EXPECT_THAT(error.what(), HasSubstr("volley models pull llamagen-vq16 gets it, --vq names one"));
  }
  ImageFiles named = files, searched = files;
  named.vq = box_.file("store/vq_ds16_c2i.pt");
  searched.vq_folders = {box_.file("nowhere"), box_.file("store")};
  EXPECT_EQ(open_image_card(named).vq.file, named.vq);
  EXPECT_EQ(open_image_card(searched).vq.file, named.vq);
  named.vq = path("c2i.safetensors");
  EXPECT_THAT(fault(named), HasSubstr("expected a LlamaGen VQ tokenizer, found llamagen c2i"));
  EXPECT_THAT(fault({.path = box_.file("store/vq_ds16_c2i.pt")}), HasSubstr("is a tokenizer (llamagen vq)"));
  EXPECT_THAT(fault({.path = box_.file("toy"), .vq = named.vq}), HasSubstr("--vq: model folder"));
}

TEST_F(PublishedCard, EveryTensorMustFit) {
  const auto source = weights(toy("llamagen.safetensors"));
  test::write_without(path("a.safetensors"), *source, "layers.1.ffn_norm.weight");
  EXPECT_THAT(file_fault("a.safetensors"),
              HasSubstr("a.safetensors: tensor layers.1.ffn_norm.weight: missing, expected [16]"));
  test::write_with(path("b.safetensors"), *source, "layers.0.attention.bias", {16});
  EXPECT_THAT(file_fault("b.safetensors"),
              HasSubstr("b.safetensors: tensor layers.0.attention.bias: the model has no such tensor"));
  test::write_without(path("c.safetensors"), *source, "output.weight");
  test::write_with(path("d.safetensors"), *weights(path("c.safetensors")), "output.weight", {31, 16});
  EXPECT_THAT(file_fault("d.safetensors"),
              HasSubstr("tensor output.weight: expected shape [32, 16], found [31, 16]"));
  test::write_without(path("e.safetensors"), *source, "tok_embeddings.weight");
  test::write_with(path("f.safetensors"), *weights(path("e.safetensors")), "tok_embeddings.weight", {40, 16});
  EXPECT_THAT(file_fault("f.safetensors"), HasSubstr("f.safetensors: expected the 32 codes of"));
  fs::remove(path("config.json"));
  copy("llamagen.safetensors", "g.safetensors");
  EXPECT_THAT(file_fault("g.safetensors"), HasSubstr("2 layers of width 16 are no published size"));
  write_text(path("config.json"), R"({"n_head": 3})");
  EXPECT_THAT(file_fault("g.safetensors"), HasSubstr("dim 16 is no multiple of 4 times 3 heads"));
  write_text(path("config.json"), R"({"n_head": "two"})");
  EXPECT_THAT(file_fault("g.safetensors"), HasSubstr("config.json: key 'n_head': expected"));
}

TEST_F(PublishedCard, AThousandClassesHaveImageNetsNames) {
  const std::vector<std::string_view> names = imagenet_names();
  ASSERT_EQ(names.size(), 1000u);
  EXPECT_EQ(names[0], "tench");
  EXPECT_EQ(names[207], "golden retriever");
  EXPECT_EQ(names[999], "toilet tissue");
  test::write_without(path("a.safetensors"), *weights(toy("llamagen.safetensors")),
                      "cls_embedding.embedding_table.weight");
  test::write_with(path("b.safetensors"), *weights(path("a.safetensors")),
                   "cls_embedding.embedding_table.weight", {1001, 16});
  const ImageCard made = card("b.safetensors");
  EXPECT_EQ(find_class(made, "207").id, 207);
  EXPECT_EQ(find_prompt(made, "207").id, 207);
  EXPECT_EQ(find_prompt(made, "a Golden Retriever, please").id, 207);
  EXPECT_EQ(find_prompt(made, "a Golden Retriever, please").name, "207");
  EXPECT_EQ(find_prompt(made, "cardigan 474").id, 474);
  EXPECT_THROW(find_prompt(made, "cardigan"), Error) << "two classes are called so";
  copy("llamagen.safetensors", "four.safetensors");
  EXPECT_TRUE(card("four.safetensors").names.empty());
}

// ---- Captions

std::shared_ptr<TextFeatures> features(int64_t rows, float start) {
  TextFeatures made{.file = "f", .rows = rows};
  for (int64_t i = 0; i < rows * test::kToyCaptionWidth; ++i)
    made.values.push_back(start + 0.1f * static_cast<float>(i % 7));
  return std::make_shared<TextFeatures>(made);
}

TEST_F(PublishedCard, CaptionsDrawFromTheirFeatures) {
  test::write_toy_caption_checkpoint(path("t2i.safetensors"));
  const ImageCard made = card("t2i.safetensors");
  EXPECT_TRUE(made.is_caption_model());
  EXPECT_TRUE(made.classes.empty());
  EXPECT_EQ(made.llamagen->defaults.cfg, 7.5);
  const std::vector<int32_t> one = tokens(made, features(3, 0.5f));
  EXPECT_EQ(tokens(made, features(3, 0.5f)), one);
  EXPECT_NE(tokens(made, features(3, -0.5f)), one);
  EXPECT_NE(tokens(made, features(2, 0.5f)), one);
  test::write_lantern_checkpoint(path("renamed.safetensors"), *weights(path("t2i.safetensors")));
  EXPECT_EQ(tokens(card("renamed.safetensors"), features(3, 0.5f)), one);
}

}  // namespace
}  // namespace volley::image
