#include "tests/unit/image/toy_model_folder.h"

#include <filesystem>

#include "core/io/atomic_file.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kDim = 16, kHeads = kToyHeads, kLayers = 2, kCodes = 32, kClasses = 4, kFfn = 32, kGrid = 8;
constexpr int64_t kEncoderWidth = 8, kBuckets = 64, kWords = 3;
constexpr int64_t kChannels = 32, kLatent = 16, kCodeWidth = 8;
constexpr float kSpread = 0.5f;

// Tensors of one file, named as in the checkpoints of the family.
class Tensors {
 public:
  explicit Tensors(uint64_t seed) : random_(seed) {}

  void add(const std::string& name, Shape shape, float spread, float mean = 0.0f) {
    weights_.add(name, shape, random_, spread, mean);
  }
  void linear(const std::string& name, int64_t out, int64_t in) { add(name + ".weight", {out, in}, kSpread); }
  void rms_norm(const std::string& name) { add(name + ".weight", {kDim}, 0.1f, 1.0f); }
  void group_norm(const std::string& name) {
    add(name + ".weight", {kChannels}, 0.1f, 1.0f);
    add(name + ".bias", {kChannels}, 0.1f);
  }
  void conv(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
    add(name + ".weight", {out, in, kernel, kernel}, 0.4f / static_cast<float>(kernel));
    add(name + ".bias", {out}, 0.1f);
  }
  void resnet(const std::string& prefix) {
    group_norm(prefix + "norm1");
    conv(prefix + "conv1", kChannels, kChannels, 3);
    group_norm(prefix + "norm2");
    conv(prefix + "conv2", kChannels, kChannels, 3);
  }
  void attention(const std::string& prefix) {
    group_norm(prefix + "norm");
    for (const char* part : {"q", "k", "v", "proj_out"}) conv(prefix + part, kChannels, kChannels, 1);
  }
  void mid(const std::string& prefix) {
    resnet(prefix + "0.");
    attention(prefix + "1.");
    resnet(prefix + "2.");
  }
  void write(const std::string& path) {
    weights_.finish();
    write_safetensors(path, weights_.tensors());
  }

 private:
  TestRandom random_;
  MemoryWeights weights_;
};

void write_vq(const std::string& path, uint64_t seed) {
  Tensors vq(seed);
  vq.add("quantize.embedding.weight", {kCodes, kCodeWidth}, 1.0f);
  vq.conv("encoder.conv_in", kChannels, 3, 3);
  vq.resnet("encoder.conv_blocks.0.res.0.");
  vq.conv("encoder.conv_blocks.0.downsample.conv", kChannels, kChannels, 3);
  vq.resnet("encoder.conv_blocks.1.res.0.");
  vq.attention("encoder.conv_blocks.1.attn.0.");
  vq.mid("encoder.mid.");
  vq.group_norm("encoder.norm_out");
  vq.conv("encoder.conv_out", kLatent, kChannels, 3);
  vq.conv("quant_conv", kCodeWidth, kLatent, 1);
  vq.conv("post_quant_conv", kLatent, kCodeWidth, 1);
  vq.conv("decoder.conv_in", kChannels, kLatent, 3);
  vq.mid("decoder.mid.");
  for (const char* i : {"0", "1"}) {
    vq.resnet(std::string("decoder.conv_blocks.0.res.") + i + ".");
    vq.attention(std::string("decoder.conv_blocks.0.attn.") + i + ".");
    vq.resnet(std::string("decoder.conv_blocks.1.res.") + i + ".");
  }
  vq.conv("decoder.conv_blocks.0.upsample.conv", kChannels, kChannels, 3);
  vq.group_norm("decoder.norm_out");
  vq.conv("decoder.conv_out", 3, kChannels, 3);
  vq.write(path);
}

// What a transformer is conditioned on: a class (no rows), or rows of features.
struct Condition {
  int64_t rows = 0, width = 0, classes = kClasses;
};
constexpr Condition kOnClass{}, kOnCaption{.rows = kToyCaptionRows, .width = kToyCaptionWidth},
    kOnText{.rows = 1, .width = kEncoderWidth};

void add_caption(Tensors& model, const Condition& condition) {
  model.linear("cls_embedding.cap_proj.fc1", kDim, condition.width);
  model.linear("cls_embedding.cap_proj.fc2", kDim, kDim);
  model.add("cls_embedding.uncond_embedding", {condition.rows, condition.width}, 1.0f);
}

void write_text_encoder(const std::string& path, uint64_t seed) {
  Tensors model(seed);
  const int64_t width = kEncoderWidth;
  model.add("class_embedding.weight", {kClasses + 1, width}, 1.0f);
  model.add("word_embedding.weight", {kBuckets, width}, 1.0f);
  model.add("position_embedding.weight", {1 + kWords, width}, 1.0f);
  for (const char* norm : {"layers.0.attention_norm", "layers.0.ffn_norm", "norm"})
    model.add(std::string(norm) + ".weight", {width}, 0.1f, 1.0f);
  model.linear("layers.0.attention.wqkv", 3 * width, width);
  model.linear("layers.0.attention.wo", width, width);
  model.linear("layers.0.feed_forward.w1", kFfn, width);
  model.linear("layers.0.feed_forward.w2", width, kFfn);
  model.linear("layers.0.feed_forward.w3", kFfn, width);
  model.write(path);
}

