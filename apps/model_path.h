#pragma once

#include <string>
#include <vector>

namespace volley::apps {

// Folders that may hold model folders, in the order in which they are searched: those of VOLLEY_MODEL_PATH,
// the installed one beside the program, that of the source tree the program was built from.
std::vector<std::string> model_folders();

struct BoxedModel {
  std::string name;  // of the folder
  std::string path;
};
// Models in those folders, each name once, sorted.
std::vector<BoxedModel> boxed_models();

// The path of the model of that name in the box or among the pulled ones, for names that come out of files:
// never a path of their own. Throws Error "<subject>: ..." kModelMissing with the command that pulls it, or
// naming the nearest.
std::string find_boxed_model(const std::string& name, const std::string& subject);

// The path of a model: a path as it is (anything with a slash, and "."), else the model of that name in the
// box or among the pulled ones, else the file of that name. Throws Error kModelMissing as find_boxed_model
// does.
std::string find_model(const std::string& name_or_path, const std::string& flag = "--model");

// A GGUF file, or a folder with a tokenizer.
bool is_text_model(const std::string& path);

// What a verb of text takes without --model: the path of the pulled text model, if there is exactly one.
// Throws Error "<verb>: ...": kModelMissing with the command that pulls one, kUsage naming several.
std::string default_text_model(const std::string& verb);

}  // namespace volley::apps
