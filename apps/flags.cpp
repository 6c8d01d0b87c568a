// The flags of the command line that several verbs share: names, defaults and meanings in one place.
#include "apps/flags.h"

#include <map>

#include "core/base/error.h"
#include "image/run_record.h"

namespace volley::apps {
namespace {

constexpr int64_t kMaxThreads = 1024;

using Adder = void (*)(CLI::App&, SharedFlags&);

const std::map<std::string_view, Adder>& adders() {
  static const std::map<std::string_view, Adder> table{
      {"model",
       [](CLI::App& verb, SharedFlags& flags) {
         const std::string& usual = flags.model.empty() ? flags.model_default : flags.model;
         add_text(verb,
                  {.names = "-m,--model",
                   .type = "NAME|PATH",
                   .meaning = "model in the box, pulled model, checkpoint or folder" +
                              (usual.empty() ? "" : " [" + usual + "]")},
                  flags.model);
       }},
      {"vq",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--vq",
                   .type = "FILE",
                   .meaning = "tokenizer of a bare checkpoint [beside it, else a pulled one]"},
                  flags.vq);
       }},
      {"image-size",
       [](CLI::App& verb, SharedFlags& flags) {
         add_integer(verb,
                     {.names = "--image-size",
                      .meaning = "pixels of a side, for a bare checkpoint [by its name, else 256]",
                      .low = 16,
                      .high = 4096},
                     [&flags](int64_t value) { flags.image_size = value; });
       }},
      {"text-features",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--text-features",
                   .type = "FILE",
                   .meaning = "what a text encoder made of a prompt (.npy, .safetensors), for t2i models"},
                  flags.text_features);
       }},
      {"out",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "-o,--out",
                   .type = "PATH|-",
                   .meaning = "file to write; several need a pattern such as %03d; - is standard output"},
                  flags.out);
       }},
      {"out-dir",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--out-dir",
                   .type = "DIR",
                   .meaning = "folder for files without a place of their own [out]"},
                  flags.out_dir);
       }},
      {"format",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--format",
                   .type = "LIST",
                   .meaning = "file formats, whatever the name's ending: png, jpg, webp [the ending's, png]"},
                  flags.format);
       }},
      {"overwrite",
       [](CLI::App& verb, SharedFlags& flags) {
         add_switch(verb, "--overwrite", flags.overwrite, "replace files that exist [refuse]");
       }},
      {"skip-existing",
       [](CLI::App& verb, SharedFlags& flags) {
         add_switch(verb, "--skip-existing", flags.skip_existing,
                    "go on with a run: keep files that it made before, make the others");
       }},
      {"device",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb, {.names = "-d,--device", .type = "NAME", .meaning = flags.device_meaning},
                  flags.device);
       }},
      {"dtype",
       [](CLI::App& verb, SharedFlags& flags) {
         add_choice(verb,
                    {.names = "--dtype",
                     .choices = {"auto", "f32", "bf16", "q8_0", "q4_1"},
                     .meaning = "storage of weights in products [auto: a GGUF file's blocks as they are, "
                                "else bf16 where the device has it, printed]"},
                    flags.dtype);
       }},
      {"threads",
       [](CLI::App& verb, SharedFlags& flags) {
         add_integer(verb,
                     {.names = "-t,--threads",
                      .meaning = "threads; never change results [physical cores]",
                      .low = 1,
                      .high = kMaxThreads},
                     [&flags](int64_t value) { flags.threads = value; });
       }},
      {"decoder",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--decoder",
                   .type = "NAME[:k=v,..]",
                   .meaning = "decoding method, see volley decoders [auto, printed; never lossy]"},
                  flags.method.decoder);
       }},
      {"draft-model",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--draft-model",
                   .type = "NAME|PATH",
                   .meaning = "small model of the same vocabulary, for decoders draft (then the default) and "
                              "draft-rejection"},
                  flags.draft_model);
       }},
      {"heads",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--heads",
                   .type = "NAME|PATH",
                   .meaning = "draft heads of the model (Medusa, Hydra), for decoder heads"},
                  flags.heads);
       }},
      {"draft-max",
       [](CLI::App& verb, SharedFlags& flags) {
         add_integer(verb,
                     {.names = "--draft-max",
                      .meaning = "tokens of the longest draft [the decoder's, see volley decoders]",
                      .low = 1,
                      .high = 255},
                     [&flags](int64_t value) { flags.draft_max = value; });
       }},
      {"seed",
       [](CLI::App& verb, SharedFlags& flags) {
         add_integer(verb,
                     {.names = "-s,--seed",
                      .meaning = "item i uses seed + i; -1: random, printed [0]",
                      .low = -1,
                      .high = 9.3e18},
                     [&flags](int64_t value) { flags.seed = value; });
       }},
      {"temperature",
       [](CLI::App& verb, SharedFlags& flags) {
         add_number(verb,
                    {.names = "--temperature",
                     .meaning = "0: greedy [" + flags.temperature_default + "]",
                     .low = 0.0,
                     .high = 1000.0},
                    [&flags](double value) { flags.method.temperature = value; });
       }},
      {"top-k",
       [](CLI::App& verb, SharedFlags& flags) {
         add_integer(verb,
                     {.names = "--top-k",
                      .meaning = "choose among the k likeliest tokens; 0: all [" + flags.top_k_default + "]",
                      .low = 0,
                      .high = 1 << 24},
                     [&flags](int64_t value) { flags.method.top_k = value; });
       }},
      {"top-p",
       [](CLI::App& verb, SharedFlags& flags) {
         add_number(verb,
                    {.names = "--top-p",
                     .meaning = "choose among the likeliest tokens of this mass; 1: all [" +
                                flags.top_p_default + "]",
                     .low = 0.0,
                     .high = 1.0},
                    [&flags](double value) { flags.method.top_p = value; });
       }},
      {"cfg",
       [](CLI::App& verb, SharedFlags& flags) {
         add_number(verb,
                    {.names = "--cfg",
                     .meaning = "guidance scale; 1: none [the model's card]",
                     .low = 0.0,
                     .high = 1000.0},
                    [&flags](double value) { flags.method.cfg = value; });
       }},
      {"json",
       [](CLI::App& verb, SharedFlags& flags) {
         add_switch(verb, "--json", flags.json, "one JSON object on standard output, errors too");
       }},
      {"events",
       [](CLI::App& verb, SharedFlags& flags) {
         add_text(verb,
                  {.names = "--events",
                   .type = "FILE|-",
                   .meaning = "write what happens as JSON Lines; - is standard output"},
                  flags.events);
       }},
      {"check",
       [](CLI::App& verb, SharedFlags& flags) {
         add_switch(verb, "--check", flags.check,
                    "decode again sequentially and report the first differing token");
       }},
      {"dry-run",
       [](CLI::App& verb, SharedFlags& flags) {
         add_switch(verb, "--dry-run", flags.dry_run, "say what would be done and do nothing");
       }},
      {"no-progress",
       [](CLI::App& verb, SharedFlags& flags) {
         add_switch(verb, "--no-progress", flags.no_progress, "no line of progress on a terminal");
       }},
  };
  return table;
}

}  // namespace

