#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley {

enum class PickleKind : uint8_t {
  kNone,
  kBool,        // integer: 0 or 1
  kInt,         // integer
  kFloat,       // real
  kText,        // text
  kBytes,       // text
  kTuple,       // items
  kList,        // items
  kDict,        // items: key, value, key, value ...
  kGlobal,      // text: "module.name"
  kCall,        // text: "module.name" of what would be called; items: arguments, then what was put in
  kPersistent,  // items: the id
  kOpaque,      // integers beyond 64 bits, sets, bytearrays: kept for their place only
};

using PickleId = uint32_t;

// One value. Items are ids of other nodes; a hostile file may make them form a cycle, so a walk over
// items needs a bound of its own.
struct PickleNode {
  PickleKind kind = PickleKind::kNone;
  int64_t integer = 0;
  double real = 0;
  std::string_view text;
  std::vector<PickleId> items;
};

// What a pickle says, as data: a call is recorded, never made. Text points into the parsed bytes and, for
// globals, into the caller's allow-list.
class PickleTree {
 public:
  const PickleNode& operator[](PickleId id) const { return nodes_[id]; }
  const PickleNode& root() const { return nodes_[root_]; }
  // Value under a text key of a dict or of a call that builds one; null if absent.
  const PickleNode* find(const PickleNode& dict, std::string_view key) const;

 private:
  friend class PickleMachine;
  std::vector<PickleNode> nodes_;
  PickleId root_ = 0;
};

// Reads the opcodes of protocols 2 to 5 that describe data. A global that `allowed` does not list is a
// fault that names it, as are unknown opcodes, an uneven stack and counts beyond the limits.
// Ref: CPython Lib/pickletools.py
Result<PickleTree> parse_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> allowed);

}  // namespace volley
