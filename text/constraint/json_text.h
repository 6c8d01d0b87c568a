#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "text/constraint/byte_automaton.h"

namespace volley::text {

// Parts of JSON as pieces of a graph: each adds its language behind `from` and returns the node behind it.
// Between tokens stands nothing, but for at most one space behind a comma or colon. All throw Fault when the
// graph grows too large.
class JsonText {
 public:
  using Node = ByteGraph::Node;
  using AddValue = std::function<Node(Node from)>;
  struct Property {
    std::string name;
    bool is_required = false;
    AddValue add_value;
  };
  // Digits of an integer, of a fraction and of an exponent at most: what every reader can hold.
  static constexpr int64_t kMaxDigits = 15;
  static constexpr int64_t kMaxExponentDigits = 2;

  explicit JsonText(ByteGraph& graph) : graph_(graph) {}

  Node boolean(Node from);
  Node number(Node from);
  // Within the limits, if there are any.
  Node integer(Node from, std::optional<int64_t> low = std::nullopt,
               std::optional<int64_t> high = std::nullopt);
  // Of `low` to `high` characters.
  Node string(Node from, int64_t low = 0, std::optional<int64_t> high = std::nullopt);
  Node array(Node from, int64_t low, std::optional<int64_t> high, const AddValue& add_item);
  // Properties in their order, those that are not required or left out.
  Node object(Node from, const std::vector<Property>& properties);
  // Any properties.
  Node map(Node from, const AddValue& add_value);
  // Any value, with arrays and objects `depth` deep.
  Node any(Node from, int64_t depth);

 private:
  Node either(std::initializer_list<Node> ends);
  Node separator(Node from, char mark);
  Node key(Node from, const std::string& name);
  // At least `low` and at most `high` digits.
  Node digits(Node from, int64_t low, int64_t high);
  // The numbers from `low` to `high`, 0 <= low <= high, as decimals.
  void natural(Node from, int64_t low, int64_t high, Node to);

  ByteGraph& graph_;
};

}  // namespace volley::text
