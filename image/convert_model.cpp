#include "image/convert_model.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"
#include "image/checkpoint.h"
#include "image/run_record.h"

namespace volley::image {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A folder that is made beside its place and moved there when it is whole.
class FolderInMaking {
 public:
  explicit FolderInMaking(const std::string& target) : target_(target) {
    if (!target_.has_filename()) target_ = target_.parent_path();  // "folder/"
    std::error_code code;
    if (target_.empty() || fs::exists(target_, code)) {
      throw Error(target + ": exists already; remove it or name another", ErrorKind::kUsage);
    }
    std::string name = target_.string() + ".partial-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) {
      throw Error(target + ": cannot make the folder: " + std::generic_category().message(errno));
    }
    making_ = name;
    constexpr auto kReadable = fs::perms::owner_all | fs::perms::group_read | fs::perms::group_exec |
                               fs::perms::others_read | fs::perms::others_exec;
    fs::permissions(making_, kReadable, code);
  }
  ~FolderInMaking() {
    std::error_code ignored;
    fs::remove_all(making_, ignored);
  }
  FolderInMaking(const FolderInMaking&) = delete;
  FolderInMaking& operator=(const FolderInMaking&) = delete;

  std::string file(const std::string& name) const { return (making_ / name).string(); }
  void finish() {
    std::error_code code;
    fs::rename(making_, target_, code);
    if (code) throw Error(target_.string() + ": cannot move the folder here: " + code.message());
  }

 private:
  fs::path target_, making_;
};

json defaults_json(const SamplingDefaults& defaults) {
  json entry{{"cfg", defaults.cfg},
             {"guidance_schedule", guidance_name(defaults.guidance)},
             {"cfg_interval", defaults.cfg_interval},
             {"temperature", defaults.temperature},
             {"top_k", defaults.top_k},
             {"top_p", defaults.top_p}};
  if (defaults.steps > 0) entry["steps"] = defaults.steps;
  if (!defaults.schedule.empty()) entry["schedule"] = defaults.schedule;
  return entry;
}

json vq_json(const VqConfig& config) {
  return {{"ch", config.ch},
          {"ch_mult", config.ch_mult},
          {"z_channels", config.z_channels},
          {"codebook_size", config.codebook_size},
          {"codebook_embed_dim", config.codebook_embed_dim},
          {"num_res_blocks", config.num_res_blocks}};
}

json llamagen_json(const CardPart<LlamaGenConfig>& part) {
  const LlamaGenConfig& config = part.config;
  json entry{{"dim", config.dim},
             {"n_layer", config.n_layer},
             {"n_head", config.n_head},
             {"n_kv_head", config.n_kv_head},
             {"vocab_size", config.vocab_size},
             {"block_size", config.block_size},
             {"cls_token_num", config.cls_token_num},
             {"norm_eps", config.norm_eps},
             {"rope_base", config.rope_base},
             {"defaults", defaults_json(part.defaults)}};
  if (config.condition == Condition::kClass) {
    entry["model_type"] = "c2i";
    entry["num_classes"] = config.num_classes;
  } else {
    entry["model_type"] = "t2i";
    entry["caption_dim"] = config.caption_dim;
  }
  return entry;
}

json arpg_json(const CardPart<ArpgConfig>& part) {
  const ArpgConfig& config = part.config;
  return {{"dim", config.dim},
          {"n_layer", config.n_layer},
          {"n_head", config.n_head},
          {"vocab_size", config.vocab_size},
          {"num_classes", config.num_classes},
          {"block_size", config.block_size},
          {"norm_eps", config.norm_eps},
          {"rope_base", config.rope_base},
          {"defaults", defaults_json(part.defaults)}};
}

bool is_model_folder(const std::string& folder) {
  std::error_code code;
  const fs::path config = fs::path(folder) / "config.json";
  if (!fs::is_directory(folder, code) || !fs::exists(config, code)) return false;
  const json found = read_json_file(config.string());
  return found.is_object() && found.contains("format");
}

