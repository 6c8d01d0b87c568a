#include "core/io/pickle.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <unordered_map>
#include <utility>

#include "core/io/byte_reader.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

// Far above any checkpoint's needs (a tensor takes about 40 opcodes and 15 nodes), far below what hurts.
constexpr size_t kMaxNodes = 2'000'000;
constexpr size_t kMaxOpcodes = 8'000'000;
constexpr size_t kMaxStack = 500'000;
constexpr size_t kMaxMarks = 10'000;
constexpr size_t kMaxMemo = 1'000'000;

enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kBinFloat = 'G',
  kEmptyTuple = ')',
  kEmptyList = ']',
  kEmptyDict = '}',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

std::string hex(uint8_t byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  return {'0', 'x', kDigits[byte >> 4], kDigits[byte & 15u]};
}

}  // namespace

// The stack machine. Its methods return false after leaving a message in `fault_`.
class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, std::span<const std::string_view> allowed)
      : reader_(bytes), allowed_(allowed) {}

  Result<PickleTree> run() {
    for (size_t count = 0; count < kMaxOpcodes; ++count) {
      const size_t at = reader_.position();
      uint8_t opcode = 0;
      bool good = reader_.read(opcode) || fail("ends without STOP");
      if (good && opcode == kStop) {
        good = marks_.empty() && stack_.size() == 1;
        if (!good) fail("STOP with " + std::to_string(stack_.size()) + " values on the stack");
        if (good) {
          tree_.root_ = stack_.back();
          return std::move(tree_);
        }
      }
      if (!good || !step(opcode)) return Fault{"pickle: " + fault_ + " at byte " + std::to_string(at)};
    }
    return Fault{"pickle: more than " + std::to_string(kMaxOpcodes) + " opcodes"};
  }

 private:
  bool step(uint8_t opcode) {
    switch (opcode) {
      case kProto:
        return protocol();
      case kFrame:
        return frame();
      case kMark:
        if (marks_.size() == kMaxMarks) return fail("more than 10000 open marks");
        marks_.push_back(stack_.size());
        return true;
      case kPop:
        return pop().has_value();
      case kPopMark:
        return pop_mark().has_value();
      case kDup: {
        const std::optional<PickleId> top = pop();
        return top && push(*top) && push(*top);
      }
      case kNone:
        return push_node({PickleKind::kNone});
      case kNewTrue:
        return push_node({PickleKind::kBool, 1});
      case kNewFalse:
        return push_node({PickleKind::kBool, 0});
      case kBinInt1:
        return integer<uint8_t>();
      case kBinInt2:
        return integer<uint16_t>();
      case kBinInt:
        return integer<int32_t>();
      case kLong1:
        return long_integer();
      case kBinFloat:
        return real();
      case kShortBinUnicode:
        return text<uint8_t>(PickleKind::kText);
      case kBinUnicode:
        return text<uint32_t>(PickleKind::kText);
      case kBinUnicode8:
        return text<uint64_t>(PickleKind::kText);
      case kShortBinString:  // Python 2's str
      case kShortBinBytes:
        return text<uint8_t>(PickleKind::kBytes);
      case kBinString:
      case kBinBytes:
        return text<uint32_t>(PickleKind::kBytes);
      case kBinBytes8:
        return text<uint64_t>(PickleKind::kBytes);
      case kByteArray8:
        return text<uint64_t>(PickleKind::kOpaque);
      case kEmptyTuple:
        return push_node({PickleKind::kTuple});
      case kTuple1:
        return tuple(1);
      case kTuple2:
        return tuple(2);
      case kTuple3:
        return tuple(3);
      case kTuple:
        return marked(PickleKind::kTuple);
      case kEmptyList:
        return push_node({PickleKind::kList});
      case kEmptyDict:
        return push_node({PickleKind::kDict});
      case kEmptySet:
        return push_node({PickleKind::kOpaque});
      case kFrozenSet:
        return marked(PickleKind::kOpaque);
      case kAddItems:
        return pop_mark() && (!stack_.empty() || fail("stack underflow"));
      case kAppend:
        return fill(pop_some(1), PickleKind::kList);
      case kAppends:
        return fill(pop_mark(), PickleKind::kList);
      case kSetItem:
        return fill(pop_some(2), PickleKind::kDict);
      case kSetItems:
        return fill(pop_mark(), PickleKind::kDict);
      case kGlobal:
        return global();
      case kStackGlobal:
        return stack_global();
      case kReduce:
      case kNewObj:
        return call();
      case kBuild:
        return build();
      case kBinPersId: {
        const std::optional<PickleId> id = pop();
        return id && push_node({PickleKind::kPersistent, 0, 0, {}, {*id}});
      }
      case kBinPut:
        return put<uint8_t>();
      case kLongBinPut:
        return put<uint32_t>();
      case kMemoize:
        return remember(static_cast<uint32_t>(memo_.size()));
      case kBinGet:
        return get<uint8_t>();
      case kLongBinGet:
        return get<uint32_t>();
      default:
        return fail("unsupported opcode " + hex(opcode));
    }
  }

  bool fail(std::string message) {
    fault_ = std::move(message);
    return false;
  }
  bool cut_short() { return fail("cut short"); }

  bool protocol() {
    uint8_t version = 0;
    if (!reader_.read(version)) return cut_short();
    return (version >= 2 && version <= 5) ||
           fail("protocol " + std::to_string(version) + ", expected 2 to 5");
  }

  bool frame() {
    uint64_t length = 0;
    if (!reader_.read(length)) return cut_short();
    return length <= reader_.remaining() ||
           fail("frame of " + std::to_string(length) + " bytes reaches past the end");
  }

  bool push(PickleId id) {
    if (stack_.size() == kMaxStack) return fail("stack of more than 500000 values");
    stack_.push_back(id);
    return true;
  }

  bool push_node(PickleNode node) {
    if (tree_.nodes_.size() == kMaxNodes) return fail("more than 2000000 values");
    tree_.nodes_.push_back(std::move(node));
    return push(static_cast<PickleId>(tree_.nodes_.size() - 1));
  }

  // Values above the innermost mark; what lies below belongs to an unfinished container.
  size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

  std::optional<PickleId> pop() {
    if (available() == 0) {
      fail("stack underflow");
      return std::nullopt;
    }
    const PickleId id = stack_.back();
    stack_.pop_back();
    return id;
  }

  std::optional<std::vector<PickleId>> pop_some(size_t count) {
    if (available() < count) {
      fail("stack underflow");
      return std::nullopt;
    }
    std::vector<PickleId> items(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }

  std::optional<std::vector<PickleId>> pop_mark() {
    if (marks_.empty()) {
      fail("no mark on the stack");
      return std::nullopt;
    }
    auto items = pop_some(available());
    marks_.pop_back();
    return items;
  }

  template <typename T>
  bool integer() {
    T value = 0;
    return reader_.read(value) ? push_node({PickleKind::kInt, value}) : cut_short();
  }

  // Little-endian two's complement of any length; beyond 64 bits only its place is kept.
  bool long_integer() {
    uint8_t length = 0;
    std::span<const std::byte> bytes;
    if (!reader_.read(length) || !reader_.take(length, bytes)) return cut_short();
    if (length > 8) return push_node({PickleKind::kOpaque});
    uint64_t value = length > 0 && (bytes.back() & std::byte{0x80}) != std::byte{0} ? ~uint64_t{0} : 0;
    for (size_t i = bytes.size(); i-- > 0;) value = (value << 8) | static_cast<uint64_t>(bytes[i]);
    return push_node({PickleKind::kInt, static_cast<int64_t>(value)});
  }

  bool real() {
    std::span<const std::byte> bytes;
    if (!reader_.take(8, bytes)) return cut_short();
    uint64_t bits = 0;  // big-endian, unlike the rest
    for (const std::byte byte : bytes) bits = (bits << 8) | static_cast<uint64_t>(byte);
    return push_node({PickleKind::kFloat, 0, std::bit_cast<double>(bits)});
  }

  template <typename Length>
  bool text(PickleKind kind) {
    Length length = 0;
    if (!reader_.read(length)) return cut_short();
    std::span<const std::byte> bytes;
    if (!reader_.take(length, bytes)) {
      return fail("text of " + std::to_string(length) + " bytes reaches past the end");
    }
    if (kind == PickleKind::kText && !is_valid_utf8(as_text(bytes))) {
      return fail("text " + quote(as_text(bytes)) + " is not UTF-8");
    }
    return push_node({kind, 0, 0, as_text(bytes)});
  }

  bool tuple(size_t count) {
    auto items = pop_some(count);
    return items && push_node({PickleKind::kTuple, 0, 0, {}, std::move(*items)});
  }

  bool marked(PickleKind kind) {
    auto items = pop_mark();
    return items && push_node({kind, 0, 0, {}, std::move(*items)});
  }

  // Adds items to the container on top of the stack. Calls take them too: an OrderedDict is made by a call.
  bool fill(std::optional<std::vector<PickleId>> items, PickleKind wanted) {
    if (!items) return false;
    if (available() == 0) return fail("stack underflow");
    PickleNode& target = tree_.nodes_[stack_.back()];
    if (target.kind != wanted && target.kind != PickleKind::kCall) return fail("items put into no container");
    if (wanted == PickleKind::kDict && items->size() % 2 != 0) return fail("a key without a value");
    target.items.insert(target.items.end(), items->begin(), items->end());
    return true;
  }

  bool line(std::string_view& text) {
    std::span<const std::byte> rest;
    const size_t start = reader_.position();
    if (!reader_.take(reader_.remaining(), rest)) return cut_short();
    const size_t end = as_text(rest).find('\n');
    if (end == std::string_view::npos || !reader_.seek(start + end + 1)) return cut_short();
    text = as_text(rest).substr(0, end);
    return true;
  }

  bool global() {
    std::string_view module, name;
    return line(module) && line(name) && push_global(module, name);
  }

  bool stack_global() {
    const auto names = pop_some(2);
    if (!names) return false;
    const PickleNode& module = tree_.nodes_[(*names)[0]];
    const PickleNode& name = tree_.nodes_[(*names)[1]];
    if (module.kind != PickleKind::kText || name.kind != PickleKind::kText)
      return fail("global without a name");
    return push_global(module.text, name.text);
  }

  bool push_global(std::string_view module, std::string_view name) {
    const std::string full = std::string(module) + "." + std::string(name);
    const auto found = std::ranges::find(allowed_, full);
    if (found == allowed_.end()) return fail("global " + quote(full) + " is not allowed");
    return push_node({PickleKind::kGlobal, 0, 0, *found});
  }

  bool call() {
    const auto parts = pop_some(2);
    if (!parts) return false;
    const PickleNode& callee = tree_.nodes_[(*parts)[0]];
    if (callee.kind != PickleKind::kGlobal) return fail("call of what is no global");
    if (tree_.nodes_[(*parts)[1]].kind != PickleKind::kTuple) return fail("call without an argument tuple");
    return push_node({PickleKind::kCall, 0, 0, callee.text, {(*parts)[1]}});
  }

  // The attributes of an object: nothing a checkpoint's tensors need.
  bool build() {
    if (!pop()) return false;
    if (available() == 0) return fail("stack underflow");
    return tree_.nodes_[stack_.back()].kind == PickleKind::kCall || fail("attributes put on no object");
  }

  template <typename Index>
  bool put() {
    Index index = 0;
    return reader_.read(index) ? remember(index) : cut_short();
  }

  bool remember(uint32_t index) {
    if (available() == 0) return fail("stack underflow");
    if (memo_.size() == kMaxMemo && !memo_.contains(index)) return fail("memo of more than 1000000 values");
    memo_[index] = stack_.back();
    return true;
  }

  template <typename Index>
  bool get() {
    Index index = 0;
    if (!reader_.read(index)) return cut_short();
    const auto found = memo_.find(index);
    if (found == memo_.end()) return fail("memo has no value " + std::to_string(index));
    return push(found->second);
  }

  ByteReader reader_;
  std::span<const std::string_view> allowed_;
  PickleTree tree_;
  std::vector<PickleId> stack_;
  std::vector<size_t> marks_;  // stack heights
  std::unordered_map<uint32_t, PickleId> memo_;
  std::string fault_;
};

const PickleNode* PickleTree::find(const PickleNode& dict, std::string_view key) const {
  if (dict.kind != PickleKind::kDict && dict.kind != PickleKind::kCall) return nullptr;
  for (size_t i = dict.kind == PickleKind::kCall ? 1 : 0; i + 1 < dict.items.size(); i += 2) {
    const PickleNode& name = nodes_[dict.items[i]];
    if (name.kind == PickleKind::kText && name.text == key) return &nodes_[dict.items[i + 1]];
  }
  return nullptr;
}

Result<PickleTree> parse_pickle(std::span<const std::byte> bytes, std::span<const std::string_view> allowed) {
  return PickleMachine(bytes, allowed).run();
}

}  // namespace volley
