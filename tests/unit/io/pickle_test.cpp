#include "core/io/pickle.h"

#include <gtest/gtest.h>

#include "core/io/byte_reader.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

constexpr std::string_view kAllowed[] = {"collections.OrderedDict", "a.b"};

PickleTree parse(std::string_view bytes) {
  return parse_pickle(as_bytes(bytes), kAllowed).value_or_throw("pickle");
}

// Its text points into `bytes`.
PickleNode root(std::string_view bytes) {
  return parse(bytes).root();
}

TEST(Pickle, Scalars) {
  EXPECT_EQ(root("N.").kind, PickleKind::kNone);
  EXPECT_EQ(root("\x88.").integer, 1);
  EXPECT_EQ(root("\x89.").kind, PickleKind::kBool);
  EXPECT_EQ(root("K\xff.").integer, 255);
  EXPECT_EQ(root("M\x01\x02.").integer, 513);
  EXPECT_EQ(root("J\xfe\xff\xff\xff.").integer, -2);
  EXPECT_EQ(root(std::string_view("\x8a\x00.", 3)).integer, 0);
  EXPECT_EQ(root("\x8a\x01\xff.").integer, -1);
  EXPECT_EQ(root(std::string_view("\x8a\x02\xff\x00.", 5)).integer, 255);
  EXPECT_EQ(root("\x8a\x09ninebytes.").kind, PickleKind::kOpaque);
  EXPECT_EQ(root(std::string_view("G\x3f\xf8\0\0\0\0\0\0.", 10)).real, 1.5);
  EXPECT_EQ(root("\x8c\x02hi.").text, "hi");
  EXPECT_EQ(root(pickle::text("gr\u00fcn") + ".").text, "gr\u00fcn");
  EXPECT_EQ(root("\x8d" + raw<uint64_t>(2) + "hi.").text, "hi");
  EXPECT_EQ(root("C\x02\xff\xfe.").kind, PickleKind::kBytes);
  EXPECT_EQ(root("\x8e" + raw<uint64_t>(2) + "hi.").kind, PickleKind::kBytes);
  EXPECT_EQ(root("\x96" + raw<uint64_t>(2) + "hi.").kind, PickleKind::kOpaque);
}

TEST(Pickle, Containers) {
  EXPECT_EQ(root(").").items.size(), 0u);
  EXPECT_EQ(root("N\x85.").items.size(), 1u);
  EXPECT_EQ(root("NN\x86.").items.size(), 2u);
  EXPECT_EQ(root("NNN\x87.").items.size(), 3u);
  EXPECT_EQ(root("(NNNNt.").items.size(), 4u);
  EXPECT_EQ(root("]Na(NNe.").items.size(), 3u);
  EXPECT_EQ(root("\x8f(NN\x90.").kind, PickleKind::kOpaque);
  EXPECT_EQ(root("(NN\x91.").kind, PickleKind::kOpaque);
  const std::string bytes = "}" + pickle::text("a") + "K\1s(" + pickle::text("b") + "K\2u.";
  const PickleTree tree = parse(bytes);
  EXPECT_EQ(tree.find(tree.root(), "a")->integer, 1);
  EXPECT_EQ(tree.find(tree.root(), "b")->integer, 2);
  EXPECT_EQ(tree.find(tree.root(), "c"), nullptr);
  EXPECT_EQ(tree.find(*tree.find(tree.root(), "a"), "a"), nullptr);
}

TEST(Pickle, StackAndMemo) {
  EXPECT_EQ(root("K\1K\2"
                 "0.")
                .integer,
            1);
  EXPECT_EQ(root("K\1(K\2K\3"
                 "1.")
                .integer,
            1);
  EXPECT_EQ(root("K\1"
                 "2\x86.")
                .items.size(),
            2u);
  const std::string bytes =
      "\x80\4\x95" + raw<uint64_t>(3) + "(K\1\x94K\2\x94h" + std::string(1, '\0') + "h\1tq\5" + "0h\5.";
  const PickleTree tree = parse(bytes);
  ASSERT_EQ(tree.root().items.size(), 4u);
  EXPECT_EQ(tree[tree.root().items[2]].integer, 1);
  EXPECT_EQ(tree[tree.root().items[3]].integer, 2);
}

TEST(Pickle, CallsAreDataOnly) {
  const std::string bytes = pickle::global("a", "b") + "K\7\x85R(" + pickle::text("k") + "K\1u}b.";
  const PickleTree tree = parse(bytes);
  EXPECT_EQ(tree.root().kind, PickleKind::kCall);
  EXPECT_EQ(tree.root().text, "a.b");
  EXPECT_EQ(tree[tree[tree.root().items[0]].items[0]].integer, 7);
  EXPECT_EQ(tree.find(tree.root(), "k")->integer, 1);
  EXPECT_EQ(root(pickle::text("a") + pickle::text("b") + "\x93.").text, "a.b");
  EXPECT_EQ(root("K\1Q.").kind, PickleKind::kPersistent);
}

}  // namespace
}  // namespace volley::test