// The card as a config.json: that of its folder, or written anew for published checkpoints.
json config_of(const ImageCard& card) {
  if (is_model_folder(card.folder)) return read_json_file((fs::path(card.folder) / "config.json").string());
  json config{{"format", kImageModelFormat},
              {"image_size", card.image_size},
              {"grid", card.grid},
              {"classes", card.classes},
              {"vq", vq_json(card.vq.config)}};
  if (card.llamagen) config["llamagen"] = llamagen_json(*card.llamagen);
  if (card.arpg) config["arpg"] = arpg_json(*card.arpg);
  return config;
}

void write_json(const std::string& path, const json& value) {
  AtomicFile file(path);
  file.write(value.dump(1) + "\n");
  file.commit();
}

// The names of what classes hold that a published checkpoint's card was given, as a names.json.
void write_names(const ImageCard& card, const FolderInMaking& folder) {
  if (card.names.empty()) return;
  json names = json::object();
  for (const EmojiName& entry : card.names)
    names[entry.name] = card.classes[static_cast<size_t>(entry.class_id)];
  write_json(folder.file("names.json"), names);
}

// What a model folder says of itself besides config.json: its card, its licences and its names.
void copy_texts(const ImageCard& card, const FolderInMaking& folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(card.folder)) {
    const std::string name = entry.path().filename().string();
    const bool is_text = name.starts_with("CARD") || name.starts_with("LICENSE") || name == "names.json";
    if (!is_text || !entry.is_regular_file()) continue;
    std::error_code code;
    if (!fs::copy_file(entry.path(), folder.file(name), code)) {
      throw Error(entry.path().string() + ": cannot copy: " + code.message());
    }
  }
}

}  // namespace

std::vector<ConvertedFile> convert_image_model(const ConvertArgs& args) {
  const ImageCard& card = args.card;
  VOLLEY_ASSERT(args.type != WeightType::kF32);
  if (args.backend.packed_layout().empty()) {
    throw Error("--device " + args.backend.info().name + ": reads no packed weights", ErrorKind::kUsage);
  }
  if (card.packed) {
    throw Error(card.folder + ": is packed already; convert from the checkpoint", ErrorKind::kUsage);
  }
  FolderInMaking folder(args.folder);
  json config = config_of(card);
  std::vector<ConvertedFile> files;
  const auto pack = [&](const std::string& role, const std::string& from, const auto& load) {
    const std::string name = role + ".safetensors";
    PackedWriter writer(args.backend, args.stop);
    const auto source = open_image_weights(from);
    load(WeightLoader(*source, args.backend, args.type, &writer));
    writer.write(folder.file(name));
    config[role]["file"] = name;
    files.push_back({role, name, static_cast<int64_t>(fs::file_size(folder.file(name)))});
  };
  pack("vq", card.vq.file, [&](WeightLoader loader) { VqModel(card.vq.config, loader); });
  if (card.text_encoder) {
    pack("text_encoder", card.text_encoder->file,
         [&](WeightLoader loader) { TextEncoder(card.text_encoder->config, loader); });
  }
  if (card.llamagen) {
    pack("llamagen", card.llamagen->file,
         [&](WeightLoader loader) { LlamaGen(card.llamagen->config, loader); });
  }
  if (card.arpg) {
    pack("arpg", card.arpg->file, [&](WeightLoader loader) { Arpg(card.arpg->config, loader); });
  }
  const std::string dtype(weight_type_name(args.type));
  config["name"] = card.name + "-" + dtype;
  config["packed"] = {{"dtype", dtype}, {"layout", args.backend.packed_layout()}};
  config.erase("selftest");  // of the weights before packing
  if (is_model_folder(card.folder)) {
    copy_texts(card, folder);
  } else {
    write_names(card, folder);
  }
  if (args.stop.stop_requested()) throw Error(args.folder + ": was interrupted");
  write_json(folder.file("config.json"), config);
  folder.finish();
  return files;
}

}  // namespace volley::image
