// volley verify: makes a picture again from its run record and compares.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "apps/edit_files.h"
#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/picture_record.h"
#include "apps/progress.h"
#include "apps/verbs.h"
#include "apps/verify_compare.h"
#include "apps/verify_fill.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "image/image_job.h"

namespace volley::apps {
namespace {

constexpr std::string_view kSchema = "volley.verify/1";

struct VerifyFlags {
  SharedFlags shared;
  std::string file;
  std::string init;
  std::string mask;
};

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
  try {
    return find_boxed_model(name, subject + quote(name));
  } catch (const Error& error) {
    // It may lie in a folder of somebody's own, as converted models do.
    throw Error(std::string(error.what()) + "; -m names a model's folder or file", error.kind());
  }
}

class Remade : public image::ImageObserver {
 public:
  Remade(Console& console, int64_t count, int64_t tokens, image::Shows shows)
      : progress_(console, {.label = "verify", .outputs = count, .tokens_each = tokens}), shows_(shows) {}
  void on_step(const StepEvent& event) override {
    progress_.on_step(event);
    if (shows_ != image::Shows::kPicture) steps.add(event);
  }
  void on_picture(const image::ImagePicture& picture) override { pictures.push_back(picture); }
  void clear() { progress_.clear(); }

  std::vector<image::ImagePicture> pictures;
  FillSteps steps;  // of a file that shows them

 private:
  Progress progress_;
  image::Shows shows_;
};

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
  throw Error(made.path + ": was made from " + quote(file.name) +
              ", which is neither beside it nor in the working folder; " + flag + " names the file");
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

Verdict compare_shown(const RecordedPicture& made, const image::ImageModel& model,
                      const image::ImageRequest& request, Remade& remade) {
  if (made.file.shows == image::Shows::kPicture) return compare_pictures(made, remade.pictures);
  image::PictureMaker maker(model, request);
  return compare_fill(made, {.maker = maker, .pictures = remade.pictures, .steps = remade.steps});
}

// What of a file is compared, as --json says it and as a sentence.
struct Comparison {
  std::string_view parts;
  std::string_view equal;
};
Comparison comparison_of(const image::FileRecord& file) {
  switch (file.shows) {
    case image::Shows::kAnimation:
      return {"tokens and bytes", "tokens equal, and the animation byte for byte"};
    case image::Shows::kStepMap:
      return {"tokens and pixels", "tokens and pixels of the step map equal"};
    case image::Shows::kPicture:
      break;
  }
  if (file.is_lossless) return {"tokens and pixels", "tokens and pixels equal"};
  return {"tokens", "tokens equal; pixels are lossy, so alike at best"};
}

Verdict verify(const VerifyFlags& flags, const RecordedPicture& made, Program& program) {
  const image::RunRecord& record = made.record;
  const image::ImageCard card = open_recorded_card(flags.shared, made);
  if (auto verdict = compare_weights(card, record)) return verdict;
  if (auto verdict = compare_frame(card, made)) return verdict;
  if (record.dtype != "f32" && record.dtype != "bf16" && record.dtype != "q8_0" && record.dtype != "q4_1")
    return differs("record", "dtype", record.dtype, "f32, bf16, q8_0 or q4_1");

  SharedFlags shared = flags.shared;
  const bool is_by_record = shared.device == "auto";
  // Devices that shared a grid compute alike: one of them is enough.
  if (is_by_record) shared.device = record.device.substr(0, record.device.find(','));
  const bool device_is_recorded = is_by_record && shared.device == record.device;
  const auto backend =
      is_by_record ? as_recorded(made, "device", [&] { return backend_for(shared); }) : backend_for(shared);
  const image::ImageModel model(card, {.backend = backend,
                                       .weight_type = weight_type_for({record.dtype, card, *backend}),
                                       .transformer = image::transformer_for(record.request.decoder)});
  image::ImageRequest request = record.request;
  if (auto verdict = add_features(flags.shared, card, request)) return verdict;
  if (auto verdict = restore_edit(flags, made, card, request)) return verdict;
  request.check = image::Check::kNo;
  request.only.clear();
  for (const image::RecordedPicture& picture : record.pictures) request.only.push_back(picture.index);
  Remade remade(program.console, static_cast<int64_t>(record.pictures.size()),
                canvas_of(card, request).cells(), made.file.shows);
  program.console.detail("making " + plural(static_cast<int64_t>(record.pictures.size()), "picture") +
                         " again: " + card.name + " on " + backend->info().name);
  const image::ImageResult result = as_recorded(
      made, "", [&] { return run_image(model, request, {.observer = &remade, .stop = program.stop}); });
  remade.clear();
  if (result.interrupted) throw Interrupted(flags.file + ": interrupted before it was compared");
  std::ranges::sort(remade.pictures, {}, &image::ImagePicture::index);
  request.model = card.name;
  const image::RunRecord again = make_run_record(model, request, remade.pictures, record.layout);
  Verdict verdict = compare_tokens(record, remade.pictures);
  if (!verdict) {
    verdict = compare_shown(made, model, request, remade);
    if (verdict) verdict->message += "; all tokens are equal";
  }
  if (!verdict) verdict = compare_record(made, {.record = again, .device_is_recorded = device_is_recorded});
  if (verdict && verdict->what != "record") verdict->message += makers(record, again);
  return verdict;
}

int run(const VerifyFlags& flags, Program& program) {
  Console& console = program.console;
  const RecordedPicture made = read_recorded_picture(flags.file);
  require_remakable(made);
  const Verdict verdict = verify(flags, made, program);
  const auto count = static_cast<int64_t>(made.record.pictures.size());
  const Comparison comparison = comparison_of(made.file);
  if (flags.shared.json) {
    nlohmann::json json{{"schema", kSchema},
                        {"file", flags.file},
                        {"pictures", count},
                        {"identical", !verdict},
                        {"compared", comparison.parts}};
    if (verdict) json["difference"] = {{"what", verdict->what}, {"message", verdict->message}};
    console.print_line(json.dump());
  } else if (verdict) {
    console.print_line(flags.file + ": differs: " + verdict->what + ": " + verdict->message);
  } else {
    console.print_line(flags.file + ": identical: " + plural(count, "picture") + " made again, " +
                       std::string(comparison.equal));
  }
  return verdict ? kExitFailed : kExitDone;
}

}  // namespace

Verb add_verify(CLI::App& program) {
  const auto flags = std::make_shared<VerifyFlags>();
  CLI::App& verb = add_verb(program, "verify", "make a picture again from its run record and compare");
  flags->shared.model = "the recorded one";
  add_argument(
      verb, {.names = "file", .type = "FILE", .meaning = "picture, animation or step map that volley made"},
      Argument::kRequired, flags->file);
  add_text(verb,
           {.names = "--init",
            .type = "FILE",
            .meaning = "the picture it was made from [by its recorded name, beside it or here]"},
           flags->init);
  add_text(verb, {.names = "--mask", .type = "FILE", .meaning = "the mask it was made with [the same]"},
           flags->mask);
  add_shared_flags(
      verb, flags->shared,
      {"model", "vq", "image-size", "text-features", "device", "threads", "json", "no-progress"});
  // The record says these; no default may say otherwise.
  for (const char* name :
       {"--model", "--vq", "--image-size", "--text-features", "--device", "--init", "--mask"})
    take_no_default(verb, name);
  flags->shared.model.clear();
  return {
      .parser = &verb, .schema = std::string(kSchema), .flags = &flags->shared, .run = [flags](Program& p) {
        return run(*flags, p);
      }};
}

}  // namespace volley::apps
