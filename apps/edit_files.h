#pragma once

#include <functional>
#include <optional>
#include <string>

#include "image/edit.h"
#include "image/image_card.h"

namespace volley::apps {

// The files of an edit, by path; the mask's may be empty.
struct EditPaths {
  std::string init;
  std::string mask;
};

// Reads an edit's files, notes their names and hashes and fits their pixels to the model's square. `note` is
// told, in one line, what fitting has done to a picture. Throws Error naming the file.
void read_edit_files(const EditPaths& paths, const image::ImageCard& card,
                     const std::function<void(const std::string&)>& note, image::EditRequest& edit);

}  // namespace volley::apps
