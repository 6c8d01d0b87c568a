// volley verify: makes a picture again from its run record and compares.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "apps/edit_files.h"
#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/picture_record.h"
#include "apps/progress.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "image/image_job.h"

namespace volley::apps {
namespace {

constexpr std::string_view kSchema = "volley.verify/1";

// Difference of a block's mean colours, of 255, up to which its pixels may be those of a lossy file.
constexpr int64_t kLossyDifference = 48;

struct VerifyFlags {
  SharedFlags shared;
  std::string file;
  std::string init;
  std::string mask;
};

// The first thing that is not as recorded.
struct Difference {
  std::string what;  // "weights", "record", "init", "mask", "tokens", "pixels"
  std::string message;
};
using Verdict = std::optional<Difference>;

// Runs `call`; what is then wrong with a request is wrong with the record it came from: key `key`, or, if
// empty, the whole. Throws Error "<subject>: ..." that speaks of no flag.
template <typename Call>
auto as_recorded(const RecordedPicture& made, const std::string& key, Call call) {
  try {
    return call();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    std::string fault = error.what();
    const std::string flag = "--" + key + " ";
    if (fault.starts_with(flag)) fault.erase(0, flag.size());
    throw Error(made.subject + ": " + (key.empty() ? "" : "key '" + key + "': ") + fault);
  }
}

// The model the record names: one of the box, since a record may come from anywhere and is no reason to read
// a folder.
std::string recorded_model(const RecordedPicture& made) {
  const std::string& name = made.record.request.model;
  const std::string subject = made.subject + ": key 'model': ";
  if (name.find('/') != std::string::npos || name == "." || name == "..") {
    throw Error(subject + quote(name) + " is no model's name; -m names a model folder");
  }
  return find_boxed_model(name, subject + quote(name));
}

// Whether the prompt names the class that was drawn.
Verdict compare_prompt(const image::ImageCard& card, const image::ImageRequest& request) {
  if (request.prompt.empty()) return std::nullopt;
  const auto named = [&]() -> std::string {
    try {
      return "class " + find_prompt(card, request.prompt).name;
    } catch (const Error&) {
      return "no class of the model";
    }
  }();
  if (named == "class " + request.class_name) return std::nullopt;
  return Difference{.what = "record",
                    .message = "prompt: recorded " + quote(request.prompt) + ", which names " +
                               printable(named, 100) + ", found class " + printable(request.class_name, 100)};
}

class Remade : public image::ImageObserver {
 public:
  Remade(Console& console, int64_t count, int64_t tokens)
      : progress_(console, {.label = "verify", .outputs = count, .tokens_each = tokens}) {}
  void on_step(const StepEvent& event) override { progress_.on_step(event); }
  void on_picture(const image::ImagePicture& picture) override { pictures.push_back(picture); }
  void clear() { progress_.clear(); }

  std::vector<image::ImagePicture> pictures;

