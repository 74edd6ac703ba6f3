// The model's text tokens as a trie over bytes, built once for each model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace ev {

class VocabTrie {
  public:
    struct Node {
        uint32_t first_child; // children are consecutive, in byte order
        uint16_t n_children;
        uint8_t byte;  // the byte that leads here
        int32_t token; // -1: no token ends here
    };

    // `tokens[i]` holds the bytes of token i; empty ones are left out. Of equal tokens the first
    // stays.
    explicit VocabTrie(const std::vector<std::string_view> &tokens);

    // How many tokens spell a text at least; -1 when none do.
    int32_t fewest(std::string_view text) const;
    // The longest token that a text begins with, and its size; -1 and 0 when there is none.
    std::pair<int32_t, size_t> longest(std::string_view text) const;

    const Node &root() const { return nodes_[0]; }
    const Node *children(const Node &node) const { return nodes_.data() + node.first_child; }

  private:
    // The child by this byte; null when there is none.
    const Node *child(const Node &node, char byte) const;

    std::vector<Node> nodes_;
};

} // namespace ev
