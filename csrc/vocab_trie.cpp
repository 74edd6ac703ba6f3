#include "vocab_trie.h"

#include <algorithm>
#include <numeric>

namespace ev {

VocabTrie::VocabTrie(const std::vector<std::string_view> &tokens) {
    std::vector<int32_t> order(tokens.size());
    std::iota(order.begin(), order.end(), 0);
    order.erase(
        std::remove_if(order.begin(), order.end(), [&](int32_t id) { return tokens[id].empty(); }),
        order.end());
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return tokens[a] < tokens[b]; });

    // Breadth first, so that the children of a node lie side by side. A range of `order` whose
    // strings share their first `depth` bytes is one node.
    struct Range {
        size_t begin, end, depth;
    };
    std::vector<Range> ranges{{0, order.size(), 0}};
    nodes_.push_back({0, 0, 0, -1});
    for (size_t i = 0; i < ranges.size(); ++i) {
        Range range = ranges[i];
        while (range.begin < range.end && tokens[order[range.begin]].size() == range.depth) {
            if (nodes_[i].token < 0)
                nodes_[i].token = order[range.begin];
            ++range.begin;
        }
        nodes_[i].first_child = uint32_t(nodes_.size());
        for (size_t at = range.begin; at < range.end;) {
            const uint8_t byte = uint8_t(tokens[order[at]][range.depth]);
            size_t last = at;
            while (last < range.end && uint8_t(tokens[order[last]][range.depth]) == byte)
                ++last;
            nodes_.push_back({0, 0, byte, -1});
            ranges.push_back({at, last, range.depth + 1});
            ++nodes_[i].n_children;
            at = last;
        }
    }
    nodes_.shrink_to_fit();
}

const VocabTrie::Node *VocabTrie::child(const Node &node, char byte) const {
    const Node *first = children(node), *last = first + node.n_children;
    const Node *found =
        std::find_if(first, last, [&](const Node &each) { return each.byte == uint8_t(byte); });
    return found == last ? nullptr : found;
}

std::pair<int32_t, size_t> VocabTrie::longest(std::string_view text) const {
    std::pair<int32_t, size_t> best = {-1, 0};
    const Node *node = &root();
    for (size_t at = 0; at < text.size() && (node = child(*node, text[at])); ++at) {
        if (node->token >= 0)
            best = {node->token, at + 1};
    }
    return best;
}

int32_t VocabTrie::fewest(std::string_view text) const {
    std::vector<int32_t> least(text.size() + 1, -1); // for each beginning
    least[0] = 0;
    for (size_t from = 0; from < text.size(); ++from) {
        if (least[from] < 0)
            continue;
        const Node *node = &root();
        for (size_t at = from; at < text.size() && (node = child(*node, text[at])); ++at) {
            if (node->token >= 0 && (least[at + 1] < 0 || least[at + 1] > least[from] + 1))
                least[at + 1] = least[from] + 1;
        }
    }
    return least[text.size()];
}

} // namespace ev
