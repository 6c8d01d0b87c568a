#include "core/io/weight_source.h"

#include <algorithm>

namespace volley {

std::optional<std::string> sort_by_name(std::vector<NamedTensor>& tensors) {
  std::ranges::sort(tensors, {}, &NamedTensor::name);
  const auto twin = std::ranges::adjacent_find(tensors, {}, &NamedTensor::name);
  return twin == tensors.end() ? std::nullopt : std::optional(twin->name);
}

const HostView* WeightSource::find(std::string_view name) const {
  const std::vector<NamedTensor>& all = tensors();
  const auto found = std::ranges::lower_bound(all, name, std::ranges::less{}, &NamedTensor::name);
  return found != all.end() && found->name == name ? &found->view : nullptr;
}

const std::map<std::string, std::string>& WeightSource::metadata() const {
  static const std::map<std::string, std::string> kNone;
  return kNone;
}

}  // namespace volley
