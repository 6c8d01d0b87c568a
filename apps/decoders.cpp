// volley decoders: the registry of decoding methods.
#include <algorithm>
#include <memory>

#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/decode/decoder.h"

namespace volley::apps {
namespace {

constexpr std::string_view kSchema = "volley.decoders/1";

struct DecodersFlags {
  SharedFlags shared;
  bool markdown = false;
};

std::string class_of(const DecoderInfo& info) {
  return std::string(decoder_class_name(info.kind)) + (info.kind_note.empty() ? "" : "; " + info.kind_note);
}

nlohmann::json as_json() {
  nlohmann::json json{{"schema", kSchema}, {"decoders", nlohmann::json::array()}};
  for (const DecoderInfo& info : decoder_registry()) {
    nlohmann::json entry{{"name", info.name},
                         {"class", decoder_class_name(info.kind)},
                         {"needs", info.needs},
                         {"summary", info.summary},
                         {"options", nlohmann::json::array()}};
    if (!info.kind_note.empty()) entry["class_note"] = info.kind_note;
    if (!info.paper.empty()) entry["paper"] = info.paper;
    for (const DecoderOption& option : info.options) {
      entry["options"].push_back(
          {{"name", option.name}, {"default", option.fallback}, {"meaning", option.meaning}});
    }
    json["decoders"].push_back(std::move(entry));
  }
  return json;
}

std::string as_markdown() {
  std::string text = "| method | class | needs | what it does | paper |\n|---|---|---|---|---|\n";
  for (const DecoderInfo& info : decoder_registry()) {
    text += "| `" + info.name + "` | " + class_of(info) + " | " + info.needs + " | " + info.summary + " | " +
            info.paper + " |\n";
  }
  return text;
}

std::string as_text() {
  std::string text;
  for (const DecoderInfo& info : decoder_registry()) {
    std::string name = info.name;
    name.resize(std::max<size_t>(name.size() + 1, 12), ' ');
    const std::string indent(12, ' ');
    text +=
        name + info.summary + "\n" + indent + "class " + class_of(info) + "; needs a " + info.needs + "\n";
    for (const DecoderOption& option : info.options) {
      text += indent + option.name + "=" + option.fallback + "  " + option.meaning + "\n";
    }
    if (!info.paper.empty()) text += indent + info.paper + "\n";
  }
  return text;
}

int run(const DecodersFlags& flags, Console& console) {
  if (flags.shared.json && flags.markdown) {
    throw Error("--markdown: does not go with --json", ErrorKind::kUsage);
  }
  if (flags.shared.json) {
    console.print_line(as_json().dump());
  } else {
    console.print(flags.markdown ? as_markdown() : as_text());
  }
  return kExitDone;
}

}  // namespace

Verb add_decoders(CLI::App& program) {
  const auto flags = std::make_shared<DecodersFlags>();
  CLI::App& verb = add_verb(program, "decoders", "list the decoding methods, their classes and options");
  add_switch(verb, "--markdown", flags->markdown, "as a table in Markdown");
  add_shared_flags(verb, flags->shared, {"json"});
  return {
      .parser = &verb, .schema = std::string(kSchema), .flags = &flags->shared, .run = [flags](Program& p) {
        return run(*flags, p.console);
      }};
}

}  // namespace volley::apps
