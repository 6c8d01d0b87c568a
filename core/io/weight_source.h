#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace volley {

// One tensor of a checkpoint: its name there and a view of its bytes.
struct NamedTensor {
  std::string name;
  HostView view;
};

// The tensors of a checkpoint, whatever the container. Views stay valid as long as the source lives.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // All tensors, sorted by name.
  virtual const std::vector<NamedTensor>& tensors() const = 0;
  // Path as the user gave it, for messages.
  virtual const std::string& path() const = 0;
  // Null if the checkpoint has no tensor of that name.
  const HostView* find(std::string_view name) const;
};

}  // namespace volley
