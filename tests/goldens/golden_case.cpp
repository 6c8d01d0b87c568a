#include "tests/goldens/golden_case.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"

namespace volley::goldens {
namespace {

constexpr double kTolerance = 1e-4;  // absolute and relative

std::string without_slashes(std::string folder) {
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  return folder;
}

}  // namespace

std::string family_of(const std::string& folder) {
  std::string name = std::filesystem::path(without_slashes(folder)).filename().string();
  const size_t end = name.find_last_not_of("0123456789");
  if (end != std::string::npos && end > 0 && end + 1 < name.size() && name[end] == '_') name.resize(end);
  return name;
}

Case::Case(const std::string& folder)
    : folder_(without_slashes(folder)),
      family_(family_of(folder)),
      config_(read_json_file(folder_ + "/config.json")),
      io_(open_weights(folder_ + "/io.safetensors")) {}

std::vector<std::string> Case::weight_files() const {
  std::vector<std::string> files{folder_ + "/model.safetensors"};
  if (std::filesystem::exists(folder_ + "/model.pt")) files.push_back(folder_ + "/model.pt");
  return files;
}

std::vector<std::string> Case::names_before(std::string_view suffix) const {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : io_->tensors()) {
    if (tensor.name.ends_with(suffix)) names.push_back(tensor.name.substr(0, tensor.name.size() - suffix.size()));
  }
  return names;
}

const HostView& Case::tensor(std::string_view name) const {
  const HostView* view = io_->find(name);
  if (view == nullptr) throw Error(io_->path() + ": tensor " + std::string(name) + ": missing");
  return *view;
}

Shape Case::shape(std::string_view name) const { return tensor(name).shape; }

Shape Case::shape(std::string_view name, int64_t rank) const {
  const Shape found = shape(name);
  if (found.rank() != rank) {
    throw Error(io_->path() + ": tensor " + std::string(name) + ": expected " + std::to_string(rank) +
                " dimensions, found " + found.to_string());
  }
  return found;
}

std::vector<float> Case::floats(std::string_view name) const { return to_f32(tensor(name)); }

std::vector<int32_t> Case::ids(std::string_view name) const {
  std::vector<int32_t> ids;
  for (int64_t value : to_i64(tensor(name))) ids.push_back(static_cast<int32_t>(value));
  return ids;
}

void Check::fail(const std::string& name, const std::string& fault) {
  ++failures_;
  std::printf("  %-44s FAILED: %s\n", (prefix_ + name).c_str(), fault.c_str());
}

void Check::close(const std::string& name, std::span<const float> actual) {
  close(name, actual, golden_.floats(name));
}

void Check::close(const std::string& name, std::span<const float> actual, std::span<const float> expected) {
  floats_[name].assign(actual.begin(), actual.end());
  if (actual.size() != expected.size()) {
    return fail(name, std::to_string(actual.size()) + " values, expected " + std::to_string(expected.size()));
  }
  double worst = 0.0, worst_share = 0.0;
  size_t worst_at = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
    const double share = difference / (kTolerance + kTolerance * std::abs(static_cast<double>(expected[i])));
    if (!(difference <= worst)) worst = difference;
    if (!(share <= worst_share)) {
      worst_share = share;
      worst_at = i;
    }
  }
  char text[160];
  std::snprintf(text, sizeof(text), "worst |d| %.2e, %.4f of the tolerance, %zu values", worst, worst_share,
                actual.size());
  if (worst_share <= 1.0) {
    std::printf("  %-44s %s\n", (prefix_ + name).c_str(), text);
    return;
  }
  fail(name, std::string(text) + "; value " + std::to_string(worst_at) + " is " + std::to_string(actual[worst_at]) +
                 ", expected " + std::to_string(expected[worst_at]));
}

void Check::equal(const std::string& name, std::span<const int32_t> actual) {
  equal(name, actual, golden_.ids(name));
}

void Check::equal(const std::string& name, std::span<const int32_t> actual, std::span<const int32_t> expected) {
  ids_[name].assign(actual.begin(), actual.end());
  const auto [left, right] = std::ranges::mismatch(actual, expected);
  if (left == actual.end() && right == expected.end()) {
    std::printf("  %-44s equal, %zu values\n", (prefix_ + name).c_str(), actual.size());
  } else if (left == actual.end() || right == expected.end()) {
    fail(name, std::to_string(actual.size()) + " values, expected " + std::to_string(expected.size()));
  } else {
    fail(name, "value " + std::to_string(left - actual.begin()) + " is " + std::to_string(*left) + ", expected " +
                   std::to_string(*right));
  }
}

void Check::same_outputs(const Check& other) {
  const auto same_bits = [](const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  bool all_same = floats_.size() == other.floats_.size() && ids_ == other.ids_;
  for (const auto& [name, values] : floats_) {
    const auto found = other.floats_.find(name);
    all_same &= found != other.floats_.end() && same_bits(values, found->second);
  }
  if (all_same) {
    std::printf("  %-44s same bits\n", (prefix_ + "all outputs").c_str());
  } else {
    fail("all outputs", "other bits than with model.safetensors");
  }
}

}  // namespace volley::goldens