 private:
  Progress progress_;
};

Verdict differs(std::string what, const std::string& name, const std::string& recorded,
                const std::string& found) {
  return Difference{
      .what = std::move(what),
      .message = name + ": recorded " + printable(recorded, 100) + ", found " + printable(found, 100)};
}

Verdict compare_weights(const image::ImageCard& card, const image::RunRecord& record) {
  const image::Transformer transformer = image::transformer_for(record.request.decoder);
  std::map<std::string, std::string> found{{"vq", image::hash_file(card.vq.file)}};
  if (transformer == image::Transformer::kLlamaGen && card.llamagen) {
    found["llamagen"] = image::hash_file(card.llamagen->file);
  } else if (transformer == image::Transformer::kArpg && card.arpg) {
    found["arpg"] = image::hash_file(card.arpg->file);
  }
  if (card.text_encoder) found["text_encoder"] = image::hash_file(card.text_encoder->file);
  for (const auto& [role, hash] : found) {
    const auto recorded = record.weights.find(role);
    if (recorded == record.weights.end()) return differs("weights", role, "none", hash);
    if (recorded->second != hash) return differs("weights", role, recorded->second, hash);
  }
  for (const auto& [role, hash] : record.weights) {
    if (!found.contains(role)) return differs("weights", role, hash, "none");
  }
  return std::nullopt;
}

// What the record says of the file and the model, before anything is made from it.
Verdict compare_frame(const image::ImageCard& card, const RecordedPicture& made) {
  const image::RunRecord& record = made.record;
  const auto size = [](int64_t width, int64_t height) {
    return std::to_string(width) + "x" + std::to_string(height);
  };
  const std::string recorded = size(record.width, record.height);
  const std::string actual = size(made.picture.width, made.picture.height);
  if (recorded != actual) return differs("record", "size", recorded, actual);
  const image::Canvas canvas = canvas_of(card, record.request);
  if (canvas.cells() > image::kMaxCanvas) {
    return differs("record", "outpaint", std::to_string(canvas.cells()) + " cells",
                   std::to_string(image::kMaxCanvas) + " at most");
  }
  const std::string expected =
      size(record.layout.columns * canvas.width(), record.layout.rows * canvas.height());
  if (recorded != expected)
    return differs("record", "size", recorded, expected + " by the grid and the model");
  if (card.is_caption_model() != !record.request.features_hash.empty()) {
    return differs("record", "text_features", record.request.features_hash.empty() ? "none" : "some",
                   card.is_caption_model() ? "a model of captions" : "a model of classes");
  }
  if (card.is_caption_model()) return std::nullopt;
  if (record.request.is_text()) {
    if (card.text_encoder) return std::nullopt;
    return differs("record", "class", "none", "a model of classes");
  }
  if (record.request.class_id >= static_cast<int64_t>(card.classes.size())) {
    return differs("record", "class_id", std::to_string(record.request.class_id),
                   std::to_string(card.classes.size()) + " classes");
  }
  const std::string& name = card.classes[static_cast<size_t>(record.request.class_id)];
  if (record.request.class_name != name) return differs("record", "class", record.request.class_name, name);
  return card.text_encoder ? std::nullopt : compare_prompt(card, record.request);
}

// The file an edit was made from: the one that a flag names, or one of the recorded name beside the picture
// or in the working folder.
std::string find_source(const RecordedPicture& made, const image::SourceFile& file, const std::string& flag,
                        const std::string& given) {
  if (!given.empty()) return given;
  if (file.name.empty() || file.name.find('/') != std::string::npos || file.name == "." ||
      file.name == "..") {
    throw Error(made.subject + ": " + quote(file.name) + " is no file's name; " + flag + " names the file");
  }
  for (const auto& folder : {std::filesystem::path(made.path).parent_path(), std::filesystem::path()}) {
    std::error_code code;
    const std::filesystem::path path = folder / file.name;
    if (std::filesystem::is_regular_file(path, code)) return path.string();
  }
  throw Error(made.path + ": was made from " + quote(file.name) + ", which is not beside it; " + flag +
              " names the file");
}

// Puts the pixels that an edit started from into the request.
Verdict restore_edit(const VerifyFlags& flags, const RecordedPicture& made, const image::ImageCard& card,
                     image::ImageRequest& request) {
  if (!request.edit) {
    if (flags.init.empty() && flags.mask.empty()) return std::nullopt;
    throw Error(std::string(flags.init.empty() ? "--mask " + flags.mask : "--init " + flags.init) + ": " +
                    made.path + " was not made from another picture",
                ErrorKind::kUsage);
  }
  image::EditRequest& edit = *request.edit;
  image::EditRequest found;
  read_edit_files(
      {.init = find_source(made, edit.init, "--init", flags.init),
       .mask = edit.mask ? find_source(made, *edit.mask, "--mask", flags.mask) : ""},
      card, [](const std::string&) {}, found);
  if (found.init.sha256 != edit.init.sha256) {
    return differs("init", edit.init.name, edit.init.sha256, found.init.sha256);
  }
  if (edit.mask && found.mask->sha256 != edit.mask->sha256) {
    return differs("mask", edit.mask->name, edit.mask->sha256, found.mask->sha256);
  }
  edit.source = found.source;
  return std::nullopt;
}

// Whether a lossy file can be of these pixels: compression keeps the mean colours of its blocks nearly.
Verdict compare_roughly(const image::Picture& recorded, const image::Picture& found) {
  constexpr int64_t kBlock = 8;
  for (int64_t top = 0; top < found.height; top += kBlock) {
    for (int64_t left = 0; left < found.width; left += kBlock) {
      const int64_t right = std::min(left + kBlock, found.width);
      const int64_t bottom = std::min(top + kBlock, found.height);
      std::array<int64_t, 3> difference{};
      for (int64_t y = top; y < bottom; ++y) {
        for (int64_t x = left; x < right; ++x) {
          for (size_t c = 0; c < 3; ++c) {
            const size_t at = static_cast<size_t>(3 * (y * found.width + x)) + c;
            difference[c] += recorded.rgb[at] - found.rgb[at];
          }
        }
      }
      const int64_t pixels = (bottom - top) * (right - left);
      for (int64_t value : difference) {
        if (std::abs(value) <= kLossyDifference * pixels) continue;
        return Difference{.what = "pixels",
                          .message = "block at column " + std::to_string(left) + ", row " +
                                     std::to_string(top) + ": mean colours differ by " +
                                     std::to_string(std::abs(value) / pixels) + " of 255, expected at most " +
                                     std::to_string(kLossyDifference) + " in a lossy file"};
      }
    }
  }
  return std::nullopt;
}

Verdict compare_pixels(const image::Picture& recorded, const image::Picture& found) {
  for (size_t i = 0; i < recorded.rgb.size(); ++i) {
    if (recorded.rgb[i] == found.rgb[i]) continue;
    const auto pixel = static_cast<int64_t>(i / 3);
    const auto rgb = [pixel](const image::Picture& picture) {
      std::string text;
      for (int64_t c = 0; c < 3; ++c) {
        text += (c > 0 ? "," : "") + std::to_string(picture.rgb[static_cast<size_t>(3 * pixel + c)]);
      }
      return "rgb " + text;
    };
    return differs("pixels",
                   "pixel at column " + std::to_string(pixel % recorded.width) + ", row " +
                       std::to_string(pixel / recorded.width),
                   rgb(recorded), rgb(found));
  }
  return std::nullopt;
}

Verdict compare_remade(const RecordedPicture& made, const image::RunRecord& again,
                       std::span<const image::ImagePicture> pictures, bool device_is_recorded) {
  const image::RunRecord& record = made.record;
  const int64_t first = record.pictures.front().index;
  std::vector<const image::Picture*> cells(static_cast<size_t>(record.pictures.back().index - first + 1),
                                           nullptr);
  for (size_t i = 0; i < pictures.size(); ++i) {
    const std::string name = "picture " + std::to_string(pictures[i].index);
    const auto& recorded = record.pictures[i];
    if (recorded.seed != pictures[i].seed) {
      return differs("record", name + ": seed", std::to_string(recorded.seed),
                     std::to_string(pictures[i].seed));
    }
    if (recorded.token_hash != pictures[i].token_hash) {
      return differs("tokens", name + ": hash of its tokens", recorded.token_hash, pictures[i].token_hash);
    }
    cells[static_cast<size_t>(pictures[i].index - first)] = &pictures[i].picture;
  }
  const image::Picture picture = image::make_grid(cells, record.layout);
  if (auto verdict =
          made.is_lossless ? compare_pixels(made.picture, picture) : compare_roughly(made.picture, picture)) {
    return verdict;
  }
  // The rest of the record, except for what may differ between two makings.
  const nlohmann::json found = image::to_json(again);
  for (const auto& [key, value] : made.json.items()) {
    if (key == "volley" || (key == "device" && !device_is_recorded)) continue;
    const auto other = found.find(key);
    if (other == found.end()) return differs("record", key, value.dump(), "nothing");
    if (*other != value) return differs("record", key, value.dump(), other->dump());
  }
  return std::nullopt;
}

// Why tokens or pixels may differ: another version or device. Empty if both are the record's.
std::string makers(const image::RunRecord& record, const image::RunRecord& again) {
  if (record.volley == again.volley && record.device == again.device) return "";
  const auto maker = [](const image::RunRecord& made) {
    return "volley " + printable(made.volley, 40) + " on " + printable(made.device, 40) + " in " + made.dtype;
  };
  return "; made by " + maker(record) + ", again by " + maker(again);
}

image::ImageCard open_recorded_card(const SharedFlags& flags, const RecordedPicture& made) {
  const std::string path = flags.model.empty() ? recorded_model(made) : find_model(flags.model);
  image::ImageCard card = open_card(flags, path);
  if (card.size_source == image::SizeSource::kStated) return card;
  // A bare checkpoint does not say what it was run at; the record does.
  SharedFlags stated = flags;
  stated.image_size = made.record.width / made.record.layout.columns;
  return open_card(stated, path);
}

// The text features that the record only has the hash of.
Verdict add_features(const SharedFlags& flags, const image::ImageCard& card, image::ImageRequest& request) {
  if (!card.is_caption_model()) return std::nullopt;
  if (flags.text_features.empty()) {
    throw Error("verify: the picture was drawn from text features; --text-features names their file",
                ErrorKind::kUsage);
  }
  request.features = read_features(flags.text_features, card);
  if (request.features->sha256 == request.features_hash) return std::nullopt;
  return differs("record", "text_features", request.features_hash, request.features->sha256);
}

Verdict verify(const VerifyFlags& flags, const RecordedPicture& made, Program& program) {
  const image::RunRecord& record = made.record;
  const image::ImageCard card = open_recorded_card(flags.shared, made);
  if (auto verdict = compare_weights(card, record)) return verdict;
  if (auto verdict = compare_frame(card, made)) return verdict;
  if (record.dtype != "f32" && record.dtype != "bf16" && record.dtype != "q8_0")
    return differs("record", "dtype", record.dtype, "f32, bf16 or q8_0");

  SharedFlags shared = flags.shared;
  const bool device_is_recorded = shared.device == "auto";
  if (device_is_recorded) shared.device = record.device;
  const auto backend = device_is_recorded ? as_recorded(made, "device", [&] { return backend_for(shared); })
                                          : backend_for(shared);
  const image::ImageModel model(card, {.backend = backend,
                                       .weight_type = weight_type_for({record.dtype, card, *backend}),
                                       .transformer = image::transformer_for(record.request.decoder)});
  image::ImageRequest request = record.request;
  if (auto verdict = add_features(flags.shared, card, request)) return verdict;
  if (auto verdict = restore_edit(flags, made, card, request)) return verdict;
  request.check = image::Check::kNo;
  for (const image::RecordedPicture& picture : record.pictures) request.only.push_back(picture.index);
  Remade remade(program.console, static_cast<int64_t>(record.pictures.size()), card.tokens());
  program.console.detail("making " + plural(static_cast<int64_t>(record.pictures.size()), "picture") +
                         " again: " + card.name + " on " + backend->info().name);
  const image::ImageResult result = as_recorded(
      made, "", [&] { return run_image(model, request, {.observer = &remade, .stop = program.stop}); });
  remade.clear();
  if (result.interrupted) throw Interrupted(flags.file + ": interrupted before it was compared");
  std::ranges::sort(remade.pictures, {}, &image::ImagePicture::index);
  request.model = card.name;
  const image::RunRecord again = make_run_record(model, request, remade.pictures, record.layout);
  Verdict verdict = compare_remade(made, again, remade.pictures, device_is_recorded);
  if (verdict && verdict->what == "pixels") verdict->message += "; all tokens are equal";
  if (verdict && verdict->what != "record") verdict->message += makers(record, again);
  return verdict;
}

int run(const VerifyFlags& flags, Program& program) {
  Console& console = program.console;
  const RecordedPicture made = read_recorded_picture(flags.file);
  const Verdict verdict = verify(flags, made, program);
  const auto count = static_cast<int64_t>(made.record.pictures.size());
  if (flags.shared.json) {
    nlohmann::json json{{"schema", kSchema},
                        {"file", flags.file},
                        {"pictures", count},
                        {"identical", !verdict},
                        {"compared", made.is_lossless ? "tokens and pixels" : "tokens"}};
    if (verdict) json["difference"] = {{"what", verdict->what}, {"message", verdict->message}};
    console.print_line(json.dump());
  } else if (verdict) {
    console.print_line(flags.file + ": differs: " + verdict->what + ": " + verdict->message);
  } else {
    const std::string again = plural(count, "picture") + " made again, ";
    console.print_line(
        flags.file + ": identical: " + again +
        (made.is_lossless ? "tokens and pixels equal" : "tokens equal; pixels are lossy, so alike at best"));
  }
  return verdict ? kExitFailed : kExitDone;
}

}  // namespace

Verb add_verify(CLI::App& program) {
  const auto flags = std::make_shared<VerifyFlags>();
  CLI::App& verb = *program.add_subcommand("verify", "make a picture again from its run record and compare");
  flags->shared.model = "the recorded one";
  verb.add_option("file", flags->file, "picture that volley made: PNG, JPEG or WebP")
      ->type_name("FILE")
      ->required();
  add_text(verb,
           {.names = "--init",
            .type = "FILE",
            .meaning = "the picture it was made from [beside it, by its recorded name]"},
           flags->init);
  add_text(verb, {.names = "--mask", .type = "FILE", .meaning = "the mask it was made with [beside it]"},
           flags->mask);
  add_shared_flags(
      verb, flags->shared,
      {"model", "vq", "image-size", "text-features", "device", "threads", "json", "no-progress"});
  // The record says these; no default may say otherwise.
  for (const char* name :
       {"--model", "--vq", "--image-size", "--text-features", "--device", "--init", "--mask"})
    verb.get_option(name)->configurable(false);
  flags->shared.model.clear();
  return {
      .parser = &verb, .schema = std::string(kSchema), .flags = &flags->shared, .run = [flags](Program& p) {
        return run(*flags, p);
      }};
}

}  // namespace volley::apps
