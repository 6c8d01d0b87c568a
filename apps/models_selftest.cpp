// volley models selftest: a small fixed generation, checked.
#include <filesystem>
#include <memory>

#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/models.h"
#include "apps/text_plan.h"
#include "core/base/error.h"
#include "image/run_record.h"
#include "image/selftest.h"
#include "text/selftest.h"

namespace volley::apps {
namespace {

constexpr const char* kReference = "cpu-reference";

// One run of one transformer. Throws Error naming what is wrong.
nlohmann::json test_one(const image::ImageCard& card, image::Transformer transformer,
                        const SharedFlags& flags, Program& program) {
  const auto backend = backend_for(flags);
  const image::ImageModel model(card, {.backend = backend,
                                       .weight_type = weight_type_for({flags.dtype, card, *backend}),
                                       .transformer = transformer});
  const bool is_reference = flags.device == kReference;  // too slow for pixels
  const image::SelftestReport report = run_selftest(
      model, is_reference ? image::SelftestPixels::kNo : image::SelftestPixels::kYes, program.stop);
  if (program.stop.stop_requested()) throw Interrupted("selftest: interrupted");
  const std::string name(image::transformer_name(transformer));
  const std::string where =
      backend->info().name + " in " + std::string(image::weight_type_name(model.weight_type()));
  if (!report.fault.empty()) throw Error(card.name + ": " + name + " on " + where + ": " + report.fault);
  const auto stored = card.selftest.find(name);
  const bool is_compared = is_reference && flags.dtype == "f32" && stored != card.selftest.end();
  if (is_compared && stored->second != report.token_hash) {
    throw Error(card.name + ": " + name + " on " + where + ": hash of its tokens: expected " +
                stored->second + " as in the model's card, found " + report.token_hash);
  }
  program.console.note(name + " on " + where + ": " + plural(report.tokens, "token") + " fine" +
                       (is_compared ? ", as the model's card has them" : ""));
  return {{"transformer", name},
          {"device", backend->info().name},
          {"dtype", image::weight_type_name(model.weight_type())},
          {"tokens", report.tokens},
          {"token_hash", report.token_hash},
          {"compared", is_compared}};
}

int test_text(const std::string& path, const SharedFlags& flags, Program& program) {
  const auto backend = backend_for(flags);
  text::TextCheckpoint checkpoint = text::open_text_checkpoint(path);
  const WeightStorage storage = storage_of(flags.dtype, checkpoint, *backend);
  const text::TextModel model(std::move(checkpoint), {.backend = backend, .storage = storage});
  const text::SelftestReport report = run_selftest(model, program.stop);
  if (program.stop.stop_requested()) throw Interrupted("selftest: interrupted");
  const std::string& name = model.checkpoint().name;
  const std::string family = model.step_model().traits().family, dtype(model.storage().name());
  const std::string where = family + " on " + backend->info().name + " in " + dtype;
  if (!report.fault.empty()) throw Error(name + ": " + where + ": " + report.fault);
  program.console.note(where + ": " + plural(report.tokens, "token") + " fine");
  if (!flags.json) {
    program.console.print_line(name + ": fine");
    return kExitDone;
  }
  const nlohmann::json run{{"transformer", family},   {"device", backend->info().name},  {"dtype", dtype},
                           {"tokens", report.tokens}, {"token_hash", report.token_hash}, {"compared", false}};
  program.console.print_line(
      nlohmann::json{{"schema", kSelftestSchema}, {"model", name}, {"runs", {run}}}.dump());
  return kExitDone;
}

int run(const SharedFlags& flags, Program& program) {
  const std::string path = find_model(flags.model);
  if (is_text_model(path)) return test_text(path, flags, program);
  const image::ImageCard card = open_card(flags, path);
  nlohmann::json json{{"schema", kSelftestSchema}, {"model", card.name}, {"runs", nlohmann::json::array()}};
  for (const auto transformer : {image::Transformer::kLlamaGen, image::Transformer::kArpg}) {
    const bool is_there =
        transformer == image::Transformer::kLlamaGen ? card.llamagen.has_value() : card.arpg.has_value();
    if (!is_there) continue;
    json["runs"].push_back(test_one(card, transformer, flags, program));
    // Tokens are the same on every machine only by the reference.
    if (flags.device == kReference || !card.selftest.contains(std::string(transformer_name(transformer))))
      continue;
    SharedFlags reference = flags;
    reference.device = kReference;
    reference.dtype = "f32";
    json["runs"].push_back(test_one(card, transformer, reference, program));
  }
  if (flags.json) {
    program.console.print_line(json.dump());
  } else {
    program.console.print_line(card.name + ": fine");
  }
  return kExitDone;
}

}  // namespace

Verb add_models_selftest(CLI::App& models) {
  const auto flags = std::make_shared<SharedFlags>();
  flags->model = std::string(kDefaultModel);
  CLI::App& verb = add_verb(models, "selftest", "load a model, run a small fixed generation and check it");
  add_footer(
      verb,
      "Checked: tokens are codes; jacobi or lookup give sequential decoding's tokens (llamagen, text), "
      "company "
      "changes\n"
      "nothing (arpg, llada); pixels are finite; and, where the model's card has one, the hash of the tokens "
      "on cpu-reference in "
      "f32.");
  add_shared_flags(verb, *flags, {"model", "vq", "image-size", "device", "dtype", "threads", "json"});
  return {.parser = &verb,
          .schema = std::string(kSelftestSchema),
          .flags = flags.get(),
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
