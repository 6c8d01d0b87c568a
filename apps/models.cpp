// volley models: what is here, what can be had, what it holds.
#include "apps/models.h"

#include <algorithm>

namespace volley::apps {

std::string padded(std::string text, size_t width) {
  text.resize(std::max(text.size() + 1, width), ' ');
  return text;
}

std::vector<Verb> add_models(CLI::App& program) {
  CLI::App& models =
      add_verb_group(program, "models", "list models, get published ones, look into their files");
  return {add_models_convert(models), add_models_info(models),   add_models_list(models),
          add_models_pull(models),    add_models_remove(models), add_models_selftest(models)};
}

}  // namespace volley::apps
