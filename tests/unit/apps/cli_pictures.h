#pragma once

#include <string>

#include "core/io/byte_reader.h"
#include "image/picture_file.h"
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {

// What the files that the command made hold.
class CliPictures : public Cli {
 protected:
  image::Picture pixels(const std::string& name) const {
    return over(image::decode_picture(as_bytes(read_text(path(name)))).value_or_throw(name), 255);
  }
  nlohmann::json record(const std::string& name) const {
    return nlohmann::json::parse(
        image::read_file_record(as_bytes(read_text(path(name)))).value_or_throw(name).text);
  }
};

}  // namespace volley::test
