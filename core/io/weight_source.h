#pragma once

#include <map>
#include <memory>
#include <optional>
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

// Sorts by name. Returns the first name that occurs twice, if any.
std::optional<std::string> sort_by_name(std::vector<NamedTensor>& tensors);

// The tensors of a checkpoint, whatever the container. Views stay valid as long as the source lives.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // All tensors, sorted by name.
  virtual const std::vector<NamedTensor>& tensors() const = 0;
  // Path as the user gave it, for messages.
  virtual const std::string& path() const = 0;
  // Keeps the bytes of all views alive; null where they live only as long as the source.
  virtual std::shared_ptr<const void> owner() const { return nullptr; }
  // Says that a view was read: memory that only repeats the file's bytes may be given back. The view stays
  // valid.
  virtual void release(const HostView& view) const { static_cast<void>(view); }
  // What the file says of itself, by key.
  virtual const std::map<std::string, std::string>& metadata() const;
  // Whether the bytes of views are the file's: of those that only have types and shapes nobody needs to
  // convert any.
  virtual bool has_values() const { return true; }
  // Null if the checkpoint has no tensor of that name.
  const HostView* find(std::string_view name) const;
};

}  // namespace volley