void write_llamagen(const std::string& path, uint64_t seed, const Condition& condition) {
  Tensors model(seed);
  model.add("tok_embeddings.weight", {kCodes, kDim}, 1.0f);
  if (condition.rows == 0) {
    model.add("cls_embedding.embedding_table.weight", {condition.classes + 1, kDim}, 1.0f);
  } else {
    add_caption(model, condition);
  }
  for (int64_t l = 0; l < kLayers; ++l) {
    const std::string prefix = "layers." + std::to_string(l) + ".";
    model.rms_norm(prefix + "attention_norm");
    model.linear(prefix + "attention.wqkv", 3 * kDim, kDim);
    model.linear(prefix + "attention.wo", kDim, kDim);
    model.rms_norm(prefix + "ffn_norm");
    model.linear(prefix + "feed_forward.w1", kFfn, kDim);
    model.linear(prefix + "feed_forward.w2", kDim, kFfn);
    model.linear(prefix + "feed_forward.w3", kFfn, kDim);
  }
  model.rms_norm("norm");
  model.linear("output", kCodes, kDim);
  model.write(path);
}

void write_arpg(const std::string& path, uint64_t seed, const Condition& condition) {
  Tensors model(seed);
  model.add("embeddings.weight", {kCodes + 1 + (condition.rows == 0 ? kClasses + 2 : 0), kDim}, 1.0f);
  if (condition.rows > 0) add_caption(model, condition);
  for (const std::string part : {"self_dec", "cross_dec"}) {
    const std::string prefix = "layers." + part + ".0.";
    model.rms_norm(prefix + "attn_norm");
    model.linear(prefix + "attn.to_q", kDim, kDim);
    if (part == "self_dec") {
      model.linear(prefix + "attn.to_k", kDim, kDim);
      model.linear(prefix + "attn.to_v", kDim, kDim);
    }
    model.linear(prefix + "attn.proj", kDim, kDim);
    model.rms_norm(prefix + "ffn_norm");
    model.linear(prefix + "ffn.w1", kFfn, kDim);
    model.linear(prefix + "ffn.w2", kDim, kFfn);
    model.linear(prefix + "ffn.w3", kFfn, kDim);
  }
  model.rms_norm("layers.norm");
  model.linear("layers.to_k", kDim, kDim);
  model.linear("layers.to_v", kDim, kDim);
  model.rms_norm("norm");
  model.linear("head", kCodes, kDim);
  model.write(path);
}

void write_json(const std::string& path, const nlohmann::json& json) {
  AtomicFile file(path);
  file.write(json.dump(1));
  file.commit();
}

}  // namespace

void write_toy_model_folder(const std::string& folder, const ToyFolderOptions& options) {
  std::filesystem::create_directories(folder);
  nlohmann::json config{{"format", "volley.image_model/1"},
                        {"name", "toy"},
                        {"image_size", kToySide},
                        {"grid", kGrid},
                        {"classes", {"food-fruit", "food-drink", "animal-bird", "sky & weather"}},
                        {"vq",
                         {{"file", "vq.safetensors"},
                          {"ch", kChannels},
                          {"ch_mult", {1, 1}},
                          {"z_channels", kLatent},
                          {"codebook_size", kCodes},
                          {"codebook_embed_dim", kCodeWidth},
                          {"num_res_blocks", 1}}}};
  nlohmann::json sizes{{"dim", kDim},          {"n_layer", kLayers},          {"n_head", kHeads},
                       {"vocab_size", kCodes}, {"block_size", kGrid * kGrid}, {"ffn_dim", kFfn}};
  if (options.has_text_encoder) {
    sizes["model_type"] = "t2i";
    sizes["caption_dim"] = kEncoderWidth;
    config["text_encoder"] = {{"file", "text_encoder.safetensors"},
                              {"dim", kEncoderWidth},
                              {"n_layer", 1},
                              {"n_head", kHeads},
                              {"ffn_dim", kFfn},
                              {"num_classes", kClasses},
                              {"buckets", kBuckets},
                              {"max_words", kWords}};
    write_text_encoder(folder + "/text_encoder.safetensors", options.seed + 3);
  } else {
    sizes["num_classes"] = kClasses;
  }
  const Condition condition = options.has_text_encoder ? kOnText : kOnClass;
  write_vq(folder + "/vq.safetensors", options.seed);
  if (options.has_llamagen) {
    config["llamagen"] = sizes;
    config["llamagen"]["file"] = "llamagen.safetensors";
    config["llamagen"]["cls_token_num"] = 1;
    config["llamagen"]["defaults"] = {{"cfg", 2.0}, {"temperature", 1.0}, {"top_k", 0}, {"top_p", 1.0}};
    write_llamagen(folder + "/llamagen.safetensors", options.seed + 1, condition);
  }
  if (options.has_arpg) {
    config["arpg"] = sizes;
    config["arpg"]["file"] = "arpg.safetensors";
    config["arpg"]["defaults"] = {{"cfg", 3.0},           {"steps", 16},
                                  {"schedule", "arccos"}, {"guidance_schedule", "linear"},
                                  {"temperature", 1.0},   {"top_k", 8}};
    write_arpg(folder + "/arpg.safetensors", options.seed + 2, condition);
  }
  write_json(folder + "/config.json", config);
  write_json(folder + "/names.json", {{"red apple", "food-fruit"},
                                      {"green apple", "food-fruit"},
                                      {"teacup without handle", "food-drink"},
                                      {"apple juice", "food-drink"},
                                      {"bird", "animal-bird"},
                                      {"cloud", "sky & weather"}});
}

void write_toy_class_checkpoint(const std::string& path, int64_t classes) {
  write_llamagen(path, 1, {.classes = classes});
}

void write_toy_caption_checkpoint(const std::string& path, uint64_t seed) {
  write_llamagen(path, seed, kOnCaption);
}

}  // namespace volley::test