void SharedFlags::apply_to(Console& console) const {
  if (quiet && verbose) throw Error("--quiet: does not go with --verbose", ErrorKind::kUsage);
  console.set_verbosity(quiet ? Verbosity::kQuiet : verbose ? Verbosity::kVerbose : Verbosity::kNormal);
  console.set_color(color);
  console.set_progress(quiet || no_progress ? When::kNever : When::kAuto);
}

void add_shared_flags(CLI::App& verb, SharedFlags& flags, std::initializer_list<std::string_view> names) {
  for (std::string_view name : names) adders().at(name)(verb, flags);
  add_text(verb,
           {.names = "--config",
            .type = "FILE",
            .meaning = "values of flags that are not given [$XDG_CONFIG_HOME/volley/config.toml]"},
           flags.config);
  add_switch(verb, "-q,--quiet", flags.quiet, "only errors on standard error");
  add_switch(verb, "-v,--verbose", flags.verbose, "more on standard error: times, counts, memory");
  add_choice(verb,
             {.names = "--color",
              .choices = {"auto", "always", "never"},
              .meaning = "colours on standard error [auto; NO_COLOR is honoured]"},
             [&flags](size_t i) { flags.color = static_cast<When>(i); });
}

WeightType weight_type_of(const std::string& dtype, const Backend& backend) {
  if (dtype == "auto") return backend.info().has_bf16 ? WeightType::kBF16 : WeightType::kF32;
  for (const WeightType type : {WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1}) {
    if (dtype != weight_type_name(type)) continue;
    if (type == WeightType::kQ4_1 && !backend.info().has_blocks) {
      throw Error(
          "--dtype q4_1: " + backend.info().name + " has no products of 4-bit weights; q8_0 is the nearest",
          ErrorKind::kUsage);
    }
    return type;
  }
  return WeightType::kF32;
}

WeightType weight_type_for(const StorageChoice& choice) {
  const auto& packed = choice.card.packed;
  if (choice.dtype == "auto" && packed) return *packed;
  const WeightType type = weight_type_of(choice.dtype, choice.backend);
  if (packed && *packed != type) {
    throw Error("--dtype " + choice.dtype + ": the weights of " + choice.card.folder + " are packed as " +
                    std::string(image::weight_type_name(*packed)),
                ErrorKind::kUsage);
  }
  return type;
}

}  // namespace volley::apps
