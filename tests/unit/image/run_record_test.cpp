#include "image/run_record.h"

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace volley::image {
namespace {

const std::string kHash(64, 'a');

RunRecord test_record() {
  return {.volley = "0.1.0",
          .request = {.model = "toy",
                      .class_name = "food-fruit",
                      .count = 4,
                      .seed = 7,
                      .decoder = parse_decoder_spec("jacobi:init=repeat,window=16"),
                      .cfg = 2.5},
          .weights = {{"vq", kHash}, {"llamagen", std::string(64, 'b')}},
          .device = "cpu",
          .dtype = "f32",
          .width = 32,
          .height = 16,
          .layout = {.columns = 2, .rows = 1},
          .pictures = {{.index = 1, .seed = 8, .token_hash = kHash},
                       {.index = 2, .seed = 9, .token_hash = kHash}}};
}

TEST(RunRecord, SurvivesJson) {
  const nlohmann::json json = to_json(test_record());
  const RunRecord again = read_run_record(json, "record");
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.pictures, test_record().pictures);
  EXPECT_EQ(again.weights, test_record().weights);
  EXPECT_EQ(again.layout.columns, 2);
}

TEST(RunRecord, RefusesWhatCannotBe) {
  const auto refuses = [](const char* pointer, nlohmann::json value) {
    nlohmann::json bad = to_json(test_record());
    bad[nlohmann::json::json_pointer(pointer)] = std::move(value);
    try {
      read_run_record(bad, "record");
      ADD_FAILURE() << pointer;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("record: ")) << error.what();
    }
  };
  refuses("/schema", "volley.run/2");
  refuses("/job", "speech");
  refuses("/weights/vq", "short");
  refuses("/weights", nullptr);
  refuses("/pictures", nlohmann::json::array());
  refuses("/pictures/1/index", 1);
  refuses("/pictures/1/index", 3);  // outside the grid of two
  refuses("/pictures/0/index", -1);
  refuses("/count", 2);  // the file holds picture 2, the third
  refuses("/decoder", "masked");
  refuses("/pictures/0/token_hash", std::string(64, 'g'));
  refuses("/width", 0);
  refuses("/columns", 0);
}

TEST(RunRecord, TokenHashIsThatOfLittleEndianIds) {
  // hashlib.sha256(struct.pack("<2i", 1, 65535)) of Python
  const std::vector<int32_t> tokens{1, 65535};
  EXPECT_EQ(hash_tokens(tokens), "8e414ec2139eb2e6098c59fdf431949d10a8aaec545858efb78752293618bd11");
}

}  // namespace
}  // namespace volley::image
